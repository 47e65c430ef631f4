"""Attach the hooks of `pageowner.model.hook_table`; those that a kernel may lack or refuse are
loaded and attached each for itself."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel.symbol_text import Lines
from pageowner.kernel.vmstat import pages_freed
from pageowner.model.hook_states import ATTACHED, NESTED, WAITING, is_attached
from pageowner.model.hook_table import FUNCTIONS, TRACEPOINTS
from pageowner.tracker.load.calibrate import leading_frames, tracing_ranges
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.load.provoke import take_bulk
from pageowner.tracker.read.layout import NOT_BEGUN
from pageowner.tracker.read.maps import map_array, stack_type
from pageowner.tracker.waiting import WAITING_PINS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.model.hook_table import Hook
    from pageowner.tracker.load.calibrate import Calibration
    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.load.loading import Tracker

__all__ = ["attach_optional", "attach_required", "copies_of", "skip_of_fexit"]

_NOT_FOUND = {"direct_map": "the start of the kernel's direct map was not found"}

_COPIES = ("constprop", "isra", "part")

def attach_required(tracker: Tracker, directory: str | None, found: Calibration,
                    wait: bool = False) -> dict[str, str]:
    """Attach the hooks on allocations and frees, and their second programs, which take the events
    of interrupts that come while the first is at work; pin the links. With ``wait`` the second ones
    are only loaded, for when they are needed (`waiting`).

    They begin all at once when all are attached, so that nothing is missed in between.
    """
    assert tracker.main is not None
    kinds = ("free", "alloc")
    tracker.skip_frames({name: NOT_BEGUN for kind in kinds for name in (kind, f"nested_{kind}")})
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
    copies = copies_of({function for hook in FUNCTIONS for function in hook.functions}, symbols)
    for hook in FUNCTIONS:
        function = _known(tracker.bpf, hook.functions)
        if hooks.get(hook.instead_of) == ATTACHED or (hook.newer and not function):
            continue
        if is_attached(hooks.get(hook.around)):
            hook = replace(hook, programs=hook.programs_around)
        said = _attach_function(tracker, hook, directory)
        if said == ATTACHED and function in copies:
            said = f"partly: BPF cannot trace {' and '.join(copies[function])}, made of {function}"
        if is_attached(said) or not hook.instead_of:
            hooks[hook.name] = said
    for hook in TRACEPOINTS:
        program, = hook.programs
        if program.startswith("on_migrate_") and not is_attached(hooks["folio_migrate_flags"]):
            continue  # it would say why of a migration that no hook sees
        hooks[hook.name] = _attach(tracker, hook.name, program, directory, None,
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


def _attach_function(tracker: Tracker, hook: Hook, directory: str | None) -> str:
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
