"""Areas of vmalloc that were freed and not purged yet: what they list is others' by then."""

from __future__ import annotations

import mmap
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pageowner.analysis.owners import owners
from pageowner.kernel import vmalloc_areas
from pageowner.tracker import control
from pageowner.tracker.users.untracked import untracked

MIB = 1 << 20


@pytest.mark.usefixtures("bpf")
def test_what_was_freed_of_vmalloc_has_nobodys_pages() -> None:
    """The tracker's own maps, whose pages sockets have then."""
    if control.is_on():
        pytest.skip("tracking is on on this machine; a test would have to turn it off")
    control.on()
    control.off()
    with ExitStack() as stack:
        for _ in range(64):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in pair:
                stack.callback(end.close)
            pair[0].setblocking(False)
            pair[0].setsockopt(socket.SOL_SOCKET, 32, 8 * MIB)  # SO_SNDBUFFORCE
            with suppress(BlockingIOError):
                while True:
                    pair[0].send(bytes(128 << 10))
        kept = 2 * MIB // mmap.PAGESIZE  # maps of what reads
        before = vmalloc_areas.parse_vmallocinfo(Path("/proc/vmallocinfo").read_text())
        have = owners(untracked(), "user").to_pydict()
        pages = dict(zip(have["user"], have["pages"], strict=True))
        for caller in ("array_map_alloc", "htab_map_alloc"):
            assert pages.get(f"vmalloc {caller}", 0) <= before.get(caller, 0) + kept
