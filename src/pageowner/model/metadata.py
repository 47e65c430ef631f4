"""What is known about where a snapshot's rows came from, and how that is kept as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SCHEMA_VERSION", "STATES", "Metadata", "of_some_tasks"]

SCHEMA_VERSION = 2
"""Raised when a reader of the older version could misread a newer file: 2 has rows that stand for
several allocations. Other snapshots are still of `_ONE_EACH`, for older readers."""

_ONE_EACH = 1

STATES = ("owned", "early", "untracked")
"""What a row can be: allocated while tracked; before tracking began; since, but seen by no hook."""

_FILTERS: dict[str, tuple[str, Any]] = {
    "kernel_only": ("--kernel-only", False), "min_order": ("--min-order", 0), "tgid": ("--pid", 0),
    "cgroup": ("--cgroup", ""), "sample": ("--sample", 1)}


_OF_TASKS = ("tgid", "cgroup")


def of_some_tasks(options: object) -> str:
    """Whose allocations alone ``options`` of `pageowner on` choose, as the words for that; empty if
    everybody's."""
    return _words(options, _OF_TASKS)


def _words(options: object, names: Iterable[str]) -> str:
    given = options if isinstance(options, dict) else {}
    return " ".join(word if given[name] is True else f"{word} {given[name]}"
                    for name, (word, default) in ((name, _FILTERS[name]) for name in names)
                    if given.get(name, default) != default)


@dataclass
class Metadata:
    """What is known about the source of the rows; unknown fields are None or empty.

    ``counters`` counts what could not be read or tracked, by name: ``damaged`` records of a dump,
    ``unknown_lines``, or events that the tracker missed. ``frames`` counts page frames by state
    (free, owned, early, untracked, reserved) if the source knows all of them. ``clock_ns`` is the
    time when the source was read, in ns since boot. A dump does not contain it; the time of its
    newest allocation is used instead.
    """

    source: str = ""
    kind: str = ""
    host: str | None = None
    kernel: str | None = None
    boot_id: str | None = None
    taken_at: str | None = None
    clock_ns: int | None = None
    page_size: int = 4096
    pageblock_order: int | None = None
    dump_format: dict[str, Any] = field(default_factory=dict)
    zones: list[dict[str, Any]] = field(default_factory=list)
    hooks: dict[str, str] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    read_here = False
    """Whether this process read the kernel's own page owner here, so that what this machine says of
    its pages now belongs to it. No field, as it is not true of what was saved."""

    def left_out(self) -> str:
        """Which pages were not tracked, as the words of `pageowner on` for that; empty if none."""
        return _words(self.extra.get("options"), _FILTERS)

    def of_some_tasks(self) -> str:
        """Whose allocations alone were tracked, pages as objects, as such words; empty if
        everybody's."""
        return of_some_tasks(self.extra.get("options"))

    def container_names(self) -> dict[str, str]:
        """What containers and pods are called, by id (`pageowner.kernel.containers`), as far as the
        machine told when the source was read there."""
        names = self.extra.get("containers")
        return names if isinstance(names, dict) else {}

    def as_read(self) -> dict[str, Any]:
        """For programs: what was counted while the source was read, what was done to its text after
        the kernel printed it, and undone, and from what the page size is known (None: the kernel).
        ``users``: what was noticed while users of pages were found, if they were. ``symbols``: of
        addresses in stacks that were given names, if they were.
        """
        symbols = self.extra.get("symbols")
        return {"counters": self.counters, "undone": self.extra.get("undone") or [],
                "page_size_from": self.extra.get("page_size_from"),
                **({"symbols": symbols} if symbols else {}),
                **({"users": self.extra["users"]} if self.extra.get("users") else {})}

    def to_json(self) -> bytes:
        """These fields and the schema's version as one JSON object."""
        from pageowner.model.saved_metadata import without_surrogates
        from pageowner.model.source_kinds import has_pages

        return without_surrogates(
            json.dumps({"schema": _ONE_EACH if has_pages(self) else SCHEMA_VERSION,
                        **asdict(self)}, sort_keys=True).encode())

    @classmethod
    def from_json(cls, text: bytes) -> Metadata:
        """The inverse of `to_json`; fields that this version does not know are ignored.

        Raises PageownerError if the text is not such an object or is of a newer schema.
        """
        # only here: a dump of the kernel's has no such text
        from pageowner.model.saved_metadata import decode

        return cls(**decode(text, SCHEMA_VERSION))
