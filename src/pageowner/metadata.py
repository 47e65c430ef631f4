"""What is known about where a snapshot's rows came from, and how that is kept as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pageowner.errors import PageownerError

__all__ = ["SCHEMA_VERSION", "STATES", "Metadata"]

SCHEMA_VERSION = 1
"""Raised when a reader of the older version could misread a newer file."""

STATES = ("owned", "early", "untracked")
"""What a row can be: allocated while tracked; before tracking began; since, but seen by no hook."""

_FILTERS: dict[str, tuple[str, Any]] = {
    "kernel_only": ("--kernel-only", False), "min_order": ("--min-order", 0), "tgid": ("--pid", 0),
    "cgroup": ("--cgroup", ""), "sample": ("--sample", 1)}


@dataclass
class Metadata:
    """What is known about where the rows came from; unknown fields are None or empty.

    ``counters`` counts what could not be read or tracked, by name: ``damaged`` records of a dump,
    ``unknown_lines``, or the tracker's drops. ``frames`` counts page frames by what they are
    (free, owned, early, untracked, reserved) where the source sees all of them. ``clock_ns`` is
    when the source was read, in ns since boot; a dump does not say, but not before its newest
    allocation, which is taken for it.
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

    def left_out(self) -> str:
        """Which pages were not tracked, as the words of `pageowner on` for that; empty if none."""
        options = self.extra.get("options")
        options = options if isinstance(options, dict) else {}
        return " ".join(word if options[name] is True else f"{word} {options[name]}"
                        for name, (word, default) in _FILTERS.items()
                        if options.get(name, default) != default)

    def to_json(self) -> bytes:
        """These fields and the schema's version as one JSON object."""
        return json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}, sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Metadata:
        """The inverse of `to_json`; fields that this version does not know are dropped.

        Raises PageownerError if the text is not such an object or of a newer schema.
        """
        try:
            raw = json.loads(text)
            version = int(raw.pop("schema"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PageownerError(f"the snapshot's metadata is damaged: {error}") from error
        if version > SCHEMA_VERSION:
            raise PageownerError(
                f"the snapshot has schema {version}, this pageowner knows up to {SCHEMA_VERSION};"
                " upgrade pageowner"
            )
        known = {f.name: str(f.type) for f in fields(cls)}
        for name, value in raw.items():
            if name in known and not _fits(value, known[name]):
                raise PageownerError(f"the snapshot's metadata is damaged: {name} is {value!r:.40}")
        meta = cls(**{key: value for key, value in raw.items() if key in known})
        if not 1 <= meta.page_size <= 1 << 30 or not 0 <= (meta.pageblock_order or 0) <= 30:
            raise PageownerError("the snapshot's metadata is damaged: no kernel has these sizes")
        if not 0 <= (meta.clock_ns or 0) < 1 << 63:
            raise PageownerError("the snapshot's metadata is damaged: no clock shows this time")
        if not all(isinstance(one, dict) and all(
                type(one.get(name)) is int for name in ("start_pfn", "spanned"))
                for one in meta.zones):
            raise PageownerError("the snapshot's metadata is damaged: zones are no list of zones")
        if not _are_places(meta.extra.get("damage", [])):
            raise PageownerError("the snapshot's metadata is damaged: places of damage are no list"
                                 " of bytes and reasons")
        return meta


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value from JSON is of the type that a field of `Metadata` is annotated with."""
    kind = {"str": str, "int": int, "dict": dict, "list": list}[
        annotation.partition("[")[0].partition(" ")[0]]
    if value is None:
        return annotation.endswith("None")
    if annotation == "dict[str, int]":
        return isinstance(value, dict) and all(type(n) is int for n in value.values())
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_places(value: Any) -> bool:
    """Whether a value from JSON lists pairs of a byte and what is wrong there."""
    return isinstance(value, list) and all(
        isinstance(place, list) and [type(part) for part in place] == [int, str]
        for place in value)
