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
        "cut": log.cut, "notes": warnings,
        "reports": [{
            "type": type(one.event).__name__, **asdict(one.event),
            "answers": {
                "memory": None if one.memory is None else asdict(one.memory),
                "blocks": None if one.blocks is None else asdict(one.blocks),
                "asked": None if one.asked is None else asdict(one.asked),
                "freed": None if one.freed is None else asdict(one.freed),
                "next": [command for command, _ in one.next]}} for one in found.events],
        "grown": [asdict(one) for one in found.grown]}
