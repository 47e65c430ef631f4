"""tmpfs punched full of holes: small pages, huge pages that split, an anonymous memory file."""

import os
from contextlib import ExitStack

from common import HUGE, MIB, PAGE, counters, main, mounted, punch_hole, since

COUNTERS = ("thp_file_alloc", "thp_split_page", "thp_file_fallback")


def load(held: ExitStack) -> str:
    """24 MiB with every second page gone, 32 MiB of huge pages holed and cut, 8 MiB of memfd."""
    before = counters(*COUNTERS)
    small = mounted(held, "tmpfs", "none", "size=64M,huge=never") / "file"
    huge = mounted(held, "tmpfs", "none", "size=64M,huge=always") / "file"
    block = bytes(MIB)
    files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in (small, huge)]
    files.append(os.memfd_create("load-memfd"))
    for descriptor, size in zip(files, (24, 32, 8), strict=True):
        held.callback(os.close, descriptor)
        os.truncate(descriptor, size * MIB)
        for _ in range(size):
            os.write(descriptor, block)
    for at in range(0, 24 * MIB, 2 * PAGE):
        punch_hole(files[0], at, PAGE)
    for at in range(0, 24 * MIB, 2 * HUGE):
        punch_hole(files[1], at + 16 * PAGE, 48 * PAGE)
    os.truncate(files[1], 29 * MIB + PAGE)
    os.truncate(files[2], 4 * MIB)
    return (
        "24 MiB with every second page punched out, 32 MiB of huge pages holed and cut,"
        f" 8 MiB of memfd halved; {since(before, *COUNTERS)}"
    )


if __name__ == "__main__":
    main("tmpfs", load)
