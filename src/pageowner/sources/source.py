"""SOURCE, the same for every verb: what it names, and how it becomes a snapshot.

A path or ``-``: a dump of the kernel's page owner, a text of groups (`pageowner.sources.groups`)
or a saved snapshot, told apart by their first bytes. A folder of captures: the newest, or that of a
`Moment`. Nothing: this machine's own state.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from pageowner.errors import PageownerError
from pageowner.model.source_kinds import PARQUET
from pageowner.sources import live_users, of_objects, readahead, vmcore
from pageowner.sources.given import with_system_map, with_vmlinux
from pageowner.sources.opening import Opened, open_source, reading

if TYPE_CHECKING:
    from pageowner.model.counts import Counted
    from pageowner.model.snapshot import Snapshot

__all__ = ["KERNEL_PAGE_OWNER", "TRACKER", "Moment", "count", "is_tracking", "read", "read_opened"]

Found = TypeVar("Found", "Counted", "Snapshot", "Counted | Snapshot")

KERNEL_PAGE_OWNER = "/sys/kernel/debug/page_owner"
TRACKER = "/sys/fs/bpf/pageowner"
"""There, and root's, exactly while tracking is on (tracker/control.py)."""


class Moment(str):
    """A directory of captures (see `pageowner.storage.series`) and a time ``at``, in seconds since
    1970: together they are a source."""

    __slots__ = ("at",)
    at: float

    def __new__(cls, folder: str, at: float) -> Moment:
        made = super().__new__(cls, folder)
        made.at = at
        return made


def read(source: str | os.PathLike[str] | None = None, *,
         page_size: int | None = None,
         system_map: str | os.PathLike[str] | None = None,
         vmlinux: str | os.PathLike[str] | None = None) -> Snapshot:
    """Read the owners of pages from ``source``.

    ``page_size``: the size of a page in a dump, in bytes; by default it is found from the text, or
    else 4096 (``meta.page_size``; ``meta.extra["page_size_from"]`` says how it was found).
    ``system_map``: a System.map or a copy of /proc/kallsyms, which gives names to addresses in
    stacks. ``vmlinux``: the kernel's, with debugging information, of a vmcore: frames have their
    lines of source then, and it takes the place of symbols and types that the vmcore does not have.

    Without a source, this machine is read: the live tracker if it is on, else the kernel's own page
    owner. The latter is read from the kernel's memory if possible, else as text
    (``meta.extra["not_from_memory"]`` says why). Raises PageownerError if the source cannot be read
    or is of an unknown kind, or if page owners are not recorded on this machine.
    """
    from pageowner.sources import page_size as of_pages

    with with_system_map(system_map), with_vmlinux(vmlinux):
        found = _read(source, sums=False)
    of_pages.apply(found.meta, page_size)
    return found


def count(source: str | os.PathLike[str] | None = None) -> Counted | Snapshot:
    """The same, but a dump only as sums by kind of record, which takes half the time."""
    from pageowner.sources import page_size

    found = _read(source, sums=True)
    page_size.apply(found.meta)
    return found


@overload
def _read(source: str | os.PathLike[str] | None, *, sums: Literal[False]) -> Snapshot: ...


@overload
def _read(source: str | os.PathLike[str] | None, *, sums: bool) -> Counted | Snapshot: ...


def _read(source: str | os.PathLike[str] | None, *, sums: bool) -> Counted | Snapshot:
    """A source as a snapshot, or with ``sums`` what takes less time, where there is such."""
    if source is None and of_objects.wanted():
        from pageowner.tracker.read.capture_objects import capture_objects

        return capture_objects()
    if source is None and is_tracking():
        from pageowner.tracker.read.capture import capture

        return capture(users=live_users.wanted())
    if source is None and live_users.alone() and os.geteuid() == 0:
        from pageowner.tracker.users.untracked import untracked

        return untracked()
    if source is not None and not isinstance(source, Moment) and os.path.isdir(source):
        from pageowner.sources import page_owner_stack_lists

        source = page_owner_stack_lists.file_in(source)
    if source is not None and (isinstance(source, Moment) or os.path.isdir(source)):
        return _recorded(source)
    from pageowner.sources import page_owner

    if sums and (begun := readahead.taken(source)):
        with begun[0] as opened:
            return _noted(page_owner.count(*begun), opened)
    if not sums and (begun_whole := readahead.taken_whole(source)):
        with begun_whole[0] as opened:
            return _noted(page_owner.read(*begun_whole), opened)
    if begun_groups := readahead.taken_groups(source):
        with begun_groups[0] as opened:
            return _noted(begun_groups[1](), opened)
    path = _path(source)
    if path == KERNEL_PAGE_OWNER:
        return _kernels_own(path, sums, out_of_memory=source is None)
    with open_source(path) as opened:
        return read_opened(opened, sums=sums)


def _kernels_own(path: str, sums: bool, out_of_memory: bool) -> Counted | Snapshot:
    """The kernel's own page owner: out of its memory, else as text by handle, else as text with
    stacks. Its file, if it is named, is read as text."""
    from pageowner.sources import kernel_page_owner

    why = ""
    if out_of_memory:
        found, why = kernel_page_owner.from_memory(path)
        if found is not None:
            return _of_here(found)
    read_text = (kernel_page_owner.count if sums else kernel_page_owner.read)(path)
    if read_text is None:
        with open_source(path) as opened:
            read_text = read_opened(opened, sums=sums)
    if why:
        read_text.meta.extra["not_from_memory"] = why
    return _of_here(read_text)


def _of_here(found: Found) -> Found:
    """What is of this machine, marked as that, and with what its containers are called."""
    from pageowner.model.counts import Counted
    from pageowner.system.container_names import container_names

    found.meta.read_here = True
    paths = (found.columns.get("memcg") or () if isinstance(found, Counted) else
             found.table["memcg"].unique().to_pylist())
    if names := container_names(dict.fromkeys(paths)):
        found.meta.extra["containers"] = names
    return found


@overload
def read_opened(opened: Opened, *, sums: Literal[False] = False) -> Snapshot: ...


@overload
def read_opened(opened: Opened, *, sums: bool) -> Counted | Snapshot: ...


def read_opened(opened: Opened, *, sums: bool = False) -> Counted | Snapshot:
    """The same of a source that is open already, of whatever kind."""
    if opened.head.startswith(PARQUET):
        return _saved(opened)
    if vmcore.is_vmcore(opened.head):
        return vmcore.read(opened)
    from pageowner.sources import groups, page_owner
    from pageowner.sources.restoring import restored

    text = restored(opened)
    of_dump = page_owner.count if sums else page_owner.read
    return _noted((groups.reader(text) or of_dump)(text), text)


def _noted(found: Found, opened: Opened) -> Found:
    from pageowner.sources.restoring import note

    note(found.meta, opened)
    return found


def is_tracking() -> bool:
    """As control.is_on(), without importing it."""
    try:
        status = os.lstat(TRACKER)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0


def _recorded(folder: str | os.PathLike[str]) -> Snapshot:
    from pathlib import Path

    from pageowner.storage import series

    if not os.path.isdir(folder):
        raise PageownerError(f"{os.fspath(folder)}: is not a directory; a time selects a capture"
                             " in a directory of 'pageowner record'")
    return series.at(Path(folder), folder.at if isinstance(folder, Moment) else None)


def _path(source: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    if source is not None:
        return source
    if os.path.exists(KERNEL_PAGE_OWNER):
        return KERNEL_PAGE_OWNER
    if os.geteuid() != 0:
        # bpffs and debugfs are closed to others, who cannot even see whether there is something
        raise PageownerError(
            "reading this machine's page owners needs root: use sudo, or name a dump or a"
            " snapshot")
    raise PageownerError(
        "page ownership is not being tracked on this machine: start tracking with 'sudo pageowner"
        " on', or name a dump or a snapshot; to see what uses the pages now: pageowner report --by"
        " user")


def _saved(opened: Opened) -> Snapshot:
    from pageowner.storage import parquet

    if opened.size is not None:
        return parquet.read(opened.name)
    import pyarrow as pa

    with reading(opened.name):
        whole = opened.stream.read()
    return parquet.read(pa.BufferReader(whole), opened.name)
