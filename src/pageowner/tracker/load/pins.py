"""The folders of pins in bpffs, where other users may have a hand in.

A bpffs that was mounted without a mode is as /tmp is: all users may make folders, links and pins in
it, and nobody may rename or remove what is another's. So every name is looked up in the open root
of bpffs, no link is followed and no mount entered (openat2(2)), and what belongs to another user is
no folder of ours, whatever its name. Inside a folder of ours, mode 0700, only root can be at work.

What another user put under our name does not keep tracking from beginning or ending: a link, an
empty folder or a pin is removed, a folder with something in it is moved aside, a mount on it is
detached. Each is said by the logger ``pageowner``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.system.safe_path import owner
from pageowner.system.strict_open import open_strictly

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BPFFS", "PIN_DIRECTORY", "check_root", "clean", "is_bpffs", "is_ours", "left",
           "lock", "make", "open_folder", "open_root", "place", "put_away"]

BPFFS = "/sys/fs/bpf"
"""Where bpffs is mounted."""

PIN_DIRECTORY = f"{BPFFS}/pageowner"
"""Where all that keeps tracking alive is pinned."""

_NAME = os.path.basename(PIN_DIRECTORY)
_NEW, _OLD = f"{_NAME}-new", f"{_NAME}-old"
_LEFT = re.compile(rf"{_NAME}-(?:new|old)(?:-[0-9a-f]{{8}})?")
_LOCK = "/proc/kpageflags"
"""What only root can open, and so lock, on every machine that can be tracked."""

_LOCK_SECONDS = 60
_PATIENCE = 3
"""Seconds that are waited without a word."""
_TRIES = 1000  # of what another user can bring to nought again and again

_BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h
_UMOUNT = 2 | 8  # MNT_DETACH, UMOUNT_NOFOLLOW (umount(2))

_libc = ctypes.CDLL(None, use_errno=True)


def _warn(message: str, *words: object) -> None:
    import logging

    logging.getLogger("pageowner").warning(message, *words)


def is_bpffs(path: str = BPFFS) -> bool:
    """Whether a bpffs is what one comes to by this path: a mount may lie on another."""
    try:
        handle = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        about = (ctypes.c_long * 32)()  # struct statfs, which begins with f_type
        return (_libc.fstatfs(handle, about) == 0
                and about[0] & 0xFFFFFFFF == _BPF_FS_MAGIC)
    finally:
        os.close(handle)


def is_ours(status: os.stat_result) -> bool:
    """Whether this is a folder of root's that nobody else may write to."""
    return (stat.S_ISDIR(status.st_mode) and status.st_uid == 0
            and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def open_root(place: str = BPFFS) -> int:
    """A descriptor of the root of bpffs. Raises OSError."""
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def check_root(root: int) -> None:
    """Raises PageownerError if others may rename or remove what is root's in bpffs."""
    status = os.fstat(root)
    if status.st_uid != 0:
        raise PageownerError(
            f"{BPFFS} belongs to {owner(status.st_uid)}, who could replace root's tracker with"
            f" another; run: chown root {BPFFS}")
    group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    if (group or status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        raise PageownerError(
            f"other users can rename and remove root's files in {BPFFS}; prevent it: chmod"
            f" {'1777' if status.st_mode & stat.S_IWOTH else '1770'} {BPFFS}")


def open_folder(path: str = PIN_DIRECTORY) -> int:
    """A descriptor of a folder of pins that is root's.

    Raises OSError if there is none or this process may not see it, PageownerError if it is another
    user's.
    """
    parent = os.open(os.path.dirname(path),
                     os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        folder = open_strictly(parent, os.path.basename(path), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
            raise
        raise PageownerError(f"{path} is {_what(parent, path)}, not a directory of pins, so"
                             " tracking is off; start it with: sudo pageowner on") from error
    finally:
        os.close(parent)
    status = os.fstat(folder)
    if not is_ours(status):
        os.close(folder)
        raise PageownerError(
            f"{path} belongs to {owner(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o},"
            " not to root alone, so it is not trusted; start tracking with: sudo pageowner on")
    return folder


@contextmanager
def lock(root: int | None) -> Iterator[None]:
    """Only one process at a time changes the tracker; the lock ends with the process that holds it.

    It is on the root of bpffs (if given) where only root can open that: who may open a file may
    lock it, and keep root waiting. Raises PageownerError after a minute.
    """
    shared = root is None or os.fstat(root).st_mode & 0o077
    name = _LOCK if shared else BPFFS
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        began, said = time.monotonic(), False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - began
                if waited > _PATIENCE and not said:
                    said = True
                    _warn("waiting for another pageowner that changes the tracker, a minute at"
                          " most")
                if waited > _LOCK_SECONDS:
                    raise PageownerError(
                        "another pageowner on or off has been running for a minute; find it with:"
                        f" lsof {name}") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def make(root: int) -> tuple[str, int]:
    """A new folder of pins in bpffs, name and descriptor, that is not tracking yet: `place` it."""
    for name in _names(_NEW):
        try:
            os.mkdir(name, 0o700, dir_fd=root)
        except FileExistsError:
            continue
        folder = open_strictly(root, name, os.O_RDONLY | os.O_DIRECTORY)
        if not is_ours(os.fstat(folder)):  # it cannot be, in a root that was checked
            os.close(folder)
            continue
        return name, folder
    raise PageownerError(f"cannot create a directory in {BPFFS}: other users keep taking its name")


def place(root: int, name: str) -> None:
    """Give a folder made by `make` the name of the one that is tracking."""
    for _ in range(_TRIES):
        try:
            os.rename(name, _NAME, src_dir_fd=root, dst_dir_fd=root)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise
            _displace(root, _NAME)
        else:
            return
    raise _taken()


def put_away(root: int) -> bool:
    """Take the name from the folder that is tracking, for `clean`; whether there was one. What
    another user put under that name is removed, or moved aside."""
    for _ in range(_TRIES):
        if not _is_folder_of_ours(root, _NAME):
            _displace(root, _NAME)
            return False
        for name in _names(_OLD):
            try:
                os.rename(_NAME, name, src_dir_fd=root, dst_dir_fd=root)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                    raise
            else:
                return True
    raise _taken()


def clean(root: int) -> bool:
    """Remove what a killed `on` or `off` left; whether there was anything.

    Raises PageownerError if such a folder holds what is no pin.
    """
    found = False
    for name in left(root):
        found = True
        folder = open_strictly(root, name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not is_ours(os.fstat(folder)):
                continue
            others = _unpin(folder)
        finally:
            os.close(folder)
        if others:
            raise PageownerError(f"{BPFFS}/{name} contains {others[0]!r}, which is not a pin of"
                                 " pageowner; remove it, then: pageowner off")
        os.rmdir(name, dir_fd=root)
    return found


def left(root: int) -> list[str]:
    """Names of what a killed `on` or `off` left in bpffs."""
    return [name for name in sorted(os.listdir(root))
            if _LEFT.fullmatch(name) and _is_folder_of_ours(root, name)]


def _unpin(folder: int) -> list[str]:
    """Remove the pins of a folder; what else is in it."""
    others = []
    # Links first: nothing writes to maps that are going.
    for name in sorted(os.listdir(folder), key=lambda name: not name.startswith("link_")):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_uid == 0:
            os.unlink(name, dir_fd=folder)
        else:
            others.append(name)
    return others


def _is_folder_of_ours(root: int, name: str) -> bool:
    try:
        handle = open_strictly(root, name, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        return is_ours(os.fstat(handle))
    finally:
        os.close(handle)


def _names(first: str) -> Iterator[str]:
    """Names to try: other users may have taken the first, but can foresee no other."""
    yield first
    for _ in range(_TRIES):
        yield f"{first}-{os.urandom(4).hex()}"


def _displace(root: int, name: str) -> None:
    """Free a name in bpffs that another user took. Raises PageownerError if only its owner, or
    who mounted something there, can."""
    path = f"{BPFFS}/{name}"
    for _ in range(_TRIES):
        try:
            handle = open_strictly(root, name, os.O_PATH)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _detach(root, name)
            continue
        try:
            status = os.fstat(handle)
        finally:
            os.close(handle)
        if is_ours(status) or (status.st_uid == 0 and stat.S_ISREG(status.st_mode)):
            # a folder of its own, or a map, program or link that another tool of root's pinned
            raise PageownerError(f"{path} belongs to root and is in the way; check it and"
                                 " remove it")
        whose = owner(status.st_uid)
        try:
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=root)
                _warn("removed %s, which belonged to %s", path, whose)
                continue
            try:
                os.rmdir(name, dir_fd=root)
                _warn("removed %s, an empty directory of %s", path, whose)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                aside = f"{name}-of-uid-{status.st_uid}-{os.urandom(4).hex()}"
                os.rename(name, aside, src_dir_fd=root, dst_dir_fd=root)
                _warn("moved %s, a directory of %s, to %s/%s", path, whose, BPFFS, aside)
        except OSError as error:
            # it has become another meanwhile
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EBUSY,
                                   errno.EPERM):
                raise
    raise _taken()


def _detach(root: int, name: str) -> None:
    """Detach a mount that lies on a name of ours; a bpffs there is somebody's purpose."""
    path = f"{BPFFS}/{name}"
    if is_bpffs(f"/proc/self/fd/{root}/{name}"):
        raise PageownerError(f"a bpffs is mounted on {path}; if that is not intended: umount"
                             f" {path}")
    ctypes.set_errno(0)
    if _libc.umount2(os.fsencode(f"/proc/self/fd/{root}/{name}"), _UMOUNT) == 0:
        _warn("detached a mount from %s", path)
    elif ctypes.get_errno() != errno.EINVAL:  # it is gone, or something else lies there now
        raise PageownerError(f"cannot detach the mount on {path}:"
                             f" {os.strerror(ctypes.get_errno())}; try: umount {path}")


def _what(parent: int, path: str) -> str:
    try:
        status = os.stat(os.path.basename(path), dir_fd=parent, follow_symlinks=False)
    except OSError:
        return "a mount"
    kind = ("a link" if stat.S_ISLNK(status.st_mode) else
            "a mount" if stat.S_ISDIR(status.st_mode) else "a file")
    return f"{kind} of {owner(status.st_uid)}"


def _taken() -> PageownerError:
    return PageownerError(f"another user keeps taking the name {PIN_DIRECTORY}; find out who: ls"
                          f" -l {BPFFS}")
