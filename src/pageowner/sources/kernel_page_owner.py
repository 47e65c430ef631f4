"""The kernel's own page owner on this machine: out of its memory, or as text without the stacks,
which are most of it, where the kernel can leave them out.

Out of memory (`pageowner.kernel_memory`) it takes a small part of the time, and none of the
kernel's code that prints it is run, which crashes on some kernels.

As text, mm/page_owner.c, since 7.3: what is written to an open /sys/kernel/debug/page_owner says
how that open file prints. ``nid=0,2`` leaves out the pages of other NUMA nodes. ``mode=handle``
prints the number of a stack for its frames; which frames they are is in
page_owner_stacks/show_stacks_handles, each stack once. Some are not in that list: the one of pages
allocated before page owner was ready (init_pages_in_zone counts none), those of early boot, and
those first seen where the list could not grow (add_stack_record_to_list). For each of them the
record of one of its pages is read again, with its stack.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.sources import page_owner
from pageowner.sources.opening import Opened, from_file, reading
from pageowner.sources.page_owner_stacks import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pageowner.model.counts import Counted
    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.page_owner_parser import Raw

__all__ = ["count", "from_memory", "on_nodes", "read", "stacks_of", "with_stacks"]

ASKED = 1 << 14
"""Handles that are looked up one by one; a busy guest of 7.3 had 236 of them."""

TRIES = 3
"""Pages of a handle that are asked: one may have been freed since."""

_RECORD = 4096
"""The kernel prints no longer record (print_page_owner: ``min_t(size_t, count, PAGE_SIZE)``), but
where pages are larger."""


_nodes: ContextVar[tuple[int, ...] | None] = ContextVar("nodes", default=None)


@contextmanager
def on_nodes(nodes: Sequence[int] | None) -> Iterator[None]:
    """Within this only pages of these NUMA nodes need be read, all if None. A kernel that cannot
    choose prints the others too."""
    token = _nodes.set(tuple(nodes) if nodes else None)
    try:
        yield
    finally:
        _nodes.reset(token)


def stacks_of(path: str) -> str:
    """The kernel's list of stacks by handle, beside the file ``path`` of page owner."""
    return f"{path}_stacks/show_stacks_handles"


def from_memory(path: str) -> tuple[Snapshot | None, str]:
    """What the kernel's page owner (its file ``path``) knows, out of the kernel's memory; None and
    why not, where this kernel or this user cannot read that."""
    from pageowner.kernel import kallsyms
    from pageowner.kernel_memory.snapshot import page_owner as out_of_memory
    from pageowner.tracker.users.live_memory import LiveMemory

    try:
        symbols = kallsyms.load()
        with LiveMemory(symbols) as memory:
            return out_of_memory(memory, symbols, path), ""
    except PageownerError as error:
        return None, str(error)


def read(path: str) -> Snapshot | None:
    """What the kernel's page owner (its file ``path``) knows, read by handle; None where the kernel
    prints no handles.

    ``meta.counters["unknown_handles"]`` is the number of stacks whose frames could not be had;
    their rows have a handle and no stack. Raises PageownerError as `page_owner.read` does.
    """
    if (opened := _by_handle(path)) is None:
        return None
    with opened:
        unknown: list[int] = []
        found = page_owner.read(opened, lambda: [_joined(opened, unknown)])
    found.meta.counters["unknown_handles"] = len(unknown)
    return found


def count(path: str) -> Counted | Snapshot | None:
    """The same as sums by kind of record, as `page_owner.count`."""
    from pageowner.sources.page_owner_count import tally

    if (opened := _by_handle(path)) is None:
        return None
    with opened:
        unknown: list[int] = []
        found = page_owner.count(opened, lambda: [tally(_joined(opened, unknown))])
    found.meta.counters["unknown_handles"] = len(unknown)
    return found


def with_stacks(raw: Raw, stacks: dict[int, str],
                ask: Callable[[int, int], str | None]) -> list[int]:
    """Replace the handle of each record in ``raw`` that has no frames by its stack, in place, as if
    the kernel had printed that. Returns the handles for which there is none.

    ``stacks``: frames by handle, one a line. ``ask`` is called with a page frame number and its
    handle for what is not among them, for at most `ASKED` handles.
    """
    bare = {number for number, body in enumerate(raw.bodies)
            if body.handle is not None and body.stack is None}
    missing = {handle for number in bare
               if (handle := raw.bodies[number].handle) is not None and handle not in stacks}
    found = {**stacks, **_asked(raw, missing, ask)} if missing else stacks
    for number in bare:
        body = raw.bodies[number]
        if body.handle in found:
            raw.bodies[number] = body._replace(stack=found[body.handle], handle=None)
    return sorted(missing - found.keys())


def _asked(raw: Raw, missing: set[int], ask: Callable[[int, int], str | None]) -> dict[int, str]:
    handle_of = [raw.bodies[body].handle for _, _, body in raw.kinds]
    wanted = set(sorted(missing)[:ASKED])
    tries: dict[int, int] = {}
    found: dict[int, str] = {}
    for kind, pfn in zip(raw.kind, raw.pfn, strict=True):
        handle = handle_of[kind]
        if handle not in wanted:
            continue
        assert handle is not None
        tries[handle] = tries.get(handle, 0) + 1
        if (stack := ask(pfn, handle)) is not None:
            found[handle] = stack
        if stack is not None or tries[handle] == TRIES:
            wanted.discard(handle)
            if not wanted:
                break
    return found


def _open(path: str) -> io.FileIO | None:
    """Open for both, so that the file can be told how to print."""
    try:
        return io.FileIO(os.open(path, os.O_RDWR | os.O_CLOEXEC), "r")
    except OSError:
        return None  # whoever opens it for reading alone says why not


def _set_mode(file: io.FileIO, mode: str) -> bool:
    try:
        os.write(file.fileno(), f"mode={mode}".encode())
    except OSError:  # EINVAL, by kernels that do not know it
        return False
    return True


def _by_handle(path: str) -> Opened | None:
    if not os.access(stacks_of(path), os.R_OK) or (file := _open(path)) is None:
        return None
    nodes = _nodes.get()
    # A kernel that refuses the nodes, as one that is not there, prints all of them.
    if not ((nodes and _set_mode(file, f"handle nid={','.join(map(str, nodes))}"))
            or _set_mode(file, "handle")):
        file.close()
        return None
    return from_file(file, path)


def _joined(opened: Opened, unknown: list[int]) -> Raw:
    raw = page_owner.parse_stream(opened)
    # Read after the records: the list only grows (add_stack_record_to_list, mm/page_owner.c).
    name = stacks_of(opened.name)
    with reading(name), open(name, "rb") as file:
        listed = file.read()
    stacks = {record.handle: record.stack for record in parse(listed)
              if record.handle is not None and record.stack is not None}
    file_of_one = _open(opened.name)
    try:
        if file_of_one is None or not _set_mode(file_of_one, "stack_handle"):
            unknown += with_stacks(raw, stacks, lambda pfn, handle: None)
        else:
            unknown += with_stacks(raw, stacks,
                                   lambda pfn, handle: _stack_of(file_of_one, pfn, handle))
    finally:
        if file_of_one is not None:
            file_of_one.close()
    return raw


def _stack_of(file: io.FileIO, pfn: int, handle: int) -> str | None:
    """The frames of a page's record, if it still has this handle.

    The offset in the file is a page frame number: a read gives the first record at or above it
    (read_page_owner, lseek_page_owner).
    """
    try:
        os.lseek(file.fileno(), pfn, os.SEEK_SET)
        text = os.read(file.fileno(), max(_RECORD, os.sysconf("SC_PAGE_SIZE")))
    except OSError:
        return None
    # A task's name may hold lines of its own: the last such line is the kernel's.
    lines = list(re.finditer(rb"^PFN 0x%x type .*\n" % pfn, text, re.MULTILINE))
    record = parse(text[lines[-1].end():]) if lines else []
    if not record or record[0].handle != handle:
        return None
    return record[0].stack
