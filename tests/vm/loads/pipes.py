"""Pipes full of data: written, spliced from a file, and from a file without a page cache (bulk)."""

import errno
import fcntl
import os
import sys
from contextlib import ExitStack

from common import PAGE, main

F_SETPIPE_SZ = 1031


def load(held: ExitStack) -> str:
    """100 pipes of 64 KiB, 4 of 1 MiB, 8 filled by splice, from /dev/zero and from a program."""
    pages = 0
    spliced = {"/dev/zero": 0, sys.executable: 0}

    def pipe(size: int = 0) -> tuple[int, int]:
        ends = os.pipe2(os.O_NONBLOCK)
        for end in ends:
            held.callback(os.close, end)
        if size:
            fcntl.fcntl(ends[1], F_SETPIPE_SZ, size)
        return ends

    for size in [0] * 100 + [1 << 20] * 4:
        _, end = pipe(size)
        try:
            while True:
                pages += os.write(end, bytes(PAGE)) // PAGE
        except BlockingIOError:
            pass
    for path in spliced:
        for _ in range(4):
            _, end = pipe()
            source = os.open(path, os.O_RDONLY)
            try:  # before 6.5 /dev/zero cannot be spliced
                while count := os.splice(source, end, 16 * PAGE):
                    spliced[path] += count
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(source)
    bulk = spliced["/dev/zero"] // PAGE
    cached = spliced[sys.executable] // PAGE
    return f"104 pipes with {pages} pages written, {bulk} spliced in bulk, {cached} from the cache"


if __name__ == "__main__":
    main("pipes", load)
