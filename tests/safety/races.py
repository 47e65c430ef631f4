"""Root's commands against another user who lays links, folders, pipes, files and mounts in the way.

``races.py COUNT [SEED] [COMMAND...]``, as root; makes a mount namespace of its own. Each race is
one command (`WEIGHTS`) while attackers rename and replace what it uses, as fast as they can, in
folders that all may write to. After each, all files of root's outside are as they were; now and
then, the next `off` mends whatever is left. Prints what was run, and exits with 1 at the first
harm.

Of the commands on and off few are whole, with programs loaded; the others take the same steps in
bpffs with maps of no size, so that the time goes into races.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from stage import BPFFS, NOBODY, PINS, bpffs, ours, state, victims

import pageowner
from pageowner.cli import main
from pageowner.errors import PageownerError
from pageowner.page_owner_sort.command import main as sort
from pageowner.storage.recording import Recorder, owned_folder
from pageowner.tracker import control
from pageowner.tracker.load import pins
from pageowner.tracker.load.libbpf import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DUMP = """\
Page allocated via order 0, mask 0x500cc2(GFP_HIGHUSER|__GFP_ACCOUNT), pid 7, tgid 7 (a), ts 9 ns
PFN 0x1000 type Unmovable Block 8 type Unmovable Flags 0x0()
 get_page_from_freelist+0x1f1/0x350
 __alloc_pages+0xd1/0x250

"""
NAMES = ("pageowner", "pageowner-new", "pageowner-old")
WEIGHTS = {"on and off": 1, "steps of on and off": 25, "record": 15, "save": 13, "map": 13,
           "flame": 13, "export": 13, "dump": 4, "page_owner_sort": 3}
EVERY = 25  # races between two looks at whether `off` mends
_libc = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_PRIVATE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC


class Attackers:
    """Processes of another user, and one that mounts as a set-user-id helper would: only on what
    is that user's."""

    def __init__(self, shared: Path, victim: Path, seed: int) -> None:
        self.children = []
        for number, act in enumerate((self._in_bpffs, self._in_shared, self._mounting)):
            child = os.fork()
            if not child:
                try:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    rng = random.Random(seed * 10 + number)
                    if act is not self._mounting:
                        os.setgroups([])
                        os.setresgid(NOBODY, NOBODY, NOBODY)
                        os.setresuid(NOBODY, NOBODY, NOBODY)
                    act(rng, shared, victim)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            self.children.append(child)

    def stop(self) -> None:
        """Raises AssertionError if one has ended before, and attacked no more."""
        for child in self.children:
            ended, _ = os.waitpid(child, os.WNOHANG)
            assert not ended, "an attacker has ended"
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def pause(self) -> None:
        for child in self.children:
            os.kill(child, signal.SIGSTOP)

    def go_on(self) -> None:
        for child in self.children:
            os.kill(child, signal.SIGCONT)

    @staticmethod
    def _lay(rng: random.Random, folder: Path, name: str, targets: list[Path]) -> None:
        """Take a name, or what is there from it, in one of many ways."""
        path, kind = folder / name, rng.randrange(16)
        if kind > 8:
            for remove in (path.unlink, (path / "x").rmdir, path.rmdir):
                with contextlib.suppress(OSError):
                    remove()
            return
        with contextlib.suppress(OSError):
            if kind == 0:
                path.symlink_to(rng.choice(targets))
            elif kind == 1:
                path.mkdir()
            elif kind == 2:
                (path / "x").mkdir(parents=True)
            elif kind == 3:
                path.unlink()
            elif kind == 4:
                path.rmdir()
            elif kind == 5:
                path.rename(folder / f"{name}-{rng.randrange(4)}")
            elif kind == 6:
                (folder / f"{name}-{rng.randrange(4)}").rename(path)
            elif kind == 7:
                os.link(rng.choice(targets), path)
            elif rng.random() < 0.3:
                os.mkfifo(path)
            else:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666))

    @classmethod
    def _in_bpffs(cls, rng: random.Random, shared: Path, victim: Path) -> None:
        targets = [victim, victim / "folder", BPFFS / "roots"]
        while True:
            for _ in range(50):
                cls._lay(rng, BPFFS, rng.choice(NAMES), targets)
            for extra in BPFFS.iterdir():  # else they would become too many to look through
                if "-of-uid-" in extra.name or rng.random() < 0.1:
                    with contextlib.suppress(OSError):
                        (extra / "x").rmdir()
                    with contextlib.suppress(OSError):
                        extra.rmdir()
            time.sleep(rng.random() / 2000)

    @classmethod
    def _in_shared(cls, rng: random.Random, shared: Path, victim: Path) -> None:
        targets = [victim / "a", victim / "b.parquet", victim, victim / "new", victim / "folder"]
        while True:
            for _ in range(5):
                names = ("out", "out", "records", *(one for one in os.listdir(shared)
                                                    if one.startswith(".pageowner.")))
                cls._lay(rng, shared, rng.choice(names), targets)
            time.sleep(rng.random() / 200)

    @staticmethod
    def _mounting(rng: random.Random, shared: Path, victim: Path) -> None:
        data = f"mode=0777,uid={NOBODY},size=64k".encode()
        while True:
            time.sleep(rng.random() / 100)
            place = rng.choice([*(BPFFS / name for name in NAMES), shared / "out",
                                shared / "records"])
            with contextlib.suppress(OSError):
                # as fusermount does: by a descriptor, of what is the user's own
                handle = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
                mine = os.fstat(handle).st_uid == NOBODY
                if mine:
                    where = f"/proc/self/fd/{handle}".encode()
                    _libc.mount(b"x", where, b"tmpfs", ctypes.c_ulong(0), data)
                os.close(handle)
                time.sleep(rng.random() / 500)
                if mine:
                    _libc.umount2(os.fsencode(place), 2 | 8)


class Races:
    def __init__(self, place: Path, rng: random.Random, chosen: Sequence[str]) -> None:
        self.rng, self.chosen = rng, chosen or list(WEIGHTS)
        self.victim = victims(place)
        self.shared = place / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o1777)
        place.chmod(0o755)
        self.dump = place / "dump.txt"
        self.dump.write_text(DUMP * 3)
        self.snapshot = pageowner.read(self.dump)
        self.bpf = libbpf()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.verbs: dict[str, Callable[[], int]] = {  # those of WEIGHTS
            "on and off": self._tracking, "steps of on and off": self._steps,
            "record": self._record, "save": lambda: self._out("save", "OUT", "DUMP"),
            "map": lambda: self._out("map", "DUMP", self.rng.choice(["--png", "--html"]), "OUT"),
            "flame": lambda: self._out("flame", "DUMP", "-o", "OUT"),
            "export": lambda: self._out("export", "DUMP", "--format", "folded", "-o", "OUT"),
            "dump": lambda: self._out("dump", "DUMP", "-o", "OUT"),
            "page_owner_sort": lambda: sort([str(self.dump), str(self.shared / "out")]),
        }

    def _out(self, *words: str) -> int:
        return main([str(self.dump) if word == "DUMP" else str(self.shared / "out")
                     if word == "OUT" else word for word in words])

    def _tracking(self) -> int:
        control.on(control.Options(kernel_only=True))
        if not control.is_on():
            raise AssertionError("on has turned nothing on")
        if not control.off():
            raise AssertionError("off has found nothing on")
        return 0

    def _steps(self) -> int:
        """As control.on() and off(), which do nothing else in bpffs."""
        root = pins.open_root()
        try:
            pins.check_root(root)
            with pins.lock(root):
                pins.clean(root)
                if control.is_on():
                    return 0
                name, folder = pins.make(root)
                fd = self.bpf.create_array("po_race", 8, 1)
                for pin in ("config", "link_x"):
                    self.bpf.pin(fd, f"/proc/self/fd/{folder}/{pin}")
                os.close(fd)
                os.close(folder)
                self._linger()
                if self.rng.random() < 0.9:  # else as if it was killed here
                    pins.place(root, name)
            self._linger()
            if self.rng.random() < 0.9:
                with pins.lock(root):
                    pins.clean(root)
                    pins.put_away(root)
                    self._linger()
                    if self.rng.random() < 0.9:
                        pins.clean(root)
        finally:
            os.close(root)
        return 0

    def _linger(self) -> None:
        time.sleep(self.rng.random() / 200)

    def _record(self) -> int:
        folder = self.shared / "records"
        with owned_folder(folder) as handle:
            recorder = Recorder(folder, 1, 1, handle)
            for second in range(3):
                recorder.add(self.snapshot, 1_577_836_800.0 + 100 * second)
            recorder.forget(1_577_836_800.0 + 1000)
        return 0

    def race(self) -> None:
        verb = self.rng.choices(self.chosen, [WEIGHTS[one] for one in self.chosen])[0]
        self.done[verb] += 1
        said, out = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        self._make_room()
        signal.alarm(100)  # a pipe of the attackers' must not be waited for
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
                status = self.verbs[verb]()
        except (PageownerError, OSError) as error:
            if "\n" in str(error):
                raise
            status = 1
        finally:
            signal.alarm(0)
        if status:
            self.refused[verb] += 1
        said.seek(0)
        text = said.read()
        if "Traceback" in text:
            raise AssertionError(f"{verb}: {text}")

    def _make_room(self) -> None:
        """Remove what root made, so that the names are free for all again."""
        for path in (self.shared / "out", self.shared / "records"):
            with contextlib.suppress(OSError):
                if path.lstat().st_uid == 0:
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()

    def mends(self) -> None:
        """Whatever is there now, the next off ends with nothing of ours, and on is possible."""
        control.off()
        if left := ours():
            raise AssertionError(f"after off there is still {left}")
        if os.path.lexists(PINS) and os.lstat(PINS).st_uid == 0:
            raise AssertionError("after off there is something of root's")


def run(count: int, seed: int, chosen: Sequence[str] = ()) -> int:
    rng = random.Random(seed)
    bpffs()
    (BPFFS / "roots").mkdir(0o700)
    bpf = libbpf()
    fd = bpf.create_array("of_another", 8, 1)
    bpf.pin(fd, f"{BPFFS}/roots/pin")
    os.close(fd)
    logging.getLogger("pageowner").addHandler(logging.NullHandler())
    place = Path(tempfile.mkdtemp(prefix="pageowner-races-"))
    races = Races(place, rng, chosen)
    theirs = (BPFFS / "roots").stat().st_ino
    before = state(races.victim)
    attackers = Attackers(races.shared, races.victim, seed)
    began = time.monotonic()
    try:
        for number in range(1, count + 1):
            races.race()
            if state(races.victim) != before:
                raise AssertionError("a file of root's was changed")
            if ((BPFFS / "roots").stat().st_ino != theirs
                    or os.listdir(BPFFS / "roots") != ["pin"]):
                raise AssertionError("pins of another tool were changed")
            if number % EVERY == 0:
                attackers.pause()
                races.mends()
                attackers.go_on()
    except BaseException as error:
        print(f"race {number} of seed {seed}: {error!r}", file=sys.stderr)
        raise
    finally:
        attackers.stop()
        control.off()
    if left := ours():
        raise AssertionError(f"left: {left}")
    shutil.rmtree(place, ignore_errors=True)
    took = time.monotonic() - began
    print(f"{count} races of seed {seed} in {took:.0f} s: no file of root's changed, each of"
          f" {count // EVERY + 1} later runs of off left nothing")
    for verb, number in races.done.most_common():
        print(f"  {verb}: {number}, {races.refused[verb]} of them refused")
    return 0


def apart() -> None:
    """Leave the machine's mount namespace, whose bpffs is none of a test's. Raises OSError."""
    for failed in (_libc.unshare(_NEW_MOUNTS),
                   _libc.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None)):
        if failed:
            raise OSError(ctypes.get_errno(), "no mount namespace of its own")


if __name__ == "__main__":
    apart()
    sys.exit(run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else
                 random.randrange(1 << 30), sys.argv[3:]))
