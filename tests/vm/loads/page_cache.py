"""The page cache with large folios: a file on XFS, read back, then punched, cut, partly dropped."""

import ctypes
import mmap
import os
import struct
from contextlib import ExitStack

from common import MIB, PAGE, folder, main, mounted, punch_hole, run

COMPOUND = 3 << 15  # KPF_COMPOUND_HEAD and KPF_COMPOUND_TAIL


def large_folios(descriptor: int) -> str:
    """How many of a file's pages lie in large folios, as /proc/kpageflags has it."""
    size = os.fstat(descriptor).st_size
    with (
        mmap.mmap(descriptor, size) as memory,
        open("/proc/self/pagemap", "rb") as pagemap,
        open("/proc/kpageflags", "rb", buffering=0) as flags,
    ):
        for at in range(0, size, PAGE):
            memory[at]
        anchor = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(anchor)
        pagemap.seek(start // PAGE * 8)
        large = 0
        for (entry,) in struct.iter_unpack("<Q", pagemap.read(size // PAGE * 8)):
            flags.seek((entry & ((1 << 55) - 1)) * 8)
            large += bool(struct.unpack("<Q", flags.read(8))[0] & COMPOUND)
        del anchor
    return f"{large} of {size // PAGE} pages"


def load(held: ExitStack) -> str:
    """48 MiB: written, dropped, read back by readahead, holed and cut so that folios split."""
    for module in ("loop", "xfs"):
        run("modprobe", "-q", module)
    image = folder(held, "image") / "xfs"
    image.touch()
    os.truncate(image, 400 * MIB)
    run("mkfs.xfs", "-q", str(image))
    where = mounted(held, "xfs", str(image), "loop")
    descriptor = os.open(where / "file", os.O_RDWR | os.O_CREAT, 0o600)
    held.callback(os.close, descriptor)
    block = os.urandom(MIB)
    for _ in range(48):
        os.write(descriptor, block)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while os.read(descriptor, MIB):
        pass
    large = large_folios(descriptor)
    for at in range(0, 16 * MIB, MIB):
        punch_hole(descriptor, at + 5 * PAGE, 3 * PAGE)
    os.ftruncate(descriptor, 40 * MIB + 3 * PAGE)
    os.posix_fadvise(descriptor, 20 * MIB, 4 * MIB, os.POSIX_FADV_DONTNEED)
    return (
        f"48 MiB of XFS read back, {large} in large folios; 16 holes punched,"
        " cut by 8 MiB, 4 MiB dropped"
    )


if __name__ == "__main__":
    main("page_cache", load)
