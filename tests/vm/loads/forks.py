"""Fork storms: generations of children that die at once, and some that stay."""

import os
import signal
from contextlib import ExitStack

from common import libc, main


def load(held: ExitStack) -> str:
    """8 rounds of 40 children with 2 grandchildren each; then 30 children that stay stopped."""
    forks = 0
    for _ in range(8):
        children = []
        for index in range(40):
            child = os.fork()
            if child == 0:
                libc.prctl(15, f"storm {index}".encode(), 0, 0, 0)
                for _ in range(2):
                    if os.fork() == 0:
                        os._exit(0)
                    os.wait()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        forks += 3 * len(children)
    names = (b"a b), pid 1, t", b"new\nline", b"evil), ts 1 ns", b"\x1b[31mred", b"\xff\xfe")
    for index in range(30):
        child = os.fork()
        if child == 0:
            libc.prctl(15, names[index % len(names)], 0, 0, 0)
            kept = bytearray(1 << 20)  # pages of a task with this name
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(len(kept) & 1)
        os.waitpid(child, os.WUNTRACED)
        held.callback(os.waitpid, child, 0)
        held.callback(os.kill, child, signal.SIGKILL)
    return f"{forks} processes that lived and died, 30 that stay, with names hostile to parsers"


if __name__ == "__main__":
    main("forks", load)
