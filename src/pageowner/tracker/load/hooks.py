"""The hooks that a kernel may lack or refuse, each loaded and attached for itself.

Functions are tried by name, newest first; where their arguments are comes from the running
kernel's BTF, not from its version. Sources: mm/page_alloc.c, mm/migrate.c, mm/huge_memory.c of
5.15 to 7.3.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel.symbol_text import Lines
from pageowner.kernel.vmstat import pages_freed
from pageowner.model.hook_states import ATTACHED, WAITING
from pageowner.tracker.load.calibrate import leading_frames, tracing_ranges
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.load.provoke import take_bulk
from pageowner.tracker.read.maps import map_array, stack_type
from pageowner.tracker.read.records import NESTED
from pageowner.tracker.waiting import WAITING_PINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pageowner.tracker.load.calibrate import Calibration
    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.load.loading import Tracker

__all__ = ["FEXIT_HOOKS", "LOST", "attach_optional", "attach_required", "copies_of",
           "skip_of_fexit"]

_NOT_THERE = 255

FEXIT_HOOKS = ("bulk", "contig", "contig_around")
"""Hooks at a function's end that take stacks."""


@dataclass(frozen=True)
class _Hook:
    """A kernel function (the first of ``functions`` that BTF knows) and the programs on it;
    ``arguments`` gives their parameters from the names of its parameters; ``needs`` is a
    parameter without whose value they can do nothing; ``instead_of`` is a hook that does better:
    this one is for where that one is not to be had, and is told of only if it is attached then.

    ``newer``: older kernels have no such function and miss nothing, so it is not told of there.
    ``around`` is a hook on a function that this one calls, and ``programs_around`` take the place
    of the programs where that one is attached: they leave alone what it has seen."""

    name: str
    programs: tuple[str, ...]
    functions: tuple[str, ...]
    arguments: Callable[[list[str]], dict[str, int]] = lambda _: {}
    needs: str = ""
    instead_of: str = ""
    newer: bool = False
    around: str = ""
    programs_around: tuple[str, ...] = ()


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


_FUNCTIONS = (
    _Hook("alloc_pages_bulk", ("on_bulk",),
          ("alloc_pages_bulk_noprof", "__alloc_pages_bulk"), _bulk_arguments),
    _Hook("folio_migrate_flags", ("on_migrate",), ("folio_migrate_flags", "migrate_page_states")),
    _Hook("split_page", ("on_split_page",), ("split_page",)),
    _Hook("split_folio", ("on_split_enter", "on_split_exit"),
          ("__folio_split", "split_huge_page_to_list_to_order", "split_huge_page_to_list"),
          _split_arguments),
    # From 7.0 on (mm/page_alloc.c, mm/cma.c, mm/hugetlb.c of 7.3) CMA and gigantic pages call this
    # one, and alloc_contig_range() is a wrapper of it that they pass by.
    _Hook("alloc_contig_frozen", ("on_contig",), ("alloc_contig_frozen_range_noprof",),
          newer=True),
    _Hook("alloc_contig_range", ("on_contig",),
          ("alloc_contig_range_noprof", "alloc_contig_range"),
          around="alloc_contig_frozen", programs_around=("on_contig_around",)),
    _Hook("isolate_freepages_range", ("on_contig_isolated",), ("isolate_freepages_range",)),
    _Hook("undo_isolate_page_range", ("on_contig_taken",), ("undo_isolate_page_range",),
          instead_of="isolate_freepages_range"),
    _Hook("make_alloc_exact", ("on_made_exact",), ("make_alloc_exact",), needs="direct_map"),
    _Hook("alloc_pages_exact", ("on_exact",),
          ("alloc_pages_exact_noprof", "alloc_pages_exact"), needs="direct_map",
          instead_of="make_alloc_exact"),
    _Hook("alloc_pages_exact_nid", ("on_exact_nid",),
          ("alloc_pages_exact_nid_noprof", "alloc_pages_exact_nid"), needs="direct_map",
          instead_of="make_alloc_exact"),
)

LOST = {
    "alloc_pages_bulk": "pages of vmalloc, page_pool and sunrpc are untracked",
    "folio_migrate_flags":
        "pages moved by compaction become untracked, or owned by the task that moved them",
    "split_page": "blocks that are split stay one record until a part of them is freed",
    "split_folio": "huge pages that are split stay one record until a part of them is freed",
    "alloc_contig_frozen": "pages of CMA and gigantic huge pages are untracked",
    "alloc_contig_range": "pages of CMA and gigantic huge pages are untracked",
    "isolate_freepages_range": "pages of CMA may have a time some milliseconds late",
    "make_alloc_exact": "blocks of alloc_pages_exact() may stay one record until a part is freed",
    "mm_page_alloc_extfrag": "no fragmentation events",
    "mm_migrate_pages_start": "migration reasons are not recorded",
    "mm_migrate_pages": "migration reasons are not recorded",
    "mm_page_alloc_nested": "pages that interrupts allocate while the tracker runs are untracked",
    "mm_page_free_nested": "pages that interrupts free while the tracker runs stay owned",
}
"""What is not seen without an optional hook."""

_TRACEPOINTS = (
    ("mm_page_alloc_extfrag", "on_extfrag"),
    ("mm_migrate_pages_start", "on_migrate_start"),
    ("mm_migrate_pages", "on_migrate_end"),
)


_NOT_FOUND = {"direct_map": "the start of the kernel's direct map was not found"}

_COPIES = ("constprop", "isra", "part")

_NOT_BEGUN = 255
"""Among the frames to skip: this hook waits (records.h)."""


def attach_required(tracker: Tracker, directory: str | None, found: Calibration,
                    wait: bool = False) -> dict[str, str]:
    """Attach the hooks on allocations and frees, and their second programs, which take the events
    of interrupts that come while the first is at work; pin the links. With ``wait`` the second ones
    are only loaded, for when they are needed (`waiting`).

    They begin all at once when all are attached, so that nothing is missed in between.
    """
    assert tracker.main is not None
    kinds = ("free", "alloc")
    tracker.skip_frames({name: _NOT_BEGUN for kind in kinds for name in (kind, f"nested_{kind}")})
    hooks, skip = {}, {}
    for kind in kinds:
        link = tracker.main.attach(f"on_{kind}")
        if directory is not None:
            tracker.bpf.pin(link.fd, f"{directory}/link_mm_page_{kind}")
        hooks[f"mm_page_{kind}"] = ATTACHED
        nested = f"mm_page_{kind}{NESTED}"
        if wait:
            hooks[nested] = _let_wait(tracker, nested, directory)
        else:
            hooks[nested] = _attach(tracker, nested, f"on_nested_{kind}", directory)
        # Without the bounds of what calls several programs, its frame is skipped where it is.
        shared = hooks[nested] == ATTACHED and not found.iterators
        skip[kind] = found.skip_shared if shared else found.skip
        skip[f"nested_{kind}"] = found.skip if found.iterators else found.skip_shared
    freed = pages_freed()
    tracker.skip_frames(skip)
    tracker.freed_before = freed, pages_freed()
    return hooks


def _let_wait(tracker: Tracker, hook: str, directory: str | None) -> str:
    program = WAITING_PINS[hook]
    try:
        fd = tracker.waiting[hook] = tracker.prepare(program)
        if directory is not None:
            tracker.bpf.pin(fd, f"{directory}/{program}")
    except BpfError as error:
        return f"refused: {error.strerror}"
    return WAITING


def attach_optional(tracker: Tracker, directory: str | None, symbols: Lines) -> dict[str, str]:
    """Attach what this kernel allows and pin the links; name to ``attached`` or why not.

    Without a directory nothing is pinned: the hooks end with ``tracker``.
    """
    hooks: dict[str, str] = {}
    copies = copies_of({function for hook in _FUNCTIONS for function in hook.functions}, symbols)
    for hook in _FUNCTIONS:
        function = _known(tracker.bpf, hook.functions)
        if hooks.get(hook.instead_of) == ATTACHED or (hook.newer and not function):
            continue
        if hooks.get(hook.around) == ATTACHED:
            hook = replace(hook, programs=hook.programs_around)
        said = _attach_function(tracker, hook, directory)
        if said == ATTACHED and function in copies:
            said = f"partly: BPF cannot trace {' and '.join(copies[function])}, made of {function}"
        if said == ATTACHED or not hook.instead_of:
            hooks[hook.name] = said
    for name, program in _TRACEPOINTS:
        if program.startswith("on_migrate_") and hooks["folio_migrate_flags"] != ATTACHED:
            continue  # it would say why of a migration that no hook sees
        hooks[name] = _attach(tracker, name, program, directory, None,
                              {"hold": int(tracker.may_hold)})
    return hooks


def copies_of(functions: Iterable[str], symbols: Lines) -> dict[str, list[str]]:
    """Of these functions those that the compiler has made copies of for some of their callers
    (``.constprop``, ``.isra``, ``.part``), which BPF cannot trace and a hook does not see; not
    ``.cold``, which is jumped to from inside."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in symbols.starting(*(f"{function}." for function in functions)):
        function, *rest = line.name.split(".")
        if line.kind in "tT" and rest[0] in _COPIES and len(rest) > 1:
            found[function].append(line.name)
    return dict(found)


def _known(bpf: Libbpf, functions: Iterable[str]) -> str:
    """The first of these functions that the running kernel's BTF has, or nothing."""
    return next((name for name in functions if bpf.function_parameters(name) is not None), "")


def _attach_function(tracker: Tracker, hook: _Hook, directory: str | None) -> str:
    if hook.needs and not tracker.values.get(hook.needs):
        return f"missing: {_NOT_FOUND[hook.needs]}"
    function = _known(tracker.bpf, hook.functions)
    if not function:
        return f"missing: this kernel has no {' or '.join(hook.functions)} to trace"
    try:
        tracker.bpf.try_tracing(function)
    except BpfError as error:
        # What else may be wrong shows where the program itself is loaded.
        if error.errno in (errno.EPERM, errno.EACCES):
            return _refused(function)
    values = {**hook.arguments(tracker.bpf.function_parameters(function) or []),
              "hold": int(tracker.may_hold)}
    # What looks at the end of a function is there before what notes its beginning.
    for program in reversed(hook.programs):
        pin = hook.name if program == hook.programs[0] else f"{hook.name}_end"
        said = _attach(tracker, pin, program, directory, function, values)
        if said != ATTACHED:
            end = f"{directory}/link_{hook.name}_end"
            if os.path.exists(end):
                os.unlink(end)
            return said
    return ATTACHED


def _attach(tracker: Tracker, name: str, program: str, directory: str | None,
            function: str | None = None, values: dict[str, int] | None = None) -> str:
    try:
        link = tracker.attach(program, function, values)
        if directory is not None:
            tracker.bpf.pin(link.fd, f"{directory}/link_{name}")
    except BpfError as error:
        if error.errno in (errno.EPERM, errno.EACCES) and function is not None:
            return _refused(function)
        return f"refused: {error.strerror}"
    return ATTACHED


def _refused(function: str) -> str:
    return f"refused: the kernel does not let BPF trace {function}"


def skip_of_fexit(tracker: Tracker) -> int | None:
    """How many frames of tracing a stack taken at a function's end begins with: seen on a bulk
    allocation of our own, None if none came by."""
    bpf = tracker.bpf
    assert tracker.main is not None
    before = _stacks(tracker)
    with tracker.store() as store:
        take_bulk(store)
    table = _stacks(tracker)
    program = bpf.program_by_id(bpf.link_info(tracker.links["on_bulk"].fd).program_id)
    info = bpf.program_info(program)
    os.close(program)
    ranges = tracing_ranges(Lines.read())
    new = np.flatnonzero((before["n"] == 0) & (table["n"] > 0))
    found = []
    for stack in table[new]:
        frames = [int(frame) for frame in stack["frames"][: stack["n"]]]
        if any(start <= frames[0] < start + (1 << 14) for start in info.symbols):
            found.append(leading_frames(frames, ranges))
    return min(found, default=None)


def _stacks(tracker: Tracker) -> np.ndarray:
    assert tracker.main is not None
    return map_array(tracker.main.map_fd("stacks"), stack_type(tracker.depth),
                     tracker.sizes.stacks).copy()
