"""On, off, status: load, attach, pin, unpin. There is no daemon; the pins keep tracking alive.

`on` builds everything in ``/sys/fs/bpf/pageowner-new`` and renames the directory to
``/sys/fs/bpf/pageowner`` as its last step; `off` first renames it to ``pageowner-old``. So the
name is there exactly while tracking is whole, and whatever a killed process leaves behind has one
of the other two names, which the next `on` or `off` removes. Both hold a lock meanwhile, which
leaves no file. `pins` has these steps, and what is done where other users may write to bpffs.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import platform
import time
from array import array
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import gfp, zones
from pageowner.kernel.memory_ranges import ram_ranges
from pageowner.model.hook_states import is_attached
from pageowner.model.hook_table import FEXIT_HOOKS
from pageowner.model.tracking import ALWAYS, Options, Status
from pageowner.tracker import waiting
from pageowner.tracker.filters import began, cgroup, has_ended, process
from pageowner.tracker.load import compiled, memo, pins, requirements
from pageowner.tracker.load.hooks import attach_optional, attach_required, skip_of_fexit
from pageowner.tracker.load.libbpf import BpfError, Libbpf
from pageowner.tracker.load.loading import (
    Sizes,
    Tracker,
    add_memory,
    find_vmemmap,
    hold_refused,
    sizes_for,
)
from pageowner.tracker.load.object_hooks import attach_objects
from pageowner.tracker.load.provoke import provoke
from pageowner.tracker.read import early
from pageowner.tracker.read.maps import (
    CONFIG_BYTES,
    EARLY_WORD,
    OBJECT_MAPS,
    PIN_DIRECTORY,
    SPARES_MAP,
    SPARES_PIN,
    Store,
    open_store,
)
from pageowner.tracker.read.missed import missed_of_objects
from pageowner.tracker.read.objects import objects
from pageowner.tracker.read.pinned import ENDED
from pageowner.tracker.read.reading import pages_by_state
from pageowner.tracker.read.seen import objects_seen
from pageowner.tracker.read.survey import not_given

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.kernel.symbol_text import Lines
    from pageowner.tracker.load.calibrate import Calibration

__all__ = ["Options", "Status", "attend", "cover", "is_on", "off", "on", "status", "tracking"]

_PINNED_MAPS = ("config", "spans", "freed_spans", "tasks", "stacks", "counters", "extfrag",
                "questions", *memo.MAPS)
_RUN_PROGRAMS = ("look", "pageblocks", "settle", "hold_spares")
_USER_GFP = 1 << 3 | 1 << 20


def is_on(directory: str = PIN_DIRECTORY) -> bool:
    """Whether tracking is on, as far as this process may see."""
    try:
        return pins.is_ours(os.lstat(directory))
    except OSError:
        return False


def on(options: Options | None = None, debug: bool = False) -> Status:
    """Start tracking, and return its status.

    If tracking is on already, the status says so (``already_on``); if it is on with other
    ``options``, that is an error which names the differences. ``debug``: put the verifier's log
    into the error.

    Raises PageownerError if the kernel or the machine does not allow tracking, UsageError for
    invalid options.
    """
    options = options or Options()
    options.check()
    bpf = requirements.require(debug)
    with _locked() as root:
        pins.clean(root)
        if not (was_on := is_on()):
            try:
                _start(bpf, options, root)
            except BpfError as error:
                raise _refusal(error, debug) from error
            finally:
                pins.clean(root)
    # Without the lock: who asks how tracking stands may have to attach, and take it (`attend`).
    return _already(options) if was_on else status()


def off() -> bool:
    """Stop tracking and remove everything. Returns whether tracking was on, completely or in part.

    Raises PageownerError if this process lacks the rights.
    """
    requirements.require_root()
    if not requirements.is_mounted():
        return False
    with _locked() as root:
        left = pins.clean(root)
        was_on = pins.put_away(root)
        pins.clean(root)
        return was_on or left


def status() -> Status:
    """How tracking stands. Raises PageownerError if this process may not ask."""
    if not is_on():
        if os.geteuid() != 0:
            requirements.require_root()
        return Status(on=False, left=_left())
    attend()
    with open_store() as store:
        facts = store.facts
        memo_counters = memo.read_counters(store.bpf, store.fd("memo_states"), store.fd("counters"))
        found = Status(
            on=True,
            options=Options(**facts["options"]),
            process_ended=has_ended(facts["options"]["tgid"], facts.get("process_began")),
            since_wall=facts["since_wall"],
            since_ns=facts["since_ns"],
            hooks=store.hook_states(),
            attached=store.hooks(),
            missed=store.missed(),
            missed_frees=store.missed_frees(),
            unseen_frees=store.unseen_frees()[0],
            pages=pages_by_state(store.spans),
            counters=store.counters(),
            memo="stopped" if memo_counters["differences"] else facts["memo"],
            memo_counters=memo_counters,
            memory_bytes=store.memory(),
            frames=sum(end - start for start, end in facts["ranges"]),
            objects=_objects_now(store),
            facts=facts,
        )
        store.check_on()
        return found


def _objects_now(store: Store) -> dict[str, Any]:
    """`Status.objects`."""
    if not store.facts.get("object_hooks"):
        return {}
    states = objects_seen(store.facts["object_hooks"], store.counters())
    live = objects(store)
    return {"share": live.share, "followed": len(live.address),
            "bytes": int(live.rows["bytes"].sum(dtype=np.uint64)),
            "slots": live.slots, "hooks": states,
            "objects_missed": missed_of_objects(store)}


def attend() -> bool:
    """Attach the second programs that wait and are needed (`waiting`); whether that was done. One
    that the kernel refuses goes on waiting, and what it would see is counted as missed. Raises
    PageownerError if tracking is off."""
    with open_store() as store:
        if not waiting.wanted(store):
            return False
    with _locked(), open_store() as store:
        attached = waiting.attach(store, waiting.wanted(store))
        if attached:
            store.facts["hooks"].update(attached)
            _write_facts(store.bpf, store.fd("config"), store.facts)
    return bool(attached)


def cover() -> int:
    """Cover memory that was added since `on`; how many spans were made.

    Until then the programs keep what they see of such memory in spare spans, as far as these
    reach. What was allocated there unseen is untracked, not early. Raises PageownerError if
    tracking is off.
    """
    attend()
    with open_store() as store:
        if not (store.spares_in_use() or _added(store.facts["ranges"], ram_ranges())):
            return 0
    with _locked(), open_store() as store:
        ranges = ram_ranges()
        # Another process may have done so while this one waited.
        if not (store.spares_in_use() or _added(store.facts["ranges"], ranges)):
            return 0
        numbers = store.span_numbers()
        made, moved = add_memory(store, ranges)
        store.facts.update(ranges=ranges, other_spans=[])
        store.facts["other_spans"] = sorted((numbers | moved) - store.span_numbers())
        _write_facts(store.bpf, store.fd("config"), store.facts)
        store.free_spares()
        return made


@contextmanager
def open_covered() -> Iterator[Store]:
    """The running tracker's store, after `attend` and `cover`: opened once where these have nothing
    to do. Memory that the kernel has no room to cover stays out of range, which is counted. Raises
    PageownerError if tracking is off."""
    with open_store() as store:
        if not _wants_care(store):
            yield store
            return
    with suppress(BpfError):
        cover()
    with open_store() as store:
        yield store


def _wants_care(store: Store) -> bool:
    with suppress(BpfError):
        return bool(waiting.wanted(store) or store.spares_in_use()
                    or _added(store.facts["ranges"], ram_ranges()))
    return False


def _added(covered: Sequence[Sequence[int]], ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether any of these page frames lies in none of the covered ranges."""
    return any(not any(start <= first and end <= after for start, after in covered)
               for first, end in ranges)


def _already(options: Options) -> Status:
    now = status()
    if not now.on:
        raise PageownerError(ENDED)
    if now.options != options:
        theirs, ours = (" ".join(["with", *chosen.words()]) if chosen.words() else "without options"
                        for chosen in (now.options, options))
        raise PageownerError(f"tracking is already on {theirs}, not {ours}; to change that:"
                             " pageowner off, then on")
    return Status(**{**vars(now), "already_on": True})


def _start(bpf: Libbpf, options: Options, root: int) -> None:
    name, folder = pins.make(root)
    try:
        # by its descriptor: whoever gets at the name cannot make us pin elsewhere
        with _built(bpf, options, f"/proc/self/fd/{folder}"):
            pins.place(root, name)
    finally:
        os.close(folder)


def _left() -> bool:
    if not requirements.is_mounted():
        return False
    root = pins.open_root()
    try:
        return bool(pins.left(root))
    finally:
        os.close(root)


@contextmanager
def tracking(options: Options | None = None, timed: bool = False) -> Iterator[Store]:
    """A tracker of this process alone: nothing is pinned, and it ends with the ``with`` block.

    It stands beside one that is on, and neither knows of the other. ``timed``: it keeps how long
    its events take (`timings.read`). Raises as `on` does.
    """
    options = options or Options()
    options.check()
    bpf = requirements.require()
    try:
        with _built(bpf, options, None, timed) as store:
            yield store
    except BpfError as error:
        raise _refusal(error, False) from error


@contextmanager
def _built(bpf: Libbpf, options: Options, directory: str | None,
           timed: bool = False) -> Iterator[Store]:
    """Load, cover, attach and settle; pinned in a directory as it grows, if there is one."""
    ranges = ram_ranges()
    sizes = sizes_for(ranges, options.tasks, options.stacks, options.objects)
    page_struct = bpf.type_size("page")
    found = find_vmemmap(bpf, page_struct)
    cannot_hold = hold_refused(bpf)
    values = {**_of_machine(found), **_filters(options), **_objects(options),
              "hold": int(found.preemptible and not cannot_hold), "timed": int(timed)}
    recalling = _plan_memo(bpf, options, found.symbols)
    make = partial(Tracker, bpf, sizes, options.depth, values, options.free_side,
                   may_hold=not cannot_hold)
    with ExitStack() as loaded:
        try:
            tracker = loaded.enter_context(make(memo=recalling))
            main = tracker.load("on_alloc", "on_free", *_RUN_PROGRAMS)
        except BpfError as error:
            if recalling.why_not or bpf.debug:
                raise
            # A verifier that does not follow the memo must not cost the tracking.
            loaded.close()
            recalling = memo.Plan(f"the kernel refuses it: {error.strerror}")
            tracker = loaded.enter_context(make(memo=recalling))
            main = tracker.load("on_alloc", "on_free", *_RUN_PROGRAMS)
        tracker.cover(ranges, EARLY_WORD)
        tracker.skip_frames({"extfrag": found.skip})
        fds = {name: main.map_fd(name) for name in _PINNED_MAPS}
        fds |= {name: main.map_fd(name) for name in OBJECT_MAPS if options.objects}
        fds[SPARES_PIN] = main.map_fd(SPARES_MAP)
        fds |= {name: main.program_fd(name)
                for name in (*_RUN_PROGRAMS, *waiting.FIRST_PINS.values())}
        facts = _facts(options, found, sizes, ranges, page_struct)
        if timed:
            fds["timings"] = main.map_fd("timings")
            facts["timed"] = True
        facts["memo"] = recalling.why_not or "on"
        facts["preemption"] = ("held off by the kernel" if not found.preemptible else
                               cannot_hold or "held off by the programs")
        for name, fd in fds.items() if directory else ():
            bpf.pin(fd, f"{directory}/{name}")
        facts["hooks"].update(attach_required(
            tracker, directory, found, waiting.may_wait(found, options.second_programs)))
        facts["freed_before"] = tracker.freed_before
        facts["hooks"].update(attach_optional(tracker, directory, found.symbols))
        if options.objects:
            facts |= attach_objects(
                tracker, directory, found,
                twice=options.objects == 1 or options.second_programs == ALWAYS)
        # What the first hooks saw while the last were attached is there too, but not all of it.
        facts |= {"since_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
                  "since_wall": time.time()}
        if is_attached(facts["hooks"]["alloc_pages_bulk"]):
            skip = skip_of_fexit(tracker)
            if skip is not None:
                tracker.skip_frames(dict.fromkeys(FEXIT_HOOKS, skip))
                facts["skip_fexit"] = skip
        owned = {name: os.dup(fd) for name, fd in fds.items()}
        with Store(bpf, directory or "", owned, facts) as store:
            facts["early_pages"] = early.settle(store, ranges, not_given(store, zones.running()))
            # Before, a free page has the mark of an early one, and would keep it if it is taken.
            facts["hooks"] = provoke(store, facts["hooks"])
            _write_facts(bpf, main.map_fd("config"), facts)
            yield store


def _plan_memo(bpf: Libbpf, options: Options, symbols: Lines) -> memo.Plan:
    if not options.memo:
        return memo.Plan("off")
    small = Sizes(span_shift=0, spans=1, tasks=1, stacks=1)
    for reading in memo.READING:
        with Tracker(bpf, small, 1, {"reading": reading}) as tracker:
            try:
                return memo.plan(bpf, tracker.load("measure_stack"), reading, options.depth,
                                 options.memo_check, symbols)
            except BpfError as error:
                why = error.strerror
    return memo.Plan(f"the kernel refuses to measure its stacks: {why}")


def _of_machine(found: Calibration) -> dict[str, int]:
    """What the programs have to know of this kernel."""
    contiguous = gfp.contiguous(platform.release(), gfp.running())
    return {"vmemmap": found.vmemmap, "direct_map": found.direct_map,
            "page_shift": mmap.PAGESIZE.bit_length() - 1, "max_order": zones.max_order(),
            "iterators": int.from_bytes(array("Q", found.iterators).tobytes(), "little"),
            "comp_gfp": contiguous.compound, "contig_gfp": contiguous.mask}


def _filters(options: Options) -> dict[str, int]:
    values = {
        "user_gfp": _USER_GFP if options.kernel_only else 0,
        "min_order": options.min_order,
        "only_tgid": process(options.tgid),
        "sample": options.sample,
    }
    if options.cgroup:
        values["only_cgroup"], values["cgroup_level"] = cgroup(options.cgroup)
    left_out = values["user_gfp"] or values["min_order"] or values["only_tgid"]
    values["filters"] = int(bool(left_out or options.sample > 1 or options.cgroup))
    return values


def _objects(options: Options) -> dict[str, int]:
    """Which objects are followed: those whose hash is in the first of so many parts."""
    if not options.objects:
        return {}
    return {"object_share": (1 << 64) // options.objects - 1, "kmalloc_max": 2 * mmap.PAGESIZE,
            "object_seed": int.from_bytes(os.urandom(8), "little")}


def _facts(options: Options, found: Calibration, sizes: Sizes, ranges: list[tuple[int, int]],
           page_struct: int) -> dict[str, Any]:
    return {
        "options": asdict(options),
        "process_began": began(options.tgid) if options.tgid else None,
        "object": compiled.identity(),
        "hooks": {},
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "kernel": platform.release(),
        "vmemmap": found.vmemmap,
        "calibration_events": found.events,
        "direct_map": found.direct_map,
        "skip": found.skip,
        "page_struct_size": page_struct,
        "span_shift": sizes.span_shift,
        "depth": options.depth,
        "tasks": sizes.tasks,
        "stacks": sizes.stacks,
        "spans": sizes.spans,
        "spares": sizes.spares,
        "ranges": ranges,
    }


def _write_facts(bpf: Libbpf, fd: int, facts: dict[str, Any]) -> None:
    text = json.dumps(facts).encode()
    if len(text) > CONFIG_BYTES:  # without these, what was not seen may pass for early objects
        facts.pop("objects_before", None)
        text = json.dumps(facts).encode()
    while len(text) > CONFIG_BYTES and len(facts["ranges"]) > 1:
        facts = {**facts, "ranges": _fewer(facts["ranges"])}
        text = json.dumps(facts).encode()
    if len(text) > CONFIG_BYTES:
        raise PageownerError("memory was added and removed in too many places to keep track of;"
                             " restart tracking: pageowner off, then on")
    bpf.update(fd, bytes(4), text.ljust(CONFIG_BYTES, b"\0"))


def _fewer(ranges: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same frames in fewer ranges: over the smaller half of the gaps between them, so that none
    of the large ones is taken for memory."""
    gaps = [after[0] - before[1] for before, after in pairwise(ranges)]
    small = sorted(gaps)[(len(gaps) - 1) // 2]
    found = [list(ranges[0])]
    for gap, (start, end) in zip(gaps, ranges[1:], strict=True):
        if gap <= small:
            found[-1][1] = end
        else:
            found.append([start, end])
    return found


@contextmanager
def _locked() -> Iterator[int]:
    """The root of bpffs, where others can harm no pins of ours, while no other `on` or `off` is at
    work."""
    root = pins.open_root()
    try:
        pins.check_root(root)
        with pins.lock(root):
            yield root
    finally:
        os.close(root)


def _refusal(error: BpfError, debug: bool) -> PageownerError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return PageownerError(
            requirements.lockdown()
            or "the kernel does not let this process load BPF programs; it needs CAP_BPF and"
               f" CAP_PERFMON in the initial user namespace, which containers rarely have ({error})"
        )
    if error.errno == errno.ENOMEM:
        return PageownerError(f"not enough memory for the tracker's maps: {error}")
    text = f"the kernel refuses the tracker: {error}"
    if debug and error.log:
        text += "\n" + "\n".join(error.log)
    return PageownerError(text + ("" if debug else "; --debug shows the verifier's log"))
