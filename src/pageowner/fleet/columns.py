"""The tables of a fleet, each column declared once: its type and what it means.

docs/reference/fleet.md lists them in the same words, for engines that read the files without us.
Nothing heavy is imported.
"""

from __future__ import annotations

from typing import NamedTuple

from pageowner.model.times import duration_ns

__all__ = ["AGES", "CAPTURES", "KEYS", "OWNERS", "PARTITIONS", "SCHEMA_VERSION", "SMALL", "STACKS",
           "Column", "age_column", "age_ns"]

SCHEMA_VERSION = 1
"""Raised when an older reader could misread a newer file, whose path then differs too; columns may
be added without."""

SMALL = "(small owners)"
"""What answers call the row of owners too small for rows of their own."""

AGES = ("10m", "1h", "3h", "6h", "12h", "1d", "2d", "3d", "4d", "5d", "6d", "7d", "14d", "28d")
"""The ages of pages that are told apart, rising; no other can be asked for."""


class Column(NamedTuple):
    """``type`` is one of text, int32, int64, double and timestamp (UTC, microseconds); ``key``: the
    word for ``--by`` where rows can be grouped by it."""

    type: str
    meaning: str
    key: str = ""


def age_column(age: str) -> str:
    """The name of the column of pages that are at least so old, one of `AGES`."""
    return f"older_{age}"


_CAPTURE = {
    "capture": Column("int64", "identifies the capture: a hash of host, boot, time and clock"),
    "series": Column("int64", "identifies the series of captures: a hash of host, machine, boot,"
                     " start of tracking, kernel and labels"),
    "host": Column("text", "name of the machine", "host"),
    "machine": Column("text", "hash of the machine's /etc/machine-id; null for dumps", "machine"),
    "boot_id": Column("text", "the kernel's random id of the boot; null for dumps", "boot"),
    "kernel": Column("text", "kernel release, as uname -r prints it", "kernel"),
    "labels": Column("text", "the labels given with --label: a JSON object, with sorted keys"),
    "taken": Column("timestamp", "when the capture was taken; of one that was not read from a file"
                    " by the store's clock, if the machine's differs from it by more than a"
                    " minute"),
    "clock_s": Column("double", "the same moment in seconds since boot, by a clock that cannot"
                      " be set"),
    "clock_ahead_s": Column("double", "how many seconds the machine's clock was ahead of the"
                            " store's when they were last compared; null: not compared"),
    "page_size": Column("int32", "size of a page in bytes"),
}

_OWNER = {
    "stack_id": Column("int64", "the stack, a key of the table stacks; null: no stack is known;"
                       " 0: the row of all owners too small for rows of their own", "stack"),
    "comm": Column("text", "name of the allocating task", "comm"),
    "subsystem": Column("text", "what the memory is used for", "subsystem"),
    "memcg": Column("text", "path of the cgroup charged", "memcg"),
    "container": Column("text", "container in that path: NAMESPACE/POD/CONTAINER in Kubernetes,"
                        " else its name; 12 digits of its id if the name is unknown", "container"),
    "pod": Column("text", "pod in that path: NAMESPACE/POD, or its UID if the name is unknown",
                  "pod"),
    "block_order": Column("int32", "each block is 2**block_order pages", "order"),
    "migratetype": Column("text", "Unmovable, Movable or Reclaimable", "migratetype"),
    "state": Column("text", "owned, early or untracked, as in a snapshot; rest: the row of small"
                    " owners", "state"),
    "pages": Column("int64", "base pages"),
    "blocks": Column("int64", "allocations"),
    **{age_column(age): Column("int64", f"pages at least {age} old; null: ages are unknown")
       for age in AGES},
}

OWNERS = {**_CAPTURE, **_OWNER}
"""A row for each owner of each capture, and one for what is too small, with ``stack_id`` 0: each
capture has exactly one such row."""

STACKS = {
    "stack_id": Column("int64", "hash of the functions and their modules: the same on every machine"
                       " and build"),
    "stack": Column("text", "functions with their modules, innermost first, one a line"),
    "module": Column("text", "module of the innermost frame, or vmlinux", "module"),
    "frame": Column("text", "the frame that best shows what the memory is for", "frame"),
    "allocator": Column("text", "pages, CMA, slab, vmalloc, percpu, or large kmalloc",
                        "allocator"),
}
"""A row for each stack that any owner has or had."""

PARTITIONS = {
    "day": Column("text", "of the capture, in UTC: 2026-11-26"),
    "hour": Column("text", "of the capture, in UTC: 00 to 23"),
}
"""What the names of folders tell (Hive partitions)."""

CAPTURES = (*_CAPTURE, *PARTITIONS)
"""The columns of the view ``captures``, one row a capture."""

KEYS = {column.key: name for table in (OWNERS, STACKS) for name, column in table.items()
        if column.key}
"""The words for ``--by`` and their columns."""


def age_ns(age: str) -> int:
    """One of `AGES` in ns."""
    return duration_ns(age)
