"""The shape of a snapshot's metadata in its file, and whether a text has it.

Files come from others, and what they say goes through every analysis: so the JSON is held against
these types as it is decoded, with the range of each number, before anything else looks at it. What
this version does not know is dropped.
"""

from __future__ import annotations

import base64
import re
import zlib
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from pageowner.errors import PageownerError
from pageowner.kernel.limits import HIGHEST_ORDER, NODES, PFN_BITS, PIDS, TIME_BITS, ZONES
from pageowner.model.pfn_runs import unpack
from pageowner.model.source_kinds import kind_named

__all__ = ["LARGEST", "Saved", "decode", "decode_changes", "without_surrogates"]

LARGEST = 32 << 20
"""Bytes of JSON: 4,096 fragmentation events with the deepest stacks are 9 million."""

_DEEPEST = 1 << 17  # characters of a stack: 64 frames of the longest symbols (KSYM_NAME_LEN 512)

Name = Annotated[str, Meta(max_length=4096)]
Short = Annotated[str, Meta(max_length=64)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Frames = Annotated[int, Meta(ge=0, le=1 << PFN_BITS)]
Time = Annotated[int, Meta(ge=0, le=(1 << TIME_BITS) - 1)]
Node = Annotated[int, Meta(ge=0, lt=NODES)]
Order = Annotated[int, Meta(ge=0, le=HIGHEST_ORDER)]
Task = Annotated[int, Meta(ge=0, le=PIDS)]
ByOrder = Annotated[list[Frames], Meta(max_length=HIGHEST_ORDER + 1)]
Runs = Annotated[str, Meta(max_length=LARGEST)]


class Zone(Struct):
    """An item of ``zones``."""

    start_pfn: Frames
    spanned: Frames
    node: Node | UnsetType | None = UNSET
    name: Short | UnsetType | None = UNSET
    present: Frames | UnsetType = UNSET
    managed: Frames | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.start_pfn + self.spanned > 1 << PFN_BITS:
            raise ValueError("a zone that ends beyond the memory a machine can have")
        if any(part is not UNSET and part > self.spanned for part in (self.present, self.managed)):
            raise ValueError("a zone with more pages than it spans")


class Between(Struct):
    """What lies between the rows: ``extra.memory``."""

    held: Runs | UnsetType | None = UNSET
    filtered: Runs | UnsetType | None = UNSET
    spans: Runs | UnsetType | None = UNSET
    free: Annotated[list[tuple[Node, Short, ByOrder]],
                    Meta(max_length=NODES * ZONES)] | UnsetType = UNSET
    tasks: Annotated[list[Task], Meta(max_length=PIDS)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        for text in (self.held, self.filtered, self.spans):
            if isinstance(text, str) and unpack(text) is None:
                raise ValueError("runs of page frames that are none")
        if self.free is not UNSET and any(
                sum(number << order for order, number in enumerate(counts)) >> PFN_BITS
                for _, _, counts in self.free):
            raise ValueError("more free memory than a machine can have")


class Event(Struct):
    """An item of ``extra.extfrag``."""

    count: Count
    comm: Name | UnsetType | None = UNSET
    pid: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 32)] | UnsetType | None = UNSET
    tgid: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 32)] | UnsetType | None = UNSET
    stack: Annotated[str, Meta(max_length=_DEEPEST)] | UnsetType | None = UNSET
    order: Order | UnsetType | None = UNSET
    migratetype: Short | UnsetType | None = UNSET
    fallback_order: Order | UnsetType | None = UNSET
    fallback_migratetype: Short | UnsetType | None = UNSET
    last_ns: Time | UnsetType | None = UNSET


class Unexplained(Struct):
    """An item of ``extra.unexplained`` (`pageowner.model.unexplained`)."""

    kind: Short
    order: Order
    pages: Frames
    zone: Short | None = None
    block: Short | None = None


class Objects(Struct):
    """``extra.objects``: how objects were chosen, and how many there were."""

    share: Annotated[int, Meta(ge=1, le=1 << 20)]
    there: Annotated[dict[Name, Count], Meta(max_length=1 << 14)] = {}
    early: Annotated[dict[Name, Count], Meta(max_length=1 << 14)] = {}


class Users(Struct):
    """What was noticed while the pages' users were found (`pageowner.model.page_users`)."""

    counts: Annotated[dict[Short, Count], Meta(max_length=100)] = {}
    notes: Annotated[list[Name], Meta(max_length=100)] = []


class Extra(Struct):
    """``extra``: what only some sources know."""

    damage: Annotated[list[tuple[Count, Name]], Meta(max_length=1000)] | UnsetType = UNSET
    symbols: Name | UnsetType | None = UNSET
    page_size_from: Name | UnsetType | None = UNSET
    undone: Annotated[list[Name], Meta(max_length=100)] | UnsetType = UNSET
    left_out: Annotated[list[Name], Meta(max_length=100)] | UnsetType = UNSET
    not_from_memory: Name | UnsetType = UNSET
    read_while_running: bool | UnsetType = UNSET
    kernels_own: bool | UnsetType = UNSET
    since_ns: Time | UnsetType | None = UNSET
    options: Annotated[dict[Short, bool | int | float | Name | None],
                       Meta(max_length=100)] | UnsetType = UNSET
    no_block_types: Name | UnsetType | None = UNSET
    memory: Between | UnsetType = UNSET
    gfp_flags: Annotated[list[Short], Meta(max_length=64)] | UnsetType = UNSET
    extfrag: Annotated[list[Event], Meta(max_length=1 << 16)] | UnsetType = UNSET
    unexplained: Annotated[list[Unexplained], Meta(max_length=1 << 16)] | UnsetType = UNSET
    objects: Objects | UnsetType = UNSET
    users: Users | UnsetType = UNSET
    containers: Annotated[dict[Name, Name], Meta(max_length=1 << 16)] | UnsetType = UNSET
    panic: Name | UnsetType | None = UNSET


class Saved(Struct):
    """The fields of `pageowner.model.metadata.Metadata`."""

    source: Name = ""
    kind: Short = ""
    host: Name | None = None
    kernel: Name | None = None
    boot_id: Name | None = None
    taken_at: Short | None = None
    clock_ns: Time | None = None
    page_size: Annotated[int, Meta(ge=1, le=1 << 20)] = 4096
    pageblock_order: Order | None = None
    dump_format: Annotated[dict[Short, bool | int | Short | None], Meta(max_length=100)] = {}
    zones: Annotated[list[Zone], Meta(max_length=NODES * ZONES)] = []
    hooks: Annotated[dict[Name, Name], Meta(max_length=1000)] = {}
    frames: Annotated[dict[Short, Frames], Meta(max_length=100)] = {}
    counters: Annotated[dict[Name, Count], Meta(max_length=1000)] = {}
    extra: Extra = msgspec.field(default_factory=Extra)

    def __post_init__(self) -> None:
        if self.page_size & self.page_size - 1:
            raise ValueError("a page size that is not a power of two")
        if (self.page_size == 1) == kind_named(self.kind).in_pages or 1 < self.page_size < 1 << 12:
            raise ValueError(f"pages of {self.page_size} bytes")
        if sum(self.frames.values()) >> PFN_BITS:
            raise ValueError("more page frames than a machine can have")


class _Version(Struct):
    schema: Count


def decode(text: bytes, newest: int) -> dict[str, Any]:
    """The fields that JSON text gives, each as its type; those left out are left out.

    Raises PageownerError if the text is not such an object, or of a schema above ``newest``.
    """
    try:
        if len(text) > LARGEST:
            raise ValueError(f"it has {len(text):,} bytes")
        text = without_surrogates(text)
        version = msgspec.json.decode(text, type=_Version).schema
        if version > newest:
            raise PageownerError(f"the snapshot has schema {version}, this pageowner knows up"
                                 f" to {newest}; upgrade pageowner")
        saved = msgspec.json.decode(text, type=Saved)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PageownerError(f"the snapshot's metadata is damaged: {_said(error)}") from error
    # back through JSON, which has lists where the types above have tuples
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(saved))
    return fields


class _Changes(Struct):
    format: int
    before: Name
    meta: Annotated[str, Meta(max_length=LARGEST * 4 // 3 + 4)]


def decode_changes(text: bytes, newest: int) -> tuple[str, bytes]:
    """What a file of changes says of itself: the name of the file that it builds on, and the
    capture's metadata as JSON.

    Raises PageownerError for what is no such text, or of a format above ``newest``.
    """
    try:
        about = msgspec.json.decode(text, type=_Changes)
        if about.format > newest:
            raise PageownerError("of a newer pageowner; upgrade this one")
        opener = zlib.decompressobj()
        meta = opener.decompress(base64.b64decode(about.meta), LARGEST)
        if opener.unconsumed_tail or not opener.eof:
            raise ValueError("its metadata is cut short, or too large")
    except (msgspec.MsgspecError, ValueError, RecursionError, zlib.error) as error:
        raise PageownerError(f"a damaged file of changes: {_said(error)}") from error
    return about.before, meta


_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)


def _said(error: Exception) -> str:
    """``zones[0].name: expected `str`, got `int```, from what msgspec says."""
    text = str(error)
    found = _PLACE.fullmatch(text)
    if not found:
        return text
    what, place = found.groups()
    return f"{place or 'it'}: {what[:1].lower()}{what[1:]}"


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u[dD][cC]([89a-fA-F].)"
                     rb"|(u[dD][89a-fA-F])|.)", re.DOTALL)


def without_surrogates(text: bytes) -> bytes:
    """JSON text in which bytes of a file's name that are not UTF-8, which Python holds as single
    surrogates (PEP 383), are written as ``\\\\xNN``. Raises ValueError for any other."""
    if not _SURROGATE.search(text):
        return text
    return _ESCAPE.sub(_escaped, text)


def _escaped(found: re.Match[bytes]) -> bytes:
    if found[2]:
        raise ValueError("a text that is not Unicode")
    return b"\\\\x" + found[1].lower() if found[1] else found[0]
