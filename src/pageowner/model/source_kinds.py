"""What kinds of source there are, by `pageowner.model.metadata.Metadata.kind`, and what each lists.

A dump, or a capture of this machine, has a row for each allocation. Other sources were summed up
before we saw them: a row stands for a group of allocations, and where their pages are is lost. What
needs page frames asks `check_pages`, and nobody else has to know the kinds: a new source is a line
of `KINDS` and the module of `pageowner.sources` that it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from pageowner.model.metadata import Metadata

__all__ = ["KINDS", "OBJECTS", "PARQUET", "READERS", "TRACKER_SUMS", "USERS", "SourceKind",
           "check_measure", "check_pages", "has_pages", "is_counted", "kind_named", "kind_of",
           "unit_of"]

OBJECTS = "objects"
"""Objects of slabs and of the percpu allocator, of ``on --objects``."""

TRACKER_SUMS = "tracker_sums"
"""This machine's tracked pages by stack and task, summed while memory was short."""

USERS = "users"
"""Pages in use by what has them now, on a machine that is not tracked."""

PARQUET = b"PAR1"
"""How a saved snapshot begins: a Parquet file."""


class SourceKind(NamedTuple):
    """A kind of source.

    - ``title``: what it is, in a few words
    - ``has_pages``: whether each row is an allocation, with its pages; else a row is a group
    - ``has``: what its rows are, if no allocations of pages
    - ``instead``: of groups, what to give to a question about pages
    - ``block``: the word for an allocation; empty if it is not known how many a group has
    - ``live``: it is captured from a running machine
    - ``in_pages``: whether it counts pages; else bytes, and its pages are of one byte
    - ``reader``: the module of `pageowner.sources` that has ``recognises(head)``, whether a text
      that begins so is one, and ``read(opened)``, its snapshot; empty for the kernel's own dump
      and for what is no text
    - ``note``: what is to be known of all its amounts
    - ``named``: what the help calls it; empty if another kind's name is for both
    """

    title: str
    has_pages: bool = True
    instead: str = ""
    block: str = "block"
    in_pages: bool = True
    reader: str = ""
    named: str = ""
    live: bool = False
    note: str = ""
    has: str = "groups of allocations with counts, without page frame numbers"


KINDS = {
    "page_owner": SourceKind("page_owner dump"),
    "tracker": SourceKind("live", live=True),
    USERS: SourceKind("what uses each page now, not tracked", live=True),
    "page_owner_sort": SourceKind(
        "page_owner_sort output", False, "the dump that was sorted",
        reader="page_owner_sorted", named="page_owner_sort output"),
    "page_owner_stacks": SourceKind(
        "list of stacks", False, "a dump of page_owner", "",
        reader="page_owner_stack_lists", named="a file of page_owner_stacks"),
    "page_owner_stack_counts": SourceKind(  # as in early versions
        "list of stacks", False, "a dump of page_owner", reader="page_owner_stack_lists"),
    "allocinfo": SourceKind(
        "bytes by line of code", False, "a dump of page_owner", "call", False,
        reader="allocinfo", named="/proc/allocinfo",
        note="Objects of slabs count twice: at the line that allocated them, and in the slabs'"
             " pages (mm/slub.c)."),
    OBJECTS: SourceKind("live objects", False, "a capture of pages", "object", False, live=True,
                        has="objects of slabs rather than pages"),
    TRACKER_SUMS: SourceKind("live, by stack and task", False, "a capture of 'pageowner record'",
                             live=True),
}
"""Every kind; texts are tried in this order."""

READERS = tuple(dict.fromkeys(kind.reader for kind in KINDS.values() if kind.reader))
"""The modules that read texts of groups, in the order in which they are tried."""


def kind_named(name: str) -> SourceKind:
    """The kind of this name; one that is not known here has rows for allocations."""
    return KINDS.get(name) or SourceKind(name)


def kind_of(meta: Metadata) -> SourceKind:
    """The kind of a source."""
    return kind_named(meta.kind)


def unit_of(meta: Metadata) -> str:
    """What a source counts; amounts of one can be compared with those of another."""
    if kind_of(meta).in_pages:
        return "pages by owner"
    return "objects by owner" if meta.kind == OBJECTS else "bytes by line of code"


def has_pages(meta: Metadata) -> bool:
    """Whether each row is an allocation, with its pages, rather than a group of them."""
    return kind_of(meta).has_pages


def is_counted(meta: Metadata, measure: str) -> bool:
    """Whether a source counts ``bytes``, ``pages`` or ``blocks``."""
    kind = kind_of(meta)
    return {"blocks": bool(kind.block), "pages": kind.in_pages}.get(measure, True)


def check_measure(meta: Metadata, measure: str) -> None:
    """Raises PageownerError if a source does not count it."""
    if not is_counted(meta, measure):
        raise PageownerError(f"{meta.source or 'the source'} ({kind_of(meta).title}) does not count"
                             f" {measure}")


def check_pages(meta: Metadata) -> None:
    """Raises PageownerError for a source whose rows are no allocations of pages."""
    kind = kind_of(meta)
    if not kind.has_pages:
        raise PageownerError(
            f"{meta.source or 'the source'} ({kind.title}) has {kind.has}; this question needs"
            f" {kind.instead}")
