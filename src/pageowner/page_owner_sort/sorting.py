"""What page_owner_sort does, as a call: ``pageowner.sort``."""

from __future__ import annotations

import os

from pageowner.page_owner_sort.options import Options, options_of

# Type checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.page_owner_sort.counting import Tally

__all__ = ["run", "sort"]


def sort(source: str | os.PathLike[str], output: str | os.PathLike[str], by: str = "times", *,
         cull: str | Iterable[str] = (), pid: Iterable[int] = (), tgid: Iterable[int] = (),
         name: Iterable[str] = (), module: Iterable[str] = (), released: bool = True) -> int:
    """Write the records of a dump sorted, equal ones once with their number, as the kernel's
    page_owner_sort does; returns how many were written.

    ``source``: a dump, plain or compressed, or ``"-"`` for standard input; ``output``: a file,
    written completely or not at all, or ``"-"``. ``by``: ``times``, ``pages`` (most first), or keys
    in the form of the tool's ``--sort`` (``"-alloc_ts,name"``). ``cull``: the keys by which records
    are grouped. ``pid``, ``tgid``, ``name``, ``module``: keep only records of these; empty keeps
    all. ``released``: whether to keep records of memory that was freed.

    Raises PageownerError for an unknown key, or a file that cannot be read or written.
    """
    options = options_of(by, cull if isinstance(cull, str) else ",".join(cull))
    options.source, options.output = os.fspath(source), os.fspath(output)
    options.pids = frozenset(pid) or None
    options.tgids = frozenset(tgid) or None
    options.names = frozenset(map(os.fsencode, name)) or None
    options.modules = frozenset(map(os.fsencode, module)) or None
    options.released = released
    return run(options)[1]


def run(options: Options) -> tuple[Tally, int]:
    """Do what was asked for; what was counted, and how many records were written.

    Raises PageownerError for a file that cannot be read or written.
    """
    from pageowner.page_owner_sort import groups, output, reading

    tally = reading.count(options)
    return tally, output.write(groups.arrange(tally, options), options)
