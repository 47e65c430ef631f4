"""Many machines' owners in one store, and questions about them: ``pageowner fleet``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pageowner.sources.source import read as read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pageowner.errors import PageownerError
    from pageowner.fleet.pushing import Pushed
    from pageowner.model.snapshot import Snapshot

__all__ = ["Fleet"]


class Fleet:
    """A store of many machines' captures: a folder, or a URL such as ``s3://bucket/prefix``."""

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.store = os.fspath(store)

    def push(self, source: str | os.PathLike[str] | None = None, *,
             labels: Mapping[str, str] | None = None, every: str | None = None,
             count: int | None = None, least: str = "64KiB", whole: bool = False,
             all_captures: bool = False, host: str | None = None, kernel: str | None = None,
             taken: float | None = None, spool: str | os.PathLike[str] | None = None,
             spool_limit: str = "256MiB", read: Callable[[str | None], Snapshot] = read_source,
             ) -> Iterator[Pushed | PageownerError]:
        """Send the owners of ``source``: this machine, a snapshot, a dump, or a folder of captures
        (the newest, or with ``all_captures`` each).

        A generator: each step sends one capture. With ``every`` it goes on, ``count`` times or for
        ever, and a capture that fails later than the first is yielded as its error. ``labels``:
        what the machine is to be known by; ``host``, ``kernel`` and ``taken`` (seconds since 1970)
        where the source does not say them. Owners of less than ``least`` are summed in one row;
        ``whole`` sends the snapshot too. What cannot be sent waits in ``spool``, up to
        ``spool_limit``, and is sent with the next. ``read``: how a named source is read.

        Raises UsageError for wrong words, PageownerError if the source cannot be read or says
        neither machine nor time.
        """
        from pageowner.api.fleet_push import push

        return push(self.store, source, labels=labels, every=every, count=count, least=least,
                    whole=whole, all_captures=all_captures, host=host, kernel=kernel, taken=taken,
                    spool=spool, spool_limit=spool_limit, read=read)
