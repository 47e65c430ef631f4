"""Where every output goes: a file is written whole or not at all.

The bytes go to a temporary file beside the target, reach the disk, and take the target's name in
one step; on any failure, Ctrl-C included, nothing is left and an older file stays as it was.

In a folder that others may write to, such as /tmp, somebody may have laid a link, a FIFO or a file
under the name that is to be written. There they are treated as the kernel treats them with
fs.protected_symlinks = 1, fs.protected_fifos = 2 and fs.protected_regular = 2
(Documentation/admin-guide/sysctl/fs.rst), whatever these are set to, and links also in the middle
of a path. Imports little, since page_owner_sort must start fast.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress

from pageowner.errors import PageownerError
from pageowner.system.safe_path import Found, find, is_shared, owner

# Type checkers take this name for true. Importing typing would be a third of the start-up time of
# page_owner_sort.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["TEMPORARY", "output", "whole_file"]

TEMPORARY = ".pageowner."
"""What the name of a temporary file begins with; the name of its target follows, and a word."""

_LONGEST = 100  # bytes of that: a name has 255 bytes at most


@contextmanager
def whole_file(path: str | os.PathLike[str], folder: int | None = None) -> Iterator[BinaryIO]:
    """A binary stream that becomes ``path``, mode 0600, when the block ends well.

    ``folder`` is the open folder that the file lies in, if the caller keeps one: then only the last
    name of ``path`` is looked up, and no link is followed. Raises PageownerError, naming the file,
    if it cannot be written, or is another user's in a folder that others may write to.
    """
    name = os.fspath(path)
    try:
        with output(name, sync=True, folder=folder) as file:
            yield file
    except IsADirectoryError as error:
        raise PageownerError(f"{name}: is a directory; name a file to write") from error
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        raise PageownerError(f"{name}: cannot write: {error.strerror}") from error


@contextmanager
def output(path: str, sync: bool = False, keeps_mode: bool = False,
           folder: int | None = None) -> Iterator[BinaryIO]:
    """As `whole_file`, but raises OSError if it cannot be written, IsADirectoryError for a folder.

    What is no regular file (a pipe, /dev/stdout) is written directly. With ``sync`` the bytes have
    reached the disk before the file has its name. With ``keeps_mode`` it has the mode of the file
    that it replaces, a new one what the umask leaves.
    """
    with _found(path, folder) as found:
        status = found.status
        if status is None:
            pass
        elif stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        elif found.opened is not None or not stat.S_ISREG(status.st_mode):
            _check(path, found)
            with open(_opened(found, status, path), "wb") as file:
                yield file
            return
        _check(path, found)
        mode = 0o600 if not keeps_mode else 0o666 if status is None else None
        target = os.fsencode(found.name)[:_LONGEST]
        temporary = f"{TEMPORARY}{os.fsdecode(target)}.{os.urandom(6).hex()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                         0o600 if mode is None else mode, dir_fd=found.folder)
        try:
            with open(handle, "wb") as file:
                if status is not None and mode is None:
                    # without set-user-id and the like: what is written is nobody's program
                    os.fchmod(handle, status.st_mode & 0o777)
                yield file
                file.flush()
                if sync:
                    os.fsync(handle)
                written = os.fstat(handle)
            found.status = _status(found)
            _check(path, found)
            os.rename(temporary, found.name, src_dir_fd=found.folder, dst_dir_fd=found.folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=found.folder)
            raise
        found.status = _status(found)
        if found.status is None or not os.path.samestat(found.status, written):
            raise PageownerError(f"{path}: somebody else removed or replaced it at once; write to a"
                                 " folder of your own")
        if sync:
            _sync_folder(found.folder)


def _found(path: str, folder: int | None) -> Found:
    if folder is None:
        return find(path, link=_check_link)
    found = Found(os.dup(folder), os.path.basename(path), None)
    found.status = _status(found)
    return found


def _status(found: Found) -> os.stat_result | None:
    try:
        return os.stat(found.name, dir_fd=found.folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _check_link(shown: str, link: os.stat_result, folder: os.stat_result) -> None:
    """As may_follow_link() in fs/namei.c, but for every folder that all may write to."""
    if is_shared(folder) and link.st_uid not in (os.geteuid(), folder.st_uid):
        raise PageownerError(
            f"{shown}: refusing to follow a symbolic link of {owner(link.st_uid)} in a directory"
            " that others can write to; use a directory of your own")


def _check(path: str, found: Found) -> None:
    """As may_create_in_sticky() in fs/namei.c, but for every folder that all may write to; and no
    second name of a file, which another may have given it (fs.protected_hardlinks)."""
    status = found.status
    if status is None or found.opened is not None:
        return
    folder = os.stat(found.folder)
    if not is_shared(folder):
        return
    if status.st_uid not in (os.geteuid(), folder.st_uid):
        raise PageownerError(
            f"{path}: refusing to overwrite a file of {owner(status.st_uid)} in a directory that"
            " others can write to; use a directory of your own")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise PageownerError(
            f"{path}: refusing to overwrite a file with {status.st_nlink} hard links in a directory"
            " that others can write to; remove it first, or use a directory of your own")


def _opened(found: Found, status: os.stat_result, path: str) -> int:
    """A descriptor to write to what is no regular file."""
    if found.opened is None:
        handle = os.open(found.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC,
                         dir_fd=found.folder)
        if not os.path.samestat(os.fstat(handle), status):
            os.close(handle)
            raise PageownerError(f"{path}: was replaced while it was being opened; use a directory"
                                 " of your own")
        return handle
    if found.name.isdigit():
        # /dev/stdout and the like: what is open already, which may be a socket, or appended to
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(found.name)), status):
                return os.dup(int(found.name))
    return os.open(f"/proc/self/fd/{found.opened}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


def _sync_folder(folder: int) -> None:
    try:
        handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:
        return  # may be written to and not read
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
