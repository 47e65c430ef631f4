"""What the scenes and races share: a bpffs as plain `mount` makes it, another user, and files of
root's to guard. To be used in a mount namespace of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

BPFFS = Path("/sys/fs/bpf")
PINS = BPFFS / "pageowner"
NOBODY = 65534


class Ended(NamedTuple):
    status: int
    said: str


def pageowner(*words: str | os.PathLike[str], seconds: float = 90) -> Ended:
    """Run a verb; its exit status and stderr."""
    done = subprocess.run([sys.executable, "-m", "pageowner", *words], capture_output=True,
                          text=True, timeout=seconds, check=False)
    return Ended(done.returncode, done.stderr)


def bpffs() -> None:
    """Mount a bpffs of this namespace's own, without a mode as any user's script would."""
    while BPFFS.is_mount():
        subprocess.run(["umount", BPFFS], check=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], check=True)


def as_another(act: Callable[[], object]) -> None:
    """Do something as another user. Raises RuntimeError if that failed."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the other user could not do it")


def victims(place: Path) -> Path:
    """A folder with files of root's."""
    folder = place / "roots"
    (folder / "folder").mkdir(parents=True)
    for name in ("a", "b.parquet", "folder/c", "20200101T000000.000Z.parquet", "config"):
        (folder / name).write_bytes(b"PAR1 of root's: " + name.encode())
    folder.chmod(0o755)
    return folder


def state(folder: Path) -> str:
    """Everything below a folder that a command could have changed."""
    told = hashlib.sha256()
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        told.update(repr((str(path), status.st_mode, status.st_uid, status.st_gid, status.st_nlink,
                          status.st_ino, status.st_mtime_ns)).encode())
        if path.is_file() and not path.is_symlink():
            told.update(path.read_bytes())
    return told.hexdigest()


def ours() -> list[str]:
    """What is left in bpffs that is root's and has a name of pageowner's."""
    return [one.name for one in BPFFS.iterdir()
            if one.name.startswith("pageowner") and one.lstat().st_uid == 0]
