"""Fragment a guest's memory, ask frag who would have to go for more huge pages, end these tasks,
and count how many huge pages there are more.

Sockets' buffers, which cannot be moved, are strewn over memory that a task had filled and freed in
stripes. The pool of huge pages is grown as far as it goes; then other tasks are ended instead of
those that frag names, which helps little; then those. Writes promise.json. Exit status 1 if what
was gained is not within a tenth (or two huge pages) of what was said, or if ending the others gave
more than a quarter of it.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

POOL = Path("/proc/sys/vm/nr_hugepages")
ORDER = 9
MIB = 1 << 20
STEP = 1  # huge pages
SLACK = 4 << 10  # KiB that stay free above what the kernel keeps, for those who run meanwhile
SO_SNDBUFFORCE = 32  # asm-generic/socket.h


def pageowner(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pageowner", *words], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


class Task:
    """A child of a name of its own that does one step after another when told to."""

    def __init__(self, name: str, steps) -> None:
        ours, theirs = socket.socketpair()
        self.name = name
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            Path("/proc/self/comm").write_text(name)
            try:
                for _ in steps():
                    theirs.send(b".")
                    theirs.recv(1)
                signal.pause()
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(1)
        theirs.close()
        self.talk = ours

    def done(self) -> None:
        if not self.talk.recv(1):
            raise SystemExit(f"FAILED: {self.name} ended too early")

    def go_on(self) -> None:
        self.talk.send(b".")

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def anonymous(mib: int) -> mmap.mmap:
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(15)  # MADV_NOHUGEPAGE
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    return memory


def striped(mib: int, stripe: int = 16 * mmap.PAGESIZE):
    """Fill, free every other stripe, then leave one stripe in eight of what was."""
    def steps():
        memory = anonymous(mib)
        yield
        for at in range(0, len(memory), 2 * stripe):
            memory.madvise(mmap.MADV_DONTNEED, at, stripe)
        yield
        for at in range(stripe, len(memory), 2 * stripe):
            if at // stripe % 16 != 1:
                memory.madvise(mmap.MADV_DONTNEED, at, stripe)
        yield
    return steps


def buffers(mib: int):
    """Fill socket buffers."""
    def steps():
        held, pairs = 0, []
        while held < mib * MIB:
            one, other = socket.socketpair()
            one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, MIB)
            one.setblocking(False)
            pairs.append((one, other))
            try:
                while True:
                    held += one.send(bytes(1 << 14))
            except BlockingIOError:
                pass
        yield
    return steps


def only_filled(mib: int):
    def steps():
        held = [anonymous(mib)]
        yield
        del held
    return steps


def spare() -> int:
    """KiB that are free for any use, above what the kernel keeps for itself."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = [int(meminfo.get(name, "0 kB").split()[0]) for name in ("MemFree", "CmaFree")]
    return free[0] - free[1] - int(Path("/proc/sys/vm/min_free_kbytes").read_text())


def grown() -> int:
    """The pool as large as it gets. Not to the last page: who then needs one would be killed."""
    had = int(POOL.read_text())
    while spare() > SLACK:
        POOL.write_text(str(had + STEP))
        now = int(POOL.read_text())
        if now == had:
            break
        had = now
    return had


def to_be_had() -> int:
    """How many huge pages there can be: the pool grown as far as it goes, and shrunk again."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    most = 0
    for _ in range(4):
        Path("/proc/sys/vm/compact_memory").write_text("1")
        most = max(most, grown())
    POOL.write_text("0")
    time.sleep(1)
    return most


def settled() -> None:
    """Until what was freed has come back: sockets after a grace period, by kernel threads."""
    before, same = -1, 0
    for _ in range(120):
        time.sleep(0.5)
        now = spare()
        same = same + 1 if abs(now - before) < 256 else 0
        before = now
        if same == 6:
            return


def reachable(found: dict) -> int:
    """Blocks that can be had as it is: free, or once what can be moved or dropped is."""
    return found["states"]["free"] + found["reachable"]["reclaim"]


def asked() -> dict:
    return json.loads(pageowner("frag", "--order", str(ORDER), "--want", "50", "--json"))


def main() -> int:
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    print(f"{total} MiB")
    pageowner("on", "--check", "1")
    filler = Task("filler", striped(int(total * 0.6)))
    filler.done()
    filler.go_on()
    filler.done()
    holders = [Task(f"holder-{n}", buffers(int(total * 0.06))) for n in range(4)]
    others = [Task(f"other-{n}", only_filled(int(total * 0.01))) for n in range(2)]
    for one in holders + others:
        one.done()
    filler.go_on()
    filler.done()

    rounds = []
    had = to_be_had()
    print(f"{had} huge pages can be had")
    for who in ("others", "named"):
        found = asked()
        plan = found["plan"]
        named = {one["pid"] for one in plan["owners"]}
        print(pageowner("frag", "--order", str(ORDER), "--want", "50"))
        going = [task for task in holders + others
                 if (task.pid in named if who == "named" else task in others)]
        for task in going:
            task.end()
        settled()
        left = asked()
        now = to_be_had()
        rounds.append({"who": who, "ended": [task.name for task in going],
                       "named": [one["comm"] for one in plan["owners"]],
                       "said_now": reachable(found), "said_then": reachable(left),
                       "said_gain": plan["gain"], "had": had, "now": now, "gained": now - had})
        print(json.dumps(rounds[-1]))
        had = now
    Path("promise.json").write_text(json.dumps(rounds, indent=1))
    print(pageowner("frag", "--by", "subsystem", "--top", "5"))
    pageowner("off")
    few, many = rounds
    failures = []
    if not set(many["named"]) <= {task.name for task in holders}:
        failures.append(f"others than the holders of buffers were named: {many['named']}")
    if abs(many["gained"] - many["said_gain"]) > max(2, 0.1 * many["said_gain"]):
        failures.append(f"{many['gained']} gained, {many['said_gain']} were said")
    if set(few["ended"]) & set(few["named"]):
        failures.append(f"who was ended instead was named: {few['named']}")
    if few["gained"] > 0.25 * many["gained"]:
        failures.append(f"{few['gained']} were gained by ending others")
    for failure in failures:
        print("FAILED:", failure)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
