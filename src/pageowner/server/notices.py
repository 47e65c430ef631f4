"""Leaks that are new, as lines in the journal with fields to look for: ``journalctl
PAGEOWNER_STACK=…``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.report.text import size
from pageowner.server.figures import leaks_of
from pageowner.system.journal import SOCKET, send

if TYPE_CHECKING:
    from pageowner.server.figures import Figures, Growth

__all__ = ["Notices"]

_MOST = 1000


class Notices:
    """Tells of each leak once; again when it was none for a while."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._known: set[tuple[str, str, str]] = set()

    def of(self, figures: Figures) -> int:
        """Send what is new; how many leaks that are."""
        leaks = {(leak.stack, leak.program, leak.note): leak
                 for leak in leaks_of(figures.growth[:_MOST])}
        new = [leak for key, leak in leaks.items() if key not in self._known]
        self._known = set(leaks)
        for leak in new:
            send(_fields(leak, figures.source), self._path)
        return len(new)


def _fields(leak: Growth, source: str) -> dict[str, str]:
    what = leak.subsystem or leak.note or "memory"
    whose = f" of {leak.program}" if leak.program else ""
    where = f", allocated by {leak.function}" if leak.function else ""
    return {"MESSAGE": f"{what}{whose} leaks {size(leak.rate * 3600)} an hour{where}",
            "PRIORITY": "4", "SYSLOG_IDENTIFIER": "pageowner", "PAGEOWNER_EVENT": "leak",
            "PAGEOWNER_SOURCE": source, "PAGEOWNER_STACK": leak.stack,
            "PAGEOWNER_FUNCTION": leak.function, "PAGEOWNER_MODULE": leak.module,
            "PAGEOWNER_SUBSYSTEM": leak.subsystem, "PAGEOWNER_PROGRAM": leak.program,
            "PAGEOWNER_BYTES_PER_SECOND": f"{leak.rate:.0f}",
            "PAGEOWNER_CONFIDENCE": f"{leak.confidence:.3f}"}
