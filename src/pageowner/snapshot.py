"""The model: one Arrow table, a row per allocation, and what is known about its source.

Every source makes a `Snapshot`, every analysis takes one. Saved, it is one Parquet file that any
reader of Parquet understands: text is dictionary-encoded in place and the metadata is JSON in the
file's own key-value metadata, so there are no side tables.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from pageowner.analysis.words import Filter

__all__ = ["METADATA_KEY", "SCHEMA", "SCHEMA_VERSION", "STATES", "TEXT", "Metadata", "Snapshot"]

SCHEMA_VERSION = 1
"""Raised when a reader of the older version could misread a newer file."""

METADATA_KEY = b"pageowner"
"""The key of the JSON metadata in the Parquet file."""

TEXT = pa.dictionary(pa.int32(), pa.string())

STATES = ("owned", "early", "untracked")
"""What a row can be: allocated while tracked; before tracking began; since, but seen by no hook."""

SCHEMA = pa.schema(
    [
        pa.field("pfn", pa.uint64()),
        pa.field("order", pa.uint8()),
        pa.field("gfp_mask", pa.uint32()),
        pa.field("gfp_flags", TEXT),
        pa.field("migratetype", TEXT),
        pa.field("pid", pa.int32()),
        pa.field("tgid", pa.int32()),
        pa.field("comm", TEXT),
        pa.field("ts_ns", pa.uint64()),
        pa.field("free_ts_ns", pa.uint64()),
        pa.field("stack", TEXT),
        pa.field("state", TEXT),
        pa.field("block_migratetype", TEXT),
        pa.field("zone", TEXT),
        pa.field("node", pa.int16()),
        pa.field("page_flags", pa.uint64()),
        pa.field("flags", TEXT),
        pa.field("memcg", TEXT),
        pa.field("migrate_reason", TEXT),
        pa.field("handle", pa.uint32()),
        pa.field("notes", TEXT),
    ]
)
"""Columns of every snapshot; all are nullable, since sources differ in what they know.

- ``pfn``: first page frame number; null where the dump had no PFN line
- ``order``: the block is ``2**order`` base pages
- ``gfp_mask``, ``gfp_flags``: the raw mask (its bits move between kernels) and its names
- ``migratetype``: from the gfp mask: Unmovable, Movable, Reclaimable
- ``pid``, ``tgid``, ``comm``: the allocating task; bytes of its name that are not UTF-8 are kept
  as ``\\xNN``
- ``ts_ns``, ``free_ts_ns``: of this allocation, of the last free before it; ns since boot
- ``stack``: frames, innermost first, one a line: ``func+0x1f/0x90 [module]``
- ``state``: one of `STATES`
- ``block_migratetype``, ``zone``, ``node``: of the pageblock
- ``page_flags``: bits of /proc/kpageflags of the first page
- ``flags``: the flags as the kernel's dump prints them: ``0x2200(slab|private|node=0|zone=0)``
- ``memcg``: the cgroup charged
- ``migrate_reason``: of the last migration
- ``handle``: stack depot handle, where the dump printed it
- ``notes``: further lines of the record, as they stood
"""


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
        if meta.page_size < 1 or not 0 <= (meta.pageblock_order or 0) <= 30:
            raise PageownerError("the snapshot's metadata is damaged: no kernel has these sizes")
        return meta


@dataclass(frozen=True)
class Snapshot:
    """The owners of pages at one moment: ``table`` has the columns of `SCHEMA`, in pfn order
    where the source has one."""

    table: pa.Table
    meta: Metadata

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], meta: Metadata) -> Snapshot:
        """A snapshot of some columns; those left out are null.

        Each value is an Arrow array, or anything that makes one; all of one length.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        arrays = []
        for column in SCHEMA:
            values = columns.get(column.name)
            if values is None:
                array = _nulls(rows, column.type)
            elif isinstance(values, (pa.Array, pa.ChunkedArray)):
                array = values if values.type == column.type else values.cast(column.type)
            else:
                array = pa.array(values, type=column.type)
            arrays.append(array)
        return cls(pa.table(arrays, schema=SCHEMA), meta)

    @property
    def pages(self) -> int:
        """Base pages in all rows."""
        import pyarrow.compute as pc

        return int(pc.sum(pc.shift_left(pa.scalar(1, pa.uint64()),
                                        self.table["order"].cast(pa.uint64()))).as_py() or 0)

    def select(self, **words: Any) -> Snapshot:
        """The rows that match all of the filter words (see `analysis.select.Filter`)."""
        from pageowner.analysis.words import Filter

        return self.where(Filter(**words))

    def where(self, chosen: Filter) -> Snapshot:
        """The rows that match a `Filter`."""
        from pageowner.analysis.select import select

        return Snapshot(select(self, chosen), self.meta)

    def report(self, by: str | Sequence[str] = "stack", **options: Any) -> pa.Table:
        """Who owns the memory: see `analysis.owners.owners` for the options and the columns."""
        from pageowner.analysis.owners import owners

        return owners(self, by, **options)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one Parquet file, whole or not at all, mode 0600."""
        from pageowner.formats.parquet import write

        write(self, path)


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value from JSON is of the type that a field of `Metadata` is annotated with."""
    kind = {"str": str, "int": int, "dict": dict, "list": list}[
        annotation.partition("[")[0].partition(" ")[0]]
    if value is None:
        return annotation.endswith("None")
    if annotation == "dict[str, int]":
        return isinstance(value, dict) and all(type(n) is int for n in value.values())
    return isinstance(value, kind) and not isinstance(value, bool)


def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.nulls(rows, kind.index_type),
                                              pa.array([], kind.value_type))
    return pa.nulls(rows, kind)
