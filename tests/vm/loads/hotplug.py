"""Memory hotplug: blocks offlined and onlined, a module of memory plugged in, pulled, plugged."""

import collections
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from common import MIB, PAGE, CannotLoad, Region, counters, main, put, run, since, small_pages

COUNTERS = ("pgmigrate_success", "pgmigrate_fail")
MEMORY = Path("/sys/devices/system/memory")
PORT = "pageowner.qmp"
PATIENCE = 60
"""Seconds until a plugged module must be there, or a pulled one gone."""


def filler(size: int, node: int | None = None) -> Region:
    """Small movable pages, from `node` if it is given."""
    region = small_pages(size)
    if node is not None:
        region.bind(node)
    region.touch()
    return region


def blocks() -> dict[int, Path]:
    """The memory blocks by number; a block's number is its first address by the block size."""
    return {int(path.name.removeprefix("memory")): path for path in MEMORY.glob("memory[0-9]*")}


def off_and_on(size: int) -> str:
    """Take up to two blocks with pages of ours off, so that these move, and on again."""
    mine = filler(96 * MIB)
    holds = collections.Counter(frame * PAGE // size for frame in mine.frames())
    gone, moved, refused = [], 0, 0
    for number, count in holds.most_common(8):
        try:
            put(blocks()[number] / "state", "offline")
        except OSError:
            refused += 1
            continue
        gone.append(number)
        moved += count
        if len(gone) == 2:
            break
    for number in gone:
        put(blocks()[number] / "state", "online_movable")
    return (
        f"{len(gone)} blocks of {size >> 20} MiB with {moved} pages of ours offline and online"
        f" again ({refused} refused)"
    )


class Monitor:
    """QEMU's monitor, through the guest's serial port."""

    def __init__(self, held: ExitStack) -> None:
        run("modprobe", "-q", "virtio_console")
        ports = Path("/sys/class/virtio-ports")
        for port in ports.iterdir() if ports.exists() else ():
            if (port / "name").read_text().strip() == PORT:
                break
        else:
            raise CannotLoad("the guest was not booted with hotplug")
        self.file = Path("/dev", port.name).open("r+b", buffering=0)  # noqa: SIM115
        held.callback(self.file.close)
        self.answers = self._answers()
        next(self.answers)  # the greeting
        self.ask("qmp_capabilities")

    def _answers(self) -> Iterator[dict[str, object]]:
        """What the monitor says, without its events."""
        left = b""
        while True:
            *lines, left = (left + self.file.read(4096)).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "event" not in answer:
                    yield answer

    def ask(self, command: str, **arguments: object) -> None:
        """Give a command and wait for its answer. Raises CannotLoad if QEMU refuses."""
        text = json.dumps({"execute": command, "arguments": arguments})
        self.file.write(text.encode() + b"\n")
        answer = next(self.answers)
        if "error" in answer:
            raise CannotLoad(f"QEMU refuses {command}: {answer['error']}")


def wait_for(known: set[int], more: int) -> set[int]:
    """Wait until there are `more` blocks beyond the known ones; their numbers."""
    deadline = time.monotonic() + PATIENCE
    while len(new := blocks().keys() - known) != more:
        if time.monotonic() > deadline:
            raise CannotLoad(f"{len(new)} of {more} blocks are there after {PATIENCE} s")
        time.sleep(0.2)
    return new


def plug(monitor: Monitor, name: str, size: int, count: int) -> int:
    """Plug a module of `count` blocks in, online it, use it; how many pages of it are in use."""
    known = set(blocks())
    backend = {"qom-type": "memory-backend-ram", "id": f"m{name}", "size": count * size}
    monitor.ask("object-add", **backend)
    monitor.ask("device_add", driver="pc-dimm", id=name, memdev=f"m{name}", node=0)
    new = wait_for(known, count)
    for number in new:
        put(blocks()[number] / "state", "online_movable")
    for _ in range(16):  # other movable memory may be taken first
        region = filler(32 * MIB, node=0)
        if used := sum(frame * PAGE // size in new for frame in region.frames()):
            return used
    return 0


def load(held: ExitStack) -> str:
    """What is here off and on again; then, where the guest may, memory in, out and in again."""
    if not MEMORY.exists():
        raise CannotLoad("this kernel has no memory hotplug")
    before = counters(*COUNTERS)
    size = int((MEMORY / "block_size_bytes").read_text(), 16)
    said = off_and_on(size)
    # else some kernels online it at once for all uses, and it cannot be pulled again
    put(MEMORY / "auto_online_blocks", "offline")
    try:
        monitor = Monitor(held)
        known = set(blocks())
        pages = plug(monitor, "first", size, 2)
        monitor.ask("device_del", id="first")
        wait_for(known, 0)
        again = plug(monitor, "second", size, 1)
        said += (
            f"; {2 * size >> 20} MiB plugged in, {pages} pages of it used, pulled out again;"
            f" {size >> 20} MiB plugged in, {again} pages of it in use"
        )
    except (CannotLoad, OSError) as error:
        text = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        said += f"; nothing plugged in: {text}"
    return f"{said}; {since(before, *COUNTERS)}"


if __name__ == "__main__":
    main("hotplug", load)
