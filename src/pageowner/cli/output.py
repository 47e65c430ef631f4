"""Standard output for what programs read."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.report.writer import Writer

__all__ = ["standard_output", "write_out"]


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Standard output as a file of bytes; a terminal, which would act on escape sequences in a
    text, gets it at the end with these made visible."""
    sys.stdout.flush()
    if not sys.stdout.isatty():
        yield sys.stdout.buffer
        return
    import io

    from pageowner.report.terminal import output_encoding

    inner, encoded = io.BytesIO(), output_encoding()
    yield inner
    lines = inner.getvalue().decode(errors="surrogateescape").split("\n")
    sys.stdout.buffer.write(b"\n".join(map(encoded, lines)))


def write_out(writer: Writer) -> None:
    """Write a report to standard output."""
    with standard_output() as file:
        writer.write(file)
