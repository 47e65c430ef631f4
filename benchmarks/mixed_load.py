"""A load that allocates in many ways at once: compiles, forks, copies, loopback TCP, page cache.

    mixed_load.py [SECONDS]

Five workers run side by side until the time is over, each in a loop; what they write is in a
folder that goes away. Prints how often each has been round. `attribution.py` runs it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK = 1 << 20
SOURCE = """
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#define F(n) double f##n(double x) { double s = 0; for (int i = 0; i < n + 9; i++) \\
  s += sin(x * i) / (i + n); return s + strlen("f" #n); }
#define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7) F(n##8) F(n##9)
T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8) T(9)
int main(void) { printf("%f\\n", f10(1) + f99(2)); return 0; }
"""


def compile_and_run(folder: Path) -> None:
    """A C program, compiled with optimisation and run, as in a build."""
    (folder / "load.c").write_text(SOURCE)
    subprocess.run(["cc", "-O2", "-pipe", "-o", folder / "load", folder / "load.c", "-lm"],
                   check=True)
    subprocess.run([folder / "load"], check=True, stdout=subprocess.DEVNULL)


def fork_storm(_: Path) -> None:
    """200 children that exec and end."""
    for _ in range(20):
        children = [subprocess.Popen(["true"]) for _ in range(10)]
        for child in children:
            child.wait()


def copy_files(folder: Path) -> None:
    """A tree of files copied twenty times, renamed, removed."""
    source = Path(os.__file__).parent / "asyncio"
    for i in range(20):
        shutil.copytree(source, folder / f"tree-{i}")
    for i in range(20):
        (folder / f"tree-{i}").rename(folder / f"moved-{i}")
        shutil.rmtree(folder / f"moved-{i}")


def loopback(_: Path) -> None:
    """64 MiB over TCP to ourselves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def receive() -> None:
            peer, _ = server.accept()
            with peer:
                while peer.recv(CHUNK):
                    pass

        receiver = threading.Thread(target=receive)
        receiver.start()
        with socket.create_connection(server.getsockname()) as sender:
            for _ in range(64):
                sender.sendall(bytes(CHUNK))
        receiver.join()


def read_files(folder: Path) -> None:
    """Programs of the machine read through the page cache, dropped from it first."""
    for path in sorted(Path("/usr/bin").iterdir())[:400]:
        try:
            with open(path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.read(CHUNK):
                    pass
        except OSError:
            continue
    with open(folder / "written", "wb", buffering=0) as file:
        for _ in range(64):
            file.write(bytes(CHUNK))


WORKERS: tuple[Callable[[Path], None], ...] = (
    compile_and_run, fork_storm, copy_files, loopback, read_files)


def rounds(seconds: float) -> Counter[str]:
    """Run all workers for so long; how often each went round."""
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as place:
        deadline = time.monotonic() + seconds

        def work(worker: Callable[[Path], None]) -> None:
            folder = Path(place, worker.__name__)
            folder.mkdir()
            while time.monotonic() < deadline:
                worker(folder)
                done[worker.__name__] += 1

        threads = [threading.Thread(target=work, args=(worker,)) for worker in WORKERS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return done


def lines(done: Counter[str]) -> Iterator[str]:
    for name, times in sorted(done.items()):
        yield f"{name}: {times}"


if __name__ == "__main__":
    print("\n".join(lines(rounds(float(sys.argv[1]) if len(sys.argv) > 1 else 20))))
