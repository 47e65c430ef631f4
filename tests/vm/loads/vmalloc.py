"""vmalloc and its like: BPF maps, a kernel table in huge blocks that split, io_uring rings."""

import ctypes
import fcntl
import os
import resource
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

from common import PAGE, main, syscall

MAP_CREATE, MAP_ARRAY, MAP_HASH, MMAPABLE = 0, 2, 1, 1 << 10


def bpf_map(held: ExitStack, kind: int, value: int, entries: int, flags: int = 0) -> int:
    """Create a BPF map, held open; its size in bytes, more or less."""
    attributes = struct.pack("IIIII", kind, 4, value, entries, flags)
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    descriptor = syscall("bpf", "creating a BPF map", MAP_CREATE, buffer, 128)
    held.callback(os.close, descriptor)
    return value * entries


def load(held: ExitStack) -> str:
    """22 MiB of BPF maps, a descriptor table of 8 MiB, two io_uring rings, vmalloc's own tests."""
    size = bpf_map(held, MAP_ARRAY, PAGE, 2048)
    size += bpf_map(held, MAP_ARRAY, PAGE, 1024, MMAPABLE)
    size += bpf_map(held, MAP_HASH, 1024, 8192)
    size += bpf_map(held, MAP_ARRAY, 1000, 2048)
    said = [f"{size >> 10} KiB of BPF maps"]

    highest = int(Path("/proc/sys/fs/nr_open").read_text())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
    except ValueError:  # not even root may, as in a container
        highest = limits[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
    high = fcntl.fcntl(1, fcntl.F_DUPFD, highest - 1)
    held.callback(os.close, high)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    said.append(f"a descriptor table for {high + 1} files")

    try:
        for entries in (256, 8192):
            parameters = ctypes.create_string_buffer(120)
            ring = syscall("io_uring_setup", "io_uring_setup", entries, parameters)
            held.callback(os.close, ring)
        said.append("2 io_uring rings")
    except OSError as error:
        said.append(f"no io_uring ({error.strerror})")

    # the module always refuses to stay: its work is done when modprobe returns
    tests = "run_test_mask=0x19 test_loop_count=300 test_repeat_count=1 nr_threads=2"
    done = subprocess.run(
        ["modprobe", "test_vmalloc", *tests.split()], capture_output=True, text=True, check=False
    )
    said.append("no test_vmalloc" if "not found" in done.stderr else "vmalloc's own tests run")
    return ", ".join(said)


if __name__ == "__main__":
    main("vmalloc", load)
