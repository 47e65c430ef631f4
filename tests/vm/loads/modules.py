"""Modules loaded and unloaded: their memory comes from module_alloc, in bulk."""

from contextlib import ExitStack

from common import main, run


def load(held: ExitStack) -> str:
    """`dummy` ten times in and out, then left in with eight devices."""
    for _ in range(10):
        run("modprobe", "dummy")
        run("modprobe", "-r", "dummy")
    run("modprobe", "dummy", "numdummies=8")
    held.callback(run, "modprobe", "-r", "dummy")
    return "module dummy loaded and unloaded 10 times, then held with 8 devices"


if __name__ == "__main__":
    main("modules", load)
