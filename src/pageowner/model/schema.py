"""The columns of a snapshot, the keys and the filters of questions, each declared once.

What other modules need of them follows from here: Arrow's types (`SCHEMA` of
`pageowner.model.snapshot`), what ``pageowner query --columns`` says, the words of ``--by``, the
options that filter, what the live view can tell, which columns a table never cuts, which lines of
a dump say what. A new column is an entry here; if a line of a dump says it, no more is needed,
else what fills it.

Nothing heavy is imported: words are checked before Arrow is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from pageowner.model.times import duration_ns

__all__ = ["AGE", "ALIASES", "BY_KEY", "COLUMNS", "DERIVED", "FILTERS", "FLAGS", "GLOB", "KEYS",
           "LINES", "LOOKED_AT", "LOOKS", "NARROW", "NUMBERS", "NUMERIC", "OF_PATH", "OF_STACK",
           "SAVED", "TEXT", "Column", "Filter", "Key", "Line", "Word"]

TEXT = "text"
"""Short for Arrow's strings with a dictionary; other types have Arrow's own names."""

_STACK, _TASK, _NOTES, _MEMCG = "stack", "task", "notes", "memcg"
_LAST = 1000


@dataclass(frozen=True)
class Key:
    """What rows can be grouped by.

    - ``name``: the word for ``--by``
    - ``place``: among the keys, as they are listed
    - ``aliases``: other words for it; the name of its column is one too
    - ``look``: the field of a `pageowner.model.live.Look` that tells it, empty if only a whole
      capture does
    """

    name: str
    place: int = _LAST
    aliases: tuple[str, ...] = ()
    look: str = ""


@dataclass(frozen=True)
class Line:
    """A line behind the stack of a dump's record that says a column.

    - ``pattern``: a regular expression for the whole line, whose one group is the value
    - ``form``: how the kernel prints it, with ``%s`` for the value; empty for lines of patches and
      of vendors, which are never written anew
    - ``place``: among the lines that the kernel prints
    """

    pattern: str
    form: str = ""
    place: int = 0


@dataclass(frozen=True)
class Column:
    """A column of a snapshot, or one that is computed beside them.

    - ``type``: `TEXT`, or what Arrow calls it
    - ``meaning``: one line, with the unit
    - ``recorded``: whether the tracker knows it of every page that it saw allocated
    - ``short``: a text of few letters, which a table shows whole; numbers are so anyway
    - ``of_stack``: computed of the column ``stack`` alone; ``of_notes``: of ``notes``; ``of_path``:
      of ``memcg``
    - ``line``: the line of a dump's record that says it, where there is one
    """

    name: str
    type: str
    meaning: str
    key: Key | None = None
    recorded: bool = False
    short: bool = False
    of_stack: bool = False
    of_notes: bool = False
    of_path: bool = False
    line: Line | None = None

    @property
    def is_number(self) -> bool:
        """Whether it has numbers, which stand at the right."""
        return self.type != TEXT

    @property
    def range(self) -> tuple[int, int]:
        """The least and the largest of its integers: ``int32``, ``uint64``."""
        bits = int(self.type.lstrip("uint"))
        return (0, (1 << bits) - 1) if self.type[0] == "u" else (-(1 << bits - 1),
                                                                 (1 << bits - 1) - 1)

    @property
    def source(self) -> str:
        """The saved column that a key's labels are read from or computed of."""
        return (_STACK if self.of_stack else _NOTES if self.of_notes else
                _MEMCG if self.of_path else self.name)


_SAVED = (
    Column("pfn", "uint64", "first page frame number"),
    Column("order", "uint8", "the block is 2**order base pages; null for groups of several blocks",
           Key("order", 5, look="order"), recorded=True),
    Column("gfp_mask", "uint32", "raw; its bits move between kernel versions"),
    Column("gfp_flags", TEXT, "the mask as the kernel prints it, which is portable",
           Key("gfp", 6, look="gfp"), recorded=True),
    Column("migratetype", TEXT, "from the gfp mask: Unmovable, Movable, Reclaimable",
           Key("migratetype", 7, ("mt",), look="migratetype"), recorded=True, short=True),
    Column("pid", "int32", "of the allocating thread",
           Key("tid", 4, look=_TASK), recorded=True, line=Line(r"PID (\d{1,10}) *")),
    Column("tgid", "int32", "of the allocating process",
           Key("pid", 3, ("tg",), look=_TASK), recorded=True),
    Column("comm", TEXT, "the allocating task's name; bytes that are not UTF-8 as \\xNN",
           Key("comm", 2, ("name", "task", "n"), look=_TASK), recorded=True),
    Column("ts_ns", "uint64", "time of the allocation, ns since boot", recorded=True),
    Column("free_ts_ns", "uint64", "time of the previous free, ns since boot"),
    Column("stack", TEXT, "frames, innermost first, one per line: func+0x1f/0x90 [module]",
           Key("stack", 1, ("st", "stacktrace"), look=_STACK), recorded=True),
    Column("state", TEXT, "owned; early: allocated before tracking began; untracked: later, but"
           " seen by no hook", Key("state", 15), short=True),
    Column("block_migratetype", TEXT, "of the pageblock; null in a live capture where it cannot be"
           " read", Key("block", 8), short=True),
    Column("zone", TEXT, "of the page; a dump has only the zone's number",
           Key("zone", 13, look="zone"), short=True),
    Column("node", "int16", "NUMA node of the page", Key("node", 14, look="node")),
    Column("page_flags", "uint64", "bits of /proc/kpageflags"),
    Column("flags", TEXT, "flags as the kernel's dump prints them"),
    Column("memcg", TEXT, "the cgroup charged", Key("memcg", 12, ("cgroup",), look="memcg"),
           line=Line(r"Charged (?:\(via objcg\) )?to (?:offlined? )?memcg (.*)",
                     "Charged to memcg %s", 2)),
    Column("migrate_reason", TEXT, "of the last migration", Key("reason", 16),
           line=Line(r"Page has been migrated, last migrate reason: (.*)",
                     "Page has been migrated, last migrate reason: %s", 1)),
    Column("user", TEXT, "what uses the page now: a process, a file, a slab cache, a caller of"
           " vmalloc; null if unknown", Key("user", 20, look="user")),
    Column("handle", "uint32", "stack depot handle, where the dump prints it"),
    Column("notes", TEXT, "lines of the record after its stack, unchanged"),
    Column("blocks", "uint64", "number of allocations in the row; null: one"),
    Column("amount", "uint64", "number of base pages in them, where the order does not give it"),
    Column("cache", TEXT, "slab cache of an object, or percpu", Key("cache", 19, look="cache")),
    Column("requested", "uint32", "bytes that the caller of an object's allocation asked for"),
    Column("address", "uint64", "address of an object"),
)

_DERIVED = (
    Column("pages", "int64", "base pages: 2**order for each block"),
    Column("bytes", "int64", "their size"),
    Column("age_s", "double", "age in seconds when the snapshot was taken"),
    Column("subsystem", TEXT, "what the memory is used for, as in report --by subsystem",
           Key("subsystem", 10, look=_STACK), of_stack=True),
    Column("module", TEXT, "module of the innermost frame, or vmlinux",
           Key("module", 9, ("mod",), look=_STACK), of_stack=True),
    Column("frame", TEXT, "the frame that best shows what the memory is for",
           Key("frame", 11, look=_STACK), of_stack=True),
    Column("allocator", TEXT, "pages, CMA, slab, vmalloc, percpu, or large kmalloc",
           Key("allocator", 17, look=_STACK), of_stack=True, short=True),
    Column("memcg_state", TEXT, "online or offline: whether the cgroup charged still exists",
           Key("memcg_state", 18), of_notes=True, short=True),
    Column("container", TEXT, "the container whose cgroup is charged: NAMESPACE/POD/CONTAINER in"
           " Kubernetes, else its name; 12 digits of its id if the name is unknown",
           Key("container", 21, look="container"), of_path=True),
    Column("pod", TEXT, "the pod whose cgroup is charged: NAMESPACE/POD, or its UID if the name is"
           " unknown", Key("pod", 22, look="pod"), of_path=True),
    Column("source", TEXT, "which source the row is from: the name of its view; only if there are"
           " several"),
)

COLUMNS = {column.name: column for column in (*_SAVED, *_DERIVED)}
"""All columns by name."""

LINES: dict[str, Line] = dict(sorted(
    ((column.name, column.line) for column in _SAVED if column.line is not None),
    key=lambda both: both[1].place))
"""The lines of a dump's record that say columns, by column, in the kernel's order."""

SAVED = {column.name: column.meaning for column in _SAVED}
"""The meanings of what a snapshot has, in the order of its table."""

DERIVED = {column.name: column.meaning for column in _DERIVED}
"""The meanings of what ``pageowner query`` computes beside them."""

BY_KEY = {key.name: column for key, column in sorted(
    ((column.key, column) for column in COLUMNS.values() if column.key is not None),
    key=lambda both: both[0].place)}
"""The column of each key, in the order in which keys are listed."""

KEYS = tuple(BY_KEY)
"""The words for ``--by``; ``pid`` is the process (the kernel's tgid) and ``tid`` the thread (the
kernel's pid), as ps names them; ``block`` is the pageblock's migratetype, ``reason`` the last
migration's, ``frame`` the frame of a stack that best shows what the memory is for."""

ALIASES = {alias: key for key, column in BY_KEY.items() if column.key is not None
           for alias in (*column.key.aliases, column.name) if alias not in BY_KEY}
"""Other words for keys."""

LOOKS = {key: column.key.look for key, column in BY_KEY.items()
         if column.key is not None and column.key.look}
"""The keys of the live view, and the field of a `pageowner.model.live.Look` that tells each."""

NUMERIC = frozenset(key for key, column in BY_KEY.items() if column.is_number)
"""The keys whose cells stand at the right."""

NARROW = NUMERIC | {key for key, column in BY_KEY.items() if column.short}
"""The keys that a table shows whole."""

OF_STACK = tuple(column.name for column in _DERIVED if column.of_stack)
"""The keys that are computed of a stack."""

OF_PATH = tuple(column.name for column in _DERIVED if column.of_path)
"""The keys that are computed of a cgroup's path."""

NUMBERS, GLOB, FLAGS, AGE = "N[,N...]", "GLOB", "FLAG[,FLAG...]", "AGE"
"""What filters take, as their help shows it; others name what they take."""


@dataclass(frozen=True)
class Word:
    """A filter as an option.

    - ``help``: its line there
    - ``takes``: `NUMBERS`, `GLOB`, `FLAGS`, `AGE`, or the name of a value out of few
    - ``lacks``: what a source does not know if no row has a value; empty where null has a meaning
    - ``key``: the key whose labels it looks at, if that has not the filter's name
    """

    help: str
    takes: str
    lacks: str = ""
    key: str = ""


def _word(help: str, takes: str, lacks: str = "", key: str = "") -> Any:
    return field(default=None, metadata={"word": Word(help, takes, lacks, key)})


@dataclass(frozen=True)
class Filter:
    """Which rows to keep; None in a field means any.

    ``comm``, ``module``, ``memcg``, ``subsystem`` and ``stack`` are shell patterns (``stack``
    matches if the function of any frame does, as the kernel printed it or as tables name it).
    ``gfp`` names flags that must all be set. ``older`` and ``newer`` are ages such as ``30s``,
    ``5m``, ``2h``: the time from the allocation to when the snapshot was taken (for a dump, to its
    newest allocation).
    """

    pid: tuple[int, ...] | None = _word(
        "Only pages allocated by these processes.", NUMBERS, "which processes allocated")
    tid: tuple[int, ...] | None = _word(
        "Only pages allocated by these threads.", NUMBERS, "which threads allocated")
    comm: tuple[str, ...] | None = _word(
        "Only pages allocated by tasks of this name.", GLOB, "names of tasks")
    module: tuple[str, ...] | None = _word(
        "Only pages allocated through this kernel module.", GLOB, "stacks")
    subsystem: tuple[str, ...] | None = _word(
        "Only pages used for this, such as 'page cache'.", GLOB, "stacks")
    stack: tuple[str, ...] | None = _word(
        "Only pages allocated through a function of this name.", GLOB, "stacks")
    memcg: tuple[str, ...] | None = _word(
        "Only pages charged to this cgroup.", GLOB, "cgroups")
    memcg_state: tuple[str, ...] | None = _word(
        "Only pages charged to cgroups in this state: online or offline.", "STATE",
        "which cgroups are offline")
    container: tuple[str, ...] | None = _word(
        "Only pages charged to this container: NAMESPACE/POD/CONTAINER, or its name or id.", GLOB,
        "cgroups")
    pod: tuple[str, ...] | None = _word(
        "Only pages charged to this pod: NAMESPACE/POD, or its UID.", GLOB, "cgroups")
    node: tuple[int, ...] | None = _word(
        "Only pages on these NUMA nodes.", NUMBERS, "NUMA nodes")
    zone: tuple[str, ...] | None = _word("Only pages in this zone.", "NAME", "zones")
    order: tuple[int, ...] | None = _word(
        "Only blocks of these orders.", NUMBERS, "orders of blocks")
    gfp: tuple[str, ...] | None = _word(
        "Only pages allocated with all of these gfp flags.", FLAGS, "names of gfp flags")
    migratetype: tuple[str, ...] | None = _word(
        "Only pages of this type: Unmovable, Movable or Reclaimable.", "TYPE", "migrate types")
    block_type: tuple[str, ...] | None = _word(
        "Only pages in pageblocks of this type, such as CMA.", "TYPE", "types of pageblocks",
        "block")
    allocator: tuple[str, ...] | None = _word(
        "Only memory from this allocator: pages, CMA, slab, vmalloc, percpu, or large kmalloc.",
        "NAME", "stacks")
    cache: tuple[str, ...] | None = _word(
        "Only objects of slab caches of this name.", GLOB, "slab caches of objects")
    user: tuple[str, ...] | None = _word(
        "Only pages that this process, file or cache uses now, such as 'slab dentry'.", GLOB,
        "what uses each page now")
    state: tuple[str, ...] | None = _word(
        "Only pages in this state: owned, early or untracked.", "STATE")
    older: str | None = _word(
        "Only pages at least this old: 30s, 5m, 2h, 1d.", AGE, "times of allocations")
    newer: str | None = _word("Only pages at most this old.", AGE, "times of allocations")

    def __post_init__(self) -> None:
        # One value may be given as it is: Filter(comm="bash").
        for name, value in self.given().items():
            if FILTERS[name].takes == AGE:
                duration_ns(value)
            elif isinstance(value, (str, int)):
                object.__setattr__(self, name, (value,))
            else:
                object.__setattr__(self, name, tuple(value) or None)

    def given(self) -> dict[str, Any]:
        """The filters that are asked for, with their values."""
        values = {name: getattr(self, name) for name in FILTERS}
        return {name: value for name, value in values.items() if value is not None}

    def ages_ns(self) -> tuple[int | None, int | None]:
        """The least and the most age that ``older`` and ``newer`` ask for."""
        return (None if self.older is None else duration_ns(self.older),
                None if self.newer is None else duration_ns(self.newer))

    def __bool__(self) -> bool:
        return bool(self.given())


FILTERS: dict[str, Word] = {each.name: each.metadata["word"] for each in fields(Filter)}
"""The filters, by the name of the key that they look at, or their own (ages, and those that name
their key)."""

LOOKED_AT = {name: word.key or name for name, word in FILTERS.items()}
"""The key that each filter looks at; of ages their own name."""
