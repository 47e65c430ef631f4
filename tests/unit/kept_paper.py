"""A paper that keeps what is drawn on it."""

from __future__ import annotations

from pageowner.report.terminal import Paper


class KeptPaper(Paper):
    """Its lines, as plain text."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.lines: list[str] = []

    def line(self, text: str = "", style: str = "") -> None:
        self.lines.append(text)
