"""The balance for programs: ``pageowner balance --json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pageowner.analysis.balance import Balance, Row

__all__ = ["to_json"]


def to_json(balance: Balance) -> dict[str, Any]:
    """All rows, nested; sizes in bytes. ``rows`` add up to ``total``, each row's ``rows`` to its
    ``bytes``, and ``before`` and ``total`` to ``installed``."""
    return {
        "installed": balance.installed, "total": balance.total, "available": balance.available,
        "unknown": balance.unknown, "moved_while_read": balance.moved,
        "before": [_row(row) for row in balance.before],
        "rows": [_row(row) for row in balance.rows],
        "cgroups": [cgroup._asdict() for cgroup in balance.cgroups],
        "known_of_unknown": balance.known,
        "warnings": [warned._asdict() for warned in balance.warnings],
        "notes": balance.notes, "missing": balance.missing}


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "key": row.key, "name": row.name, "bytes": row.bytes, "counter": row.counter or None,
        "command": row.command or None, "note": row.note or None}
    if row.rows:
        found["rows"] = [_row(below) for below in row.rows]
    return found
