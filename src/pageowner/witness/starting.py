"""Starts the process that watches, and passes on what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.system.closing import Closing
from pageowner.witness.conditions import parse

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watching"]


class Watching(Closing):
    """The process that captures events ``on`` into the open ``folder``; ``told`` is called with
    each line that it says, from a thread. Close it, or use ``with``."""

    def __init__(self, on: str, folder: int, keep_s: float, source: str | None,
                 told: Callable[[str], None]) -> None:
        """Raises UsageError for wrong words, PageownerError if it cannot watch."""
        parse(on)
        self._told = told
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pageowner.witness.process", str(os.getpid()),
             json.dumps({"on": on, "folder": folder, "keep_s": keep_s, "source": source})],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(folder,),
            encoding="utf-8", errors="replace")
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if first.strip() or not first:
            self.close()
            raise PageownerError(first.strip().removeprefix("cannot watch: ")
                                 or "the process that watches for events ended at once")
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told(line.rstrip("\n"))
        if not self._closed:
            self._told("the process that watches for events ended; no further ones are captured")

    _closed = False

    def close(self) -> None:
        """End it."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None and not hasattr(self, "_thread"):
            self._process.stdout.close()
        elif hasattr(self, "_thread"):
            self._thread.join()
            assert self._process.stdout is not None
            self._process.stdout.close()

