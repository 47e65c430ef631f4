"""What this machine's kernel allows, each thing really tried, and nothing left behind."""

from __future__ import annotations

import os
import platform
from functools import partial
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel import kallsyms, symbol_text
from pageowner.kernel.memory_ranges import ram_ranges
from pageowner.kernel.tracefs import TRACEFS
from pageowner.model.hook_states import in_words, is_whole
from pageowner.model.hook_table import LOST
from pageowner.model.tracking import Finding
from pageowner.tracker.load import requirements
from pageowner.tracker.load.calibrate import Calibration, tracing_ranges
from pageowner.tracker.load.hooks import attach_optional, attach_required
from pageowner.tracker.load.libbpf import BpfError, LibbpfMissing, libbpf
from pageowner.tracker.load.loading import Sizes, Tracker, find_vmemmap, sizes_for
from pageowner.tracker.load.provoke import provoke
from pageowner.tracker.read import pageblocks
from pageowner.tracker.read.maps import MAX_DEPTH, RECORD
from pageowner.tracker.read.seen import with_seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.tracker.load.libbpf import Libbpf

__all__ = ["Finding", "doctor"]


_SMALL = Sizes(span_shift=4, spans=16, tasks=64, stacks=64)


def doctor() -> list[Finding]:
    """All findings, in the order in which ``on`` would depend on them.

    Findings are never raised as errors. Programs are loaded and attached for a moment, with empty
    maps; tracking that is on is not disturbed.
    """
    found = list(_machine())
    if all(finding.ok for finding in found if finding.needed):
        found += _programs(libbpf())
    found += _reading()
    return found


def _machine() -> Iterator[Finding]:
    root = os.geteuid() == 0
    yield Finding("root", root, True, f"user id {os.geteuid()}",
                  "" if root else "run with sudo; most checks need it")
    types = os.path.exists("/sys/kernel/btf/vmlinux")
    yield Finding("BTF", types, True, "/sys/kernel/btf/vmlinux" if types else "not there",
                  "" if types else "the kernel needs CONFIG_DEBUG_INFO_BTF=y")
    try:
        bpf = libbpf()
        old = requirements.too_old(bpf)
        yield Finding("kernel", not old, True, platform.release(), old or "")
        yield Finding("libbpf", True, True, bpf.version())
    except LibbpfMissing as error:
        yield Finding("libbpf", False, True, "not usable", str(error))
    locked = requirements.lockdown()
    yield Finding("lockdown", locked is None, True, "confidentiality" if locked else "not in force",
                  locked or "")
    for name, place, mounted in (("bpffs", requirements.BPFFS, requirements.is_mounted()),
                                 ("tracefs", TRACEFS[0], requirements.has_tracefs())):
        if root or mounted:
            yield Finding(name, True, True,
                          f"{place}: {'mounted' if mounted else 'not mounted yet'}",
                          "" if mounted else "`on` mounts it")


def _programs(bpf: Libbpf) -> Iterator[Finding]:
    try:
        # Whether a hook may be there does not hang on where the direct map of memory is.
        with Tracker(bpf, _SMALL, MAX_DEPTH, {"direct_map": 1}) as tracker:
            tracker.load("on_alloc", "on_free", "look", "settle")
            hooks = attach_required(tracker, None, Calibration(0, 0, 0, 0))
            yield Finding("raw tracepoints", True, True, "mm_page_alloc and mm_page_free attached")
            hooks |= attach_optional(tracker, None, symbol_text.Lines.read())
            with tracker.store() as store:
                hooks = with_seen(provoke(store, hooks, records=False), store.counters())
            for name, state in hooks.items():
                if name not in LOST:
                    continue
                whole = is_whole(state)
                yield Finding(name, whole, False, in_words(state), "" if whole else LOST[name])
    except BpfError as error:
        yield Finding("raw tracepoints", False, True, str(error),
                      "the kernel does not let BPF see page allocations")
        return
    yield _tried("struct page to pfn", True, lambda: _calibration(bpf))


def _reading() -> Iterator[Finding]:
    yield _tried("kallsyms", True, lambda: (
        f"{len(tracing_ranges(symbol_text.Lines.read()))} functions of tracing found"))
    for name, needed, lost in (
            ("kpageflags", True, "pages allocated before tracking cannot be described"),
            ("kpagecount", False, "page kinds are known without it"),
            ("kpagecgroup", False, "memory cgroups are not shown")):
        yield _tried(f"/proc/{name}", needed, partial(_read, f"/proc/{name}"), lost)
    yield _tried("pageblock types", False, _pageblocks)
    yield _tried("memory", True, _cost)


def _tried(name: str, needed: bool, test: Callable[[], str], follows: str = "") -> Finding:
    """``follows``: from a file that cannot be read."""
    try:
        return Finding(name, True, needed, test())
    except PageownerError as error:
        return Finding(name, False, needed, "no", str(error))
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(name, False, needed, why, follows)


def _calibration(bpf: Libbpf) -> str:
    with requirements.tracefs_meanwhile():
        return f"{find_vmemmap(bpf, bpf.type_size('page')).events} events agree"


def _pageblocks() -> str:
    if kallsyms.load().address_of(pageblocks.SYMBOL) is None:
        raise PageownerError(f"dump prints `type Unknown`, and report --by block has one group:"
                             f" {pageblocks.NO_SYMBOL}")
    return "read from mem_section"


def _read(path: str) -> str:
    with open(path, "rb") as file:
        file.read(8)
    return "readable"


def _cost() -> str:
    ranges = ram_ranges()
    sizes = sizes_for(ranges)
    frames = sum(end - start for start, end in ranges)
    records = frames + (sizes.spares << sizes.span_shift)
    bytes_needed = records * RECORD.itemsize + sizes.tasks * 40 + sizes.stacks * (16 + 16 * 8)
    return f"tracking takes about {bytes_needed >> 20} MiB here, for {frames:,} page frames"
