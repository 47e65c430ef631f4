"""The hooks of the tracker, each declared once: what it is attached to, which counter shows it at
work, what is not seen without it, and which untracked pages that explains.

A new hook is its program in one of the headers of tracker/bpf and a row here. Functions are tried
by name, newest first; where their arguments are comes from the running kernel's BTF, not from its
version. Sources: mm/page_alloc.c, mm/migrate.c, mm/huge_memory.c of 5.15 to 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pageowner.kernel.pageflags import KINDS
from pageowner.model.hook_states import NESTED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BY_NAME", "FEXIT_HOOKS", "FUNCTIONS", "HOOKS", "LOST", "TRACEPOINTS", "Hook"]


@dataclass(frozen=True)
class Hook:
    """A row of the table.

    - ``name``: of the kernel's tracepoint, or of what its functions do
    - ``programs``: of tracker/bpf, the one that is pinned by the name first
    - ``seen_by``: the counter (enum counter in records.h) that shows it at work; one that begins
      with ``ran_`` is there because it is named here (ran.h)
    - ``lost``: what is not seen without it, in words; empty where tracking needs it, or where
      another hook does the same
    - ``explains``: the kinds of untracked pages (`pageflags.KINDS`) that it would have seen, and
      ``single``: of these only those of order 0
    - ``functions``: the kernel function that it traces is the first of these that BTF knows; none:
      it is on the tracepoint
    - ``arguments``: the programs' parameters from the names of the function's
    - ``needs``: a parameter without whose value the programs can do nothing
    - ``instead_of``: a hook that does better: this one is for where that one is not to be had, and
      is told of only if it is attached then
    - ``newer``: older kernels have no such function and miss nothing, so it is not told of there
    - ``around``: a hook on a function that this one calls; ``programs_around`` take the place of
      the programs where that one is attached, and leave alone what it has seen; their counter is
      ``seen_around``
    - ``takes_stacks``: at a function's end, by this number (enum hook in records.h)
    """

    name: str
    programs: tuple[str, ...]
    seen_by: str
    lost: str = ""
    explains: tuple[str, ...] = ()
    single: bool = False
    functions: tuple[str, ...] = ()
    arguments: Callable[[list[str]], dict[str, int]] = lambda _: {}
    needs: str = ""
    instead_of: str = ""
    newer: bool = False
    around: str = ""
    programs_around: tuple[str, ...] = ()
    seen_around: str = ""
    takes_stacks: tuple[str, ...] = ()


_NOT_THERE = 255


def _bulk_arguments(names: list[str]) -> dict[str, int]:
    """The array is the last argument: after page_list before 6.14."""
    return {"bulk_array": len(names) - 1}


def _split_arguments(names: list[str]) -> dict[str, int]:
    """__folio_split(folio, new_order, split_at, lock_at, list, uniform_split or split_type) from
    6.14 on (6.14 and 6.15: page for split_at); before it split_huge_page_to_list(page, list) and
    from 6.9 split_huge_page_to_list_to_order(page, list, new_order).

    SPLIT_TYPE_UNIFORM is 0, while uniform_split is true for it.
    """
    def place(*candidates: str) -> int:
        return next((names.index(name) for name in candidates if name in names), _NOT_THERE)

    folio = "folio" in names
    return {
        "split_new_order": place("new_order"),
        "split_at": place("split_at", "page") if folio else _NOT_THERE,
        "split_uniform": place("uniform_split", "split_type"),
        "split_uniform_value": 0 if "split_type" in names else 1,
        "split_arguments": len(names),
    }


_MOVABLE = ("kernel", "hugetlb", "ksm", "thp", "anonymous", "shared memory", "file")
"""What can be moved; ``kernel`` since pages of zsmalloc and of balloons can, and have no flag. CMA
blocks hold such pages while they are lent, and the pages of drivers else."""

_REASONS = "migration reasons are not recorded"
_EXACT = "blocks of alloc_pages_exact() may stay one record until a part is freed"
_CMA = "pages of CMA and gigantic huge pages are untracked"

HOOKS = (
    # What tracking needs, with their second programs.
    Hook("mm_page_alloc", ("on_alloc",), "allocs"),
    Hook("mm_page_free", ("on_free",), "frees"),
    Hook("mm_page_alloc" + NESTED, ("on_nested_alloc",), "nested_allocs",
         "pages that interrupts allocate while the tracker runs are untracked", KINDS),
    Hook("mm_page_free" + NESTED, ("on_nested_free",), "nested_frees",
         "pages that interrupts free while the tracker runs stay owned"),
    # Functions.
    Hook("alloc_pages_bulk", ("on_bulk",), "bulk",
         "pages of vmalloc, page_pool and sunrpc are untracked",
         ("kernel", "file"), single=True,  # ``file``: btrfs fills its page cache so
         functions=("alloc_pages_bulk_noprof", "__alloc_pages_bulk"), arguments=_bulk_arguments,
         takes_stacks=("bulk",)),
    Hook("folio_migrate_flags", ("on_migrate",), "ran_migrate",
         "pages moved by compaction become untracked, or owned by the task that moved them",
         _MOVABLE, functions=("folio_migrate_flags", "migrate_page_states")),
    Hook("split_page", ("on_split_page",), "ran_split_page",
         "blocks that are split stay one record until a part of them is freed",
         functions=("split_page",)),
    Hook("split_folio", ("on_split_enter", "on_split_exit"), "ran_split_folio",
         "huge pages that are split stay one record until a part of them is freed",
         functions=("__folio_split", "split_huge_page_to_list_to_order",
                    "split_huge_page_to_list"),
         arguments=_split_arguments),
    # From 7.0 on (mm/page_alloc.c, mm/cma.c, mm/hugetlb.c of 7.3) CMA and gigantic pages call this
    # one, and alloc_contig_range() is a wrapper of it that they pass by.
    Hook("alloc_contig_frozen", ("on_contig",), "contig", _CMA, _MOVABLE,
         functions=("alloc_contig_frozen_range_noprof",), newer=True, takes_stacks=("contig",)),
    Hook("alloc_contig_range", ("on_contig",), "contig", _CMA, _MOVABLE,
         functions=("alloc_contig_range_noprof", "alloc_contig_range"),
         around="alloc_contig_frozen", programs_around=("on_contig_around",),
         seen_around="ran_contig_around", takes_stacks=("contig", "contig_around")),
    Hook("isolate_freepages_range", ("on_contig_isolated",), "ran_isolated",
         "pages of CMA may have a time some milliseconds late",
         functions=("isolate_freepages_range",)),
    Hook("undo_isolate_page_range", ("on_contig_taken",), "ran_isolated",
         functions=("undo_isolate_page_range",), instead_of="isolate_freepages_range"),
    Hook("make_alloc_exact", ("on_made_exact",), "ran_exact", _EXACT,
         functions=("make_alloc_exact",), needs="direct_map"),
    Hook("alloc_pages_exact", ("on_exact",), "ran_exact",
         functions=("alloc_pages_exact_noprof", "alloc_pages_exact"), needs="direct_map",
         instead_of="make_alloc_exact"),
    Hook("alloc_pages_exact_nid", ("on_exact_nid",), "ran_exact",
         functions=("alloc_pages_exact_nid_noprof", "alloc_pages_exact_nid"), needs="direct_map",
         instead_of="make_alloc_exact"),
    # Tracepoints.
    Hook("mm_page_alloc_extfrag", ("on_extfrag",), "extfrag", "no fragmentation events"),
    Hook("mm_migrate_pages_start", ("on_migrate_start",), "ran_migrate_start", _REASONS),
    Hook("mm_migrate_pages", ("on_migrate_end",), "ran_migrate_end", _REASONS),
)
"""All of them, in the order in which they are attached."""

BY_NAME = {hook.name: hook for hook in HOOKS}
"""The same by name."""

FUNCTIONS = tuple(hook for hook in HOOKS if hook.functions)
"""Those on functions of the kernel, which it may lack or refuse."""

TRACEPOINTS = tuple(hook for hook in HOOKS[4:] if not hook.functions)
"""Those on tracepoints that tracking can do without."""

FEXIT_HOOKS = tuple(dict.fromkeys(number for hook in HOOKS for number in hook.takes_stacks))
"""The numbers of hooks at a function's end that take stacks."""

LOST = {hook.name: hook.lost for hook in HOOKS if hook.lost}
"""What is not seen without an optional hook."""
