"""Scenes with another user in a bpffs that all may write to: ``scenes.py NAME``, as root.

In a mount namespace of its own. Exits with 0 if nothing of root's came to harm.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stage import BPFFS, NOBODY, PINS, as_another, bpffs, ours, pageowner, state, victims

from pageowner.tracker import control
from pageowner.tracker.load import requirements
from pageowner.tracker.load.libbpf import libbpf

NAMES = ("pageowner-new", "pageowner-old", "pageowner")
_TEMPORARY = tempfile.TemporaryDirectory(prefix="pageowner-scene-", ignore_cleanup_errors=True)
TEMPORARY = Path(_TEMPORARY.name)


def _round(victim: Path) -> None:
    """On and off, whatever lies there; nothing of it touches the victim, and nothing stays."""
    before = state(victim)
    for verb in ("off", "on", "off"):
        status, said = pageowner(verb)
        assert status == 0, said
        assert "Traceback" not in said
        assert all(line.startswith("pageowner: ") and " /sys/fs/bpf/pageowner" in line
                   for line in said.splitlines()), said
        assert state(victim) == before, f"{verb} changed what is root's"
        assert bool(ours()) == (verb == "on")


def links() -> None:
    """What was found in use: every file of the folder that the link leads to was removed."""
    bpffs()
    victim = victims(TEMPORARY)
    for name in NAMES:
        as_another(lambda name=name: (BPFFS / name).symlink_to(victim))
        _round(victim)
        (BPFFS / name).unlink(missing_ok=True)
    for name in NAMES:
        as_another(lambda name=name: (BPFFS / name).symlink_to(victim))
    _round(victim)


def folders() -> None:
    """A folder with something in it made `on` and `off` fail for ever."""
    bpffs()
    victim = victims(TEMPORARY)
    for name in NAMES:
        as_another(lambda name=name: (BPFFS / name / "x" / "y").mkdir(parents=True))
    _round(victim)
    for name in NAMES:
        as_another(lambda name=name: (BPFFS / name).mkdir(exist_ok=True))
    _round(victim)


def mounts() -> None:
    """A mount on such a folder, as a helper that is set-user-id makes them."""
    bpffs()
    victim = victims(TEMPORARY)
    for name in NAMES:
        as_another(lambda name=name: (BPFFS / name).mkdir())
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0777,uid={NOBODY}", "x", BPFFS / name],
                       check=True)
        (BPFFS / name / "kept").write_text("x")
    _round(victim)


def lies() -> None:
    """A folder of another user's under the tracker's name is no tracker."""
    bpffs()
    as_another(PINS.mkdir)
    fd = libbpf().create_array("config", 16384, 1)
    libbpf().update(fd, bytes(4), b'{"span_shift": 16, "depth": 16}'.ljust(16384, b"\0"))
    libbpf().pin(fd, f"{PINS}/config")
    os.chown(f"{PINS}/config", NOBODY, NOBODY)
    assert not control.is_on()
    assert not control.status().on
    status, said = pageowner("report")
    assert status == 1
    assert said.count("\n") == 1, said
    assert not said.startswith("Traceback")
    status, said = pageowner("who", "0x100")
    assert status == 1
    assert said.count("\n") == 1, said


def privately() -> None:
    """What we mount ourselves is root's alone."""
    bpffs()
    subprocess.run(["umount", BPFFS], check=True)
    assert not requirements.is_mounted()
    assert requirements.mount_bpffs()
    assert BPFFS.stat().st_mode & 0o777 == 0o700
    options = next(line.split()[3] for line in Path("/proc/mounts").read_text().splitlines()
                   if line.split()[1] == str(BPFFS))
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))


def hidden() -> None:
    """Another file system over bpffs is none, though the list of mounts names both."""
    bpffs()
    subprocess.run(["mount", "-t", "tmpfs", "x", BPFFS], check=True)
    assert not requirements.is_mounted()


def not_sticky() -> None:
    """Where others may rename what is root's, nothing is begun and nothing removed."""
    bpffs()
    BPFFS.chmod(0o777)
    theirs = BPFFS / "pageowner-new"
    theirs.mkdir(0o700)  # another tool's, renamed
    fd = libbpf().create_array("other", 8, 1)
    libbpf().pin(fd, f"{theirs}/other")
    for verb in ("on", "off"):
        status, said = pageowner(verb)
        assert (status, said.count("\n")) == (1, 1), said
        assert "chmod 1777 /sys/fs/bpf" in said
        assert os.listdir(theirs) == ["other"]
    BPFFS.chmod(0o1777)
    (theirs / "other").rename(BPFFS / "other")
    assert pageowner("off").status == 0


def owned() -> None:
    """The owner of a sticky folder may rename and remove what is in it."""
    bpffs()
    os.chown(BPFFS, NOBODY, NOBODY)
    for verb in ("on", "off"):
        status, said = pageowner(verb)
        assert (status, said.count("\n")) == (1, 1), said
        assert "chown root /sys/fs/bpf" in said


def locked() -> None:
    """A lock that any user may hold would keep root waiting."""
    bpffs()
    with subprocess.Popen(["flock", BPFFS, "sh", "-c", "echo held; sleep 100"], user=NOBODY,
                          group=NOBODY, extra_groups=[], stdout=subprocess.PIPE,
                          start_new_session=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        began = time.monotonic()
        try:
            status, said = pageowner("off")
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
    assert (status, said) == (0, "")
    assert time.monotonic() - began < 30


def not_a_pin() -> None:
    """What is no pin in a folder of ours is not removed, and named."""
    bpffs()
    folder = BPFFS / "pageowner-old"
    (folder / "notes").mkdir(parents=True)
    folder.chmod(0o700)
    fd = libbpf().create_array("config", 8, 1)
    libbpf().pin(fd, f"{folder}/config")
    status, said = pageowner("off")
    assert (status, said.count("\n")) == (1, 1), said
    assert "'notes'" in said
    assert os.listdir(folder) == ["notes"]
    (folder / "notes").rmdir()
    assert pageowner("off") == (0, "")
    assert ours() == []


def another_tools() -> None:
    """What another tool of root's pinned under our name stays."""
    bpffs()
    libbpf().pin(libbpf().create_array("other", 8, 1), f"{PINS}")
    for verb in ("on", "off"):
        status, said = pageowner(verb)
        assert (status, said.count("\n")) == (1, 1), said
        assert f"{PINS} belongs to root and is in the way" in said
        assert PINS.is_file()
    assert ours() == [PINS.name]


SCENES = {act.__name__: act for act in (
    links, folders, mounts, lies, privately, hidden, not_sticky, owned, locked, not_a_pin,
    another_tools)}

if __name__ == "__main__":
    SCENES[sys.argv[1]]()
