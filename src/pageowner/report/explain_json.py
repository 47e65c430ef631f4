"""The reports of a kernel log for programs: ``pageowner explain --json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pageowner.analysis.explain import Explanation

__all__ = ["to_json"]


def to_json(found: Explanation, warnings: list[str]) -> dict[str, Any]:
    """All reports; sizes in the units of `pageowner.model.kernel_log`, those of ``answers`` in
    bytes. ``notes`` are what was said on stderr."""
    log = found.log
    return {
        "source": log.source, "lines": log.lines, "page_size": log.page_size,
        "page_size_known": log.page_size_known, "joined_lines": log.joined,
        "quoted_lines": log.quoted, "was_encoded": log.was_encoded,
        "reports_in_all": len(log.events), "suppressed": log.suppressed, "unread": log.unread,
        "cut": log.cut,
        "panics": [{"line": line, "time": time, "text": text} for line, time, text in log.panics],
        "notes": warnings,
        "reports": [{
            "type": type(report.event).__name__, **asdict(report.event),
            "answers": {
                "memory": None if report.memory is None else asdict(report.memory),
                "blocks": None if report.blocks is None else asdict(report.blocks),
                "asked": None if report.asked is None else asdict(report.asked),
                "freed": None if report.freed is None else asdict(report.freed),
                "next": [command for command, _ in report.next]}} for report in found.events],
        "grown": [asdict(kind) for kind in found.grown]}
