"""What kinds of source there are, by `pageowner.model.metadata.Metadata.kind`, and what each lists.

A dump, or a capture of this machine, has a row for each allocation. Other sources were summed up
before we saw them: a row stands for a group of allocations, and where their pages are is lost. What
needs page frames asks `check_pages`, and nobody else has to know the kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from pageowner.model.metadata import Metadata

__all__ = ["ALLOCINFO", "KINDS", "PARQUET", "SORTED", "STACKS", "STACK_COUNTS", "SourceKind",
           "check_pages", "has_pages", "kind_of"]

ALLOCINFO = "allocinfo"
"""/proc/allocinfo: bytes by line of the kernel's code."""

SORTED = "page_owner_sort"
"""The output of page_owner_sort, of the kernel's tools."""


PARQUET = b"PAR1"
"""How a saved snapshot begins: a Parquet file."""

STACKS = "page_owner_stacks"
"""A list of stacks and the pages that each holds, such as show_stacks."""

STACK_COUNTS = "page_owner_stack_counts"
"""The same with the number of allocations, as in early versions."""


class SourceKind(NamedTuple):
    """A kind of source.

    - ``title``: what it is, in a few words
    - ``has_pages``: whether each row is an allocation, with its pages; else a row is a group
    - ``instead``: of groups, what to give to a question about pages
    - ``block``: the word for an allocation; empty if it is not known how many a group has
    - ``in_pages``: whether it counts pages; else bytes, and its pages are of one byte
    """

    title: str
    has_pages: bool = True
    instead: str = ""
    block: str = "block"
    in_pages: bool = True


KINDS = {
    "page_owner": SourceKind("page_owner dump"),
    "tracker": SourceKind("live"),
    SORTED: SourceKind("page_owner_sort output", False, "the dump that was sorted"),
    STACKS: SourceKind("list of stacks", False, "a dump of page_owner", block=""),
    ALLOCINFO: SourceKind("bytes by line of code", False, "a dump of page_owner", "call", False),
    STACK_COUNTS: SourceKind("list of stacks", False, "a dump of page_owner"),
}


def kind_of(meta: Metadata) -> SourceKind:
    """The kind of a source; one that is not known here has rows for allocations."""
    return KINDS.get(meta.kind) or SourceKind(meta.kind)


def has_pages(meta: Metadata) -> bool:
    """Whether each row is an allocation, with its pages, rather than a group of them."""
    return kind_of(meta).has_pages


def check_pages(meta: Metadata) -> None:
    """Raises PageownerError for a source that has groups of allocations only."""
    kind = kind_of(meta)
    if not kind.has_pages:
        raise PageownerError(
            f"{meta.source or 'the source'} ({kind.title}) has groups of allocations with counts,"
            f" without page frame numbers; this question needs {kind.instead}")
