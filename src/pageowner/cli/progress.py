"""How far a call is that watches this machine, on stderr."""

from __future__ import annotations

import sys
from typing import Any

from pageowner.cli.messages import say

__all__ = ["Progress"]


class Progress:
    """A bar on stderr if a person sees it, else one line; from when it is first shown."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._begun = False
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def show(self, done: int, looks: int) -> None:
        """Draw how far it is: ns since the beginning, and looks."""
        if not self._begun:
            self._begun = True
            self._begin()
        if self._bar is not None:
            self._bar.update(self._task, completed=min(done, self._length), looks=looks)

    def _begin(self) -> None:
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("watching"), progress.BarColumn(None),
                progress.TextColumn("{task.fields[looks]} looks"),
                progress.TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=self._length, looks=0)
            self._bar.start()
        else:
            from pageowner.report.text import age

            say(f"watching for {age(self._length)}")

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
