"""The process that reads: ``python -m pageowner.server.worker``, started by the server.

Standard input has questions, a line of JSON each: ``{"ask": name, "words": {...}}``; the first line
says what is served. Standard output has answers: a line of JSON, ``{"type": ..., "file": ...,
"length": n}`` or ``{"error": text, "usage": bool}``, and the n bytes. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from pageowner.errors import PageownerError, UsageError
from pageowner.system.child_process import end_with

__all__ = ["main"]


def main() -> None:
    """Answer until nobody asks."""
    end_with(int(sys.argv[1]))
    # What libraries print goes to stderr: nothing but answers is written to the pipe.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    about = json.loads(sys.stdin.buffer.readline())
    from pageowner.server import sources
    from pageowner.server.answers import Context

    source = sources.served(about["source"], about["window_ns"])
    history = (sources.Series(Path(about["history"])) if about["history"] else
               source if isinstance(source, sources.Series) else None)
    context = Context(source, history)
    for line in iter(sys.stdin.buffer.readline, b""):
        _answer(context, json.loads(line), answers)


def _answer(context: Any, asked: dict[str, Any], answers: BinaryIO) -> None:
    from pageowner.server.answers import answer

    try:
        found = answer(context, asked["ask"], asked["words"])
        head: dict[str, Any] = {"type": found.type, "file": found.file, "length": len(found.body)}
        body = found.body
    except (PageownerError, OSError, MemoryError) as error:
        head = {"error": str(error) or "out of memory", "usage": isinstance(error, UsageError)}
        body = b""
    answers.write(json.dumps(head).encode() + b"\n")
    answers.write(body)
    answers.flush()


if __name__ == "__main__":
    main()
