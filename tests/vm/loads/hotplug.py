"""Memory hot-removed and hot-added: blocks offlined (their pages move away) and onlined again."""

import os
from contextlib import ExitStack
from pathlib import Path

from common import MADV_NOHUGEPAGE, MIB, CannotLoad, Region, counters, main, put, since

COUNTERS = ("pgmigrate_success", "pgmigrate_fail")
MEMORY = Path("/sys/devices/system/memory")


def state(block: Path) -> str:
    """online, offline or going-offline."""
    return (block / "state").read_text().strip()


def number(block: Path) -> int:
    """The number in a block's name."""
    return int(block.name.removeprefix("memory"))


def load(held: ExitStack) -> str:
    """Two blocks off and on again as movable; off again, removed and probed where that is possible.

    A block with a page that cannot move does not go off: the next lower one is tried.
    """
    if not MEMORY.exists():
        raise CannotLoad("this kernel has no memory hotplug")
    before = counters(*COUNTERS)
    filler = Region(96 * MIB)  # movable pages, some of which lie in the blocks that go
    filler.advise(MADV_NOHUGEPAGE)
    filler.touch()
    size = int((MEMORY / "block_size_bytes").read_text(), 16)
    blocks = sorted(MEMORY.glob("memory[0-9]*"), key=number, reverse=True)
    gone: list[Path] = []
    refused = 0
    for block in blocks:
        if len(gone) == 2 or refused == 6:
            break
        try:
            put(block / "state", "offline")
            gone.append(block)
        except OSError:
            refused += 1
    if not gone:
        raise CannotLoad(f"{refused} blocks of {size >> 20} MiB refused to go offline")
    for block in gone:
        put(block / "state", "online_movable")
    kept = Region(64 * MIB)
    kept.advise(MADV_NOHUGEPAGE)
    kept.touch()
    again = "not offlined again"
    try:
        put(gone[0] / "state", "offline")
        put(gone[0] / "state", "online_movable")
        again = "one of them a second time"
    except OSError as error:
        again = f"not a second time ({os.strerror(error.errno or 0)})"
        if state(gone[0]) == "offline":
            put(gone[0] / "state", "online_movable")
    return (
        f"{len(gone)} blocks of {size >> 20} MiB offline and online again ({refused} refused),"
        f" {again}; {since(before, *COUNTERS)}"
    )


if __name__ == "__main__":
    main("hotplug", load)
