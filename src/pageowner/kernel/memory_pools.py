"""Memory set aside: huge pages, zram, balloons, dma-buf, nodes, sockets, and what boot took."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pageowner.kernel.meminfo import kilobytes
from pageowner.kernel.release import version

__all__ = ["HugetlbPool", "Node", "balloon_outside_total", "boot_ranges", "dmabuf_bytes",
           "first_percpu_chunk", "hugetlb_pools", "kernel_log", "nodes", "parse_possible_cpus",
           "percpu_without_cpu", "socket_bytes", "vmapped_stacks", "zram_devices"]


class HugetlbPool(NamedTuple):
    """Huge pages of one size: in all, free, and of the free ones those promised to mappings."""

    page_bytes: int
    pages: int
    free: int
    reserved: int


class Node(NamedTuple):
    """A NUMA node: bytes in all and free."""

    number: int
    total: int
    free: int


def hugetlb_pools(sys: str = "/sys") -> list[HugetlbPool]:
    """/sys/kernel/mm/hugepages (mm/hugetlb.c)."""
    found = []
    for folder in Path(sys, "kernel/mm/hugepages").glob("hugepages-*kB"):
        size = re.fullmatch(r"hugepages-(\d+)kB", folder.name)
        with suppress(OSError, ValueError):
            pages, free, reserved = (int((folder / name).read_text()) for name in (
                "nr_hugepages", "free_hugepages", "resv_hugepages"))
            if size:
                found.append(HugetlbPool(int(size[1]) << 10, pages, free, reserved))
    return sorted(found)


def zram_devices(sys: str = "/sys") -> list[tuple[str, int]]:
    """Bytes of memory of each zram device (mem_used_total of mm_stat,
    Documentation/admin-guide/blockdev/zram.rst), whole pages of zsmalloc."""
    found = []
    for path in Path(sys, "block").glob("zram*/mm_stat"):
        with suppress(OSError, ValueError, IndexError):
            found.append((path.parent.name, int(path.read_text().split()[2])))
    return sorted(found)


def dmabuf_bytes(sys: str = "/sys") -> int:
    """Bytes of all buffers of /sys/kernel/dmabuf (CONFIG_DMABUF_SYSFS_STATS; 0 without it)."""
    held = 0
    for path in Path(sys, "kernel/dmabuf/buffers").glob("*/size"):
        with suppress(OSError, ValueError):
            held += int(path.read_text())
    return held


def balloon_outside_total(sys: str = "/sys") -> bool | None:
    """Whether pages in the balloon are no longer part of MemTotal; None if not known.

    virtio_balloon takes them from it unless VIRTIO_BALLOON_F_DEFLATE_ON_OOM (bit 2) was agreed on
    (drivers/virtio/virtio_balloon.c, fill_balloon).
    """
    for path in Path(sys, "bus/virtio/drivers/virtio_balloon").glob("virtio*/features"):
        with suppress(OSError, IndexError):
            return path.read_text().strip()[2] == "0"
    return None


def nodes(sys: str = "/sys") -> list[Node]:
    """/sys/devices/system/node/node*/meminfo (drivers/base/node.c, node_read_meminfo)."""
    found = []
    for path in Path(sys, "devices/system/node").glob("node[0-9]*/meminfo"):
        with suppress(OSError):
            lines = path.read_text().splitlines()
            about = kilobytes("\n".join(re.sub(r"^Node \d+ ", "", line) for line in lines))
            if about.get("MemTotal"):
                found.append(Node(int(path.parent.name[4:]), about["MemTotal"],
                                  about.get("MemFree", 0)))
    return sorted(found)


def socket_bytes(page_size: int, proc: str = "/proc") -> dict[str, int]:
    """Bytes that TCP and UDP count for their sockets (``mem`` of /proc/net/sockstat, in pages of
    ``page_size`` bytes, from 4.11 to before 6.0 of 4 KiB: include/net/sock.h, SK_MEM_QUANTUM;
    net/ipv4/proc.c): of this network namespace's counters, which all namespaces share."""
    found = {}
    with suppress(OSError):
        if (4, 11) <= version(Path(proc, "sys/kernel/osrelease").read_text()) < (6, 0):
            page_size = 4096
    with suppress(OSError):
        for protocol, pages in re.findall(r"^(TCP|UDP): .*\bmem (\d+)",
                                          Path(proc, "net/sockstat").read_text(), re.MULTILINE):
            found[protocol] = int(pages) * page_size
    return found


def boot_ranges(iomem: str) -> dict[str, int]:
    """Bytes of System RAM, of the kernel's image and of the crash kernel, of the text of
    /proc/iomem; none where the addresses are hidden (zeros)."""
    found: dict[str, int] = {}
    for first, last, name in re.findall(r"^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$", iomem,
                                        re.MULTILINE):
        start, end = int(first, 16), int(last, 16)
        kind = ("System RAM" if name.startswith("System RAM") else
                "Kernel image" if name in _IMAGE else
                "Crash kernel" if name.startswith("Crash kernel") else "")
        if kind and end:
            found[kind] = found.get(kind, 0) + end - start + 1
    return found


_IMAGE = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")


def kernel_log(limit: int = 1500) -> list[str]:
    """The first messages in the kernel's log buffer; none for who may not read /dev/kmsg."""
    found: list[str] = []
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return found
    try:
        while len(found) < limit:
            found.append(os.read(log, 8192).decode(errors="replace"))
    except OSError:
        pass  # EAGAIN: that was all; EPIPE: overwritten meanwhile
    finally:
        os.close(log)
    return found


def first_percpu_chunk(log: list[str], units: int, page_size: int) -> int | None:
    """Bytes of the first chunk of percpu memory, which Percpu of meminfo counts although it was
    taken before MemTotal (mm/percpu.c, pcpu_setup_first_chunk); None if the log does not tell.
    ``units``: of the chunk, one a possible CPU; ``page_size``: of the machine whose log it is."""
    for line in log:
        found = re.search(r"percpu: (?:Embedded )?(\d+) (?:(\d+)K )?pages/cpu", line)
        if found:
            page = int(found[2]) << 10 if found[2] else page_size
            return int(found[1]) * page * units
    return None


def percpu_without_cpu(log: list[str], percpu: int) -> int:
    """Of so many bytes that Percpu of meminfo counts those for units that no CPU has: it counts all
    units of a chunk (mm/percpu.c, pcpu_nr_pages), pages are there for possible CPUs alone
    (pcpu_alloc_pages). 0 if the log does not tell (pcpu_dump_alloc_info)."""
    units = [unit for line in log if (found := re.search(r"pcpu-alloc: (\[\d+\] .*)", line))
             for unit in re.findall(r"(?<![\[\d])(?:\d+|-+)(?=\s|$)", found[1])]
    empty = sum(unit.startswith("-") for unit in units)
    return percpu * empty // len(units) if units else 0


def parse_possible_cpus(text: str) -> int:
    """How many CPUs a list such as ``0-3,8`` names."""
    return sum(int(last or first) - int(first) + 1
               for first, last in re.findall(r"(\d+)(?:-(\d+))?", text))


def vmapped_stacks(proc: str = "/proc", boot: str = "/boot") -> bool | None:
    """Whether kernel stacks are areas of vmalloc (CONFIG_VMAP_STACK); None if no configuration of
    this kernel is to be found."""
    import gzip

    for path, opener in ((f"{proc}/config.gz", gzip.open),
                         (f"{boot}/config-{os.uname().release}", open)):
        with suppress(OSError, EOFError), opener(path, "rt", errors="replace") as file:
            return bool(re.search(r"^CONFIG_VMAP_STACK=y$", file.read(), re.MULTILINE))
    return None
