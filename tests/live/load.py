"""Load on the page allocator, one step after another until killed: files, forks, builds, churn.

Arguments: a directory for files, and a memory cgroup with a limit ("" for none) that one step
fills until the kernel reclaims. Each step takes about a second; one process works at a time.
"""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from socket_buffers import fill

_MIB = 1 << 20

_SOURCE = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n" + "".join(
    f"static int f{n}(int a, char *b) {{ int c[64]; for (int i = 0; i < 64; i++)"
    f" c[i] = a * i + b[i % 7] * {n}; qsort(c, 64, 4, (void *)strcmp); return c[{n % 64}]; }}\n"
    f"int g{n}(int a) {{ char b[9] = \"{n}\"; return f{n}(a, b) + printf(\"%d\", a); }}\n"
    for n in range(400))


def build(place: Path) -> None:
    """Compile a C file with optimisation."""
    compiler = shutil.which("cc")
    if compiler is None:
        return
    source = place / "load.c"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O2", "-w", "-c", source, "-o", place / "load.o"], check=False)


def copies(place: Path) -> None:
    """Copy a file of 64 MiB twice, and remove all."""
    first = place / "file"
    first.write_bytes(os.urandom(_MIB) * 64)
    for name in ("a", "b"):
        shutil.copyfile(first, place / name)
    for name in ("file", "a", "b"):
        (place / name).unlink()


def forks(_: Path) -> None:
    """300 children, 30 at a time, each touching a little memory."""
    for _ in range(10):
        children = []
        for _ in range(30):
            child = os.fork()
            if child == 0:
                area = mmap.mmap(-1, 64 * 4096)
                for at in range(0, len(area), 4096):
                    area[at] = 1
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


def churn(_: Path) -> None:
    """Anonymous memory with and without huge pages, in parts given back; pipes and sockets."""
    for huge in (False, True):
        area = mmap.mmap(-1, 64 * _MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if huge:
            area.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, len(area), 4096):
            area[at] = 1
        for at in range(0, len(area), 3 * _MIB // 2 // 4096 * 4096):
            area.madvise(mmap.MADV_DONTNEED, at, 4096 * 8)
        area.close()
    for _ in range(20):
        left, right = socket.socketpair()
        fill(left)
        left.close()
        right.close()


def pressure(place: Path, cgroup: Path) -> None:
    """In a cgroup with a limit: write and read twice as much file as it may hold."""
    child = os.fork()
    if child == 0:
        try:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            area = mmap.mmap(-1, 16 * _MIB)
            for at in range(0, len(area), 4096):
                area[at] = 1
            path = place / "pressed"
            with path.open("wb") as file:
                for _ in range(128):
                    file.write(bytes(_MIB))
                os.fsync(file.fileno())
            with path.open("rb", buffering=0) as file:
                while file.read(_MIB):
                    pass
            path.unlink()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def main(place: Path, cgroup: str) -> None:
    steps: list[Callable[[], None]] = [
        lambda: forks(place), lambda: copies(place), lambda: churn(place), lambda: build(place)]
    if cgroup:
        steps.append(lambda: pressure(place, Path(cgroup)))
    while True:
        for step in steps:
            step()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
