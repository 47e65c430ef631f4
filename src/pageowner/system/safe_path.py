"""Paths in which others may have a hand, looked up name by name.

Each name is looked up in the folder that was opened before, and a link is read instead of left to
the kernel: so what was looked at is what is used, whatever others rename meanwhile. Imports little,
since page_owner_sort must start fast.
"""

from __future__ import annotations

import errno
import os
import stat

# Type checkers take this name for true. Importing typing would be a third of the start-up time of
# page_owner_sort.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["Found", "find", "is_shared", "owner", "why_not_own"]

_MOST_LINKS = 40  # as in a walk of the kernel's (MAXSYMLINKS, include/linux/namei.h)


class Found:
    """Where a path leads: ``name`` in the open folder ``folder`` (O_PATH), with ``status`` as
    lstat() gave it, None if nothing is there.

    ``status`` tells of no link but one that leads to what has no name (/proc/PID/fd/N of a pipe):
    ``opened`` is then what is behind it (O_PATH), and ``status`` tells of that. A path that ends
    in a folder has the name ``.`` in it. Close it, or use ``with``.
    """

    __slots__ = ("folder", "name", "opened", "status")

    def __init__(self, folder: int, name: str, status: os.stat_result | None,
                 opened: int | None = None) -> None:
        self.folder, self.name, self.status, self.opened = folder, name, status, opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the descriptors."""
        os.close(self.folder)
        if self.opened is not None:
            os.close(self.opened)

    def open(self) -> int:
        """A new descriptor (O_PATH) of what is there, which no link is."""
        if self.opened is not None:
            return os.dup(self.opened)
        return os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)


def find(path: str, folder: Callable[[str, int], None] | None = None,
         link: Callable[[str, os.stat_result, os.stat_result], None] | None = None) -> Found:
    """Follow a path to its end, links included.

    ``folder`` is called with each folder that is passed, the last one too: its path as far as it
    was walked, and a descriptor (O_PATH). ``link`` is called before each link is followed: its
    path, and what stat() says of it and of the folder that it lies in. Either may raise. Raises
    OSError, as the kernel would, also for a folder in between that is not there.
    """
    walk = _Walk(path)
    try:
        while True:
            if folder is not None:
                folder(walk.shown, walk.at)
            found = walk.step(link)
            if found is not None:
                return found
    except BaseException:
        os.close(walk.at)
        raise


class _Walk:
    """Where a walk has come to: the open folder ``at``, its path ``shown``, and the names that are
    left."""

    def __init__(self, path: str) -> None:
        if not path:
            raise _error(errno.ENOENT, path)
        self.path, self.links = path, 0
        self.must_be_folder = path.endswith("/")
        self.todo: list[str] = []
        self.at = -1
        self._add(path)

    def _add(self, path: str) -> None:
        if path.startswith("/") or self.at < 0:
            self._go(os.open("/" if path.startswith("/") else ".",
                             os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
                     "/" if path.startswith("/") else ".")
        self.todo += [name for name in path.split("/")[::-1] if name not in ("", ".")]

    def _go(self, folder: int, shown: str) -> None:
        if self.at >= 0:
            os.close(self.at)
        self.at, self.shown = folder, shown

    def step(self, link: Callable[[str, os.stat_result, os.stat_result], None] | None,
             ) -> Found | None:
        """Take the next name; what was found if it is the end."""
        if not self.todo:
            return Found(self.at, ".", os.stat(self.at))
        name = self.todo.pop()
        here = name if self.shown == "." else os.path.join(self.shown, name)
        last = not self.todo
        try:
            status = os.stat(name, dir_fd=self.at, follow_symlinks=False)
        except FileNotFoundError:
            if last and not self.must_be_folder:
                return Found(self.at, name, None)
            raise
        if stat.S_ISLNK(status.st_mode):
            self.links += 1
            if self.links > _MOST_LINKS:
                raise _error(errno.ELOOP, self.path)
            text = _read_link(name, self.at, here, link)
            if text is None:
                return self._behind(name, here, last)
            self._add(text)
            return None
        if stat.S_ISDIR(status.st_mode):
            self._go(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                             dir_fd=self.at), here)
            return None
        if not last or self.must_be_folder:
            raise _error(errno.ENOTDIR, self.path)
        return Found(self.at, name, status)

    def _behind(self, name: str, here: str, last: bool) -> Found | None:
        """Follow a link as only the kernel can."""
        opened = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.at)
        status = os.stat(opened)
        if stat.S_ISDIR(status.st_mode):
            self._go(opened, here)
            return None
        if not last:
            os.close(opened)
            raise _error(errno.ENOTDIR, self.path)
        return Found(self.at, name, status, opened)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _read_link(name: str, at: int, shown: str,
               check: Callable[[str, os.stat_result, os.stat_result], None] | None) -> str | None:
    """The text of a link, checked; None if only the kernel knows where it leads, as of those in
    /proc."""
    opened = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        status = os.stat(opened)
        if check is not None:
            check(shown, status, os.stat(at))
        if status.st_dev == _proc():
            return None
        return os.readlink("", dir_fd=opened)
    finally:
        os.close(opened)


def _proc() -> int | None:
    """The device of /proc, whose links may lead to what has no name."""
    try:
        return os.lstat("/proc/self").st_dev
    except OSError:
        return None


def is_shared(folder: os.stat_result) -> bool:
    """Whether others may put names of theirs into a folder: all users, or in a sticky one its
    group (as for fs.protected_regular, Documentation/admin-guide/sysctl/fs.rst)."""
    return bool(folder.st_mode & stat.S_IWOTH
                or (folder.st_mode & stat.S_IWGRP and folder.st_mode & stat.S_ISVTX))


def why_not_own(folder: int, sticky: bool = True) -> str:
    """Why what lies in a folder (a descriptor) is not this process's user's and root's alone to
    change, in words; nothing if it is.

    With ``sticky`` a folder will do where others may add names, but not rename or remove those that
    are not theirs. A group is others, but for root's group, and for a user's own one in a folder of
    the user's.
    """
    status, user = os.stat(folder), os.geteuid()
    if status.st_uid not in (0, user):
        return f"belongs to {owner(status.st_uid)}"
    own_group = (status.st_gid == os.getegid() and status.st_uid == user
                 if user else status.st_gid == 0)
    group = status.st_mode & stat.S_IWGRP and not (own_group and not _has_list(folder))
    if ((group or status.st_mode & stat.S_IWOTH)
            and not (sticky and status.st_mode & stat.S_ISVTX)):
        return f"is writable by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _has_list(folder: int) -> bool:
    """Whether an access control list says more than the mode does (acl(5))."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{folder}", "system.posix_acl_access"))
    except OSError:
        return False


def owner(uid: int) -> str:
    """``alice (uid 1000)``, or only the uid where it has no name."""
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (KeyError, OSError):
        return f"uid {uid}"
