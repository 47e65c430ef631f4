"""The columns of a snapshot and the keys of questions, each declared once.

What other modules need of them follows from here: Arrow's types (`SCHEMA` of
`pageowner.model.snapshot`), what ``pageowner query --columns`` says, the words of ``--by``, what
the live view can tell, which columns a table never cuts. A new column is a line here, and what
fills it.

Nothing heavy is imported: words are checked before Arrow is.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALIASES", "BY_KEY", "COLUMNS", "DERIVED", "KEYS", "LOOKS", "NARROW",
           "NUMBERS", "OF_STACK", "SAVED", "TEXT", "Column", "Key"]

TEXT = "text"
"""Short for Arrow's strings with a dictionary; other types have Arrow's own names."""

_STACK, _TASK = "stack", "task"
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
class Column:
    """A column of a snapshot, or one that is computed beside them.

    - ``type``: `TEXT`, or what Arrow calls it
    - ``meaning``: one line, with the unit
    - ``recorded``: whether the tracker knows it of every page that it saw allocated
    - ``short``: a text of few letters, which a table shows whole; numbers are so anyway
    - ``of_stack``: computed of the column ``stack`` alone
    """

    name: str
    type: str
    meaning: str
    key: Key | None = None
    recorded: bool = False
    short: bool = False
    of_stack: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it has numbers, which stand at the right."""
        return self.type != TEXT

    @property
    def source(self) -> str:
        """The saved column that a key's labels are read from or computed of."""
        return _STACK if self.of_stack else self.name


_SAVED = (
    Column("pfn", "uint64", "first page frame number"),
    Column("order", "uint8", "the block is 2**order base pages",
           Key("order", 5, look="order"), recorded=True),
    Column("gfp_mask", "uint32", "raw; its bits move between kernel versions"),
    Column("gfp_flags", TEXT, "the mask as the kernel prints it, which is portable",
           Key("gfp", 6, look="gfp"), recorded=True),
    Column("migratetype", TEXT, "from the gfp mask: Unmovable, Movable, Reclaimable",
           Key("migratetype", 7, ("mt",), look="migratetype"), recorded=True, short=True),
    Column("pid", "int32", "of the allocating thread",
           Key("tid", 4, look=_TASK), recorded=True),
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
    Column("memcg", TEXT, "the cgroup charged", Key("memcg", 12, ("cgroup",), look="memcg")),
    Column("migrate_reason", TEXT, "of the last migration", Key("reason", 16)),
    Column("handle", "uint32", "stack depot handle, where the dump prints it"),
    Column("notes", TEXT, "lines of the record after its stack, unchanged"),
)

_DERIVED = (
    Column("pages", "int64", "base pages of the block: 2**order"),
    Column("bytes", "int64", "its size"),
    Column("age_s", "double", "age in seconds when the snapshot was taken"),
    Column("subsystem", TEXT, "what the memory is used for, as in report --by subsystem",
           Key("subsystem", 10, look=_STACK), of_stack=True),
    Column("module", TEXT, "module of the innermost frame, or vmlinux",
           Key("module", 9, ("mod",), look=_STACK), of_stack=True),
    Column("frame", TEXT, "the frame that explains the stack",
           Key("frame", 11, look=_STACK), of_stack=True),
    Column("source", TEXT, "which source the row is from: the name of its view; only if there are"
           " several"),
)

COLUMNS = {column.name: column for column in (*_SAVED, *_DERIVED)}
"""All columns by name."""

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
migration's, ``frame`` the frame that explains a stack."""

ALIASES = {alias: key for key, column in BY_KEY.items() if column.key is not None
           for alias in (*column.key.aliases, column.name) if alias not in BY_KEY}
"""Other words for keys."""

LOOKS = {key: column.key.look for key, column in BY_KEY.items()
         if column.key is not None and column.key.look}
"""The keys of the live view, and the field of a `pageowner.model.live.Look` that tells each."""

NUMBERS = frozenset(key for key, column in BY_KEY.items() if column.is_number)
"""The keys whose cells stand at the right."""

NARROW = NUMBERS | {key for key, column in BY_KEY.items() if column.short}
"""The keys that a table shows whole."""

OF_STACK = tuple(column.name for column in _DERIVED if column.of_stack)
"""The keys that are computed of a stack."""
