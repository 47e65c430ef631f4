"""Counting the parts of one file in several processes, forked so that they cost no start-up.

Not concurrent.futures, whose import takes 28 ms: longer than this command does.
"""

from __future__ import annotations

import os
import sys

from pageowner.errors import PageownerError
from pageowner.page_owner_sort.blocks import UNKNOWN
from pageowner.page_owner_sort.counting import Tally
from pageowner.page_owner_sort.parts import add_part, boundary
from pageowner.system.child_process import end_with

__all__ = ["count"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageowner.page_owner_sort.options import Options

_PART = 48 << 20
"""Bytes of text that are worth a process: about 0.1 s of work and five times its memory."""

_MOST = 8


def count(options: Options, fd: int, size: int) -> Tally:
    """The tally of a whole file. Raises PageownerError if a worker dies."""
    parts = max(1, min(size // _PART, _processors(), _MOST))
    starts = [0]
    for number in range(1, parts):
        start = boundary(fd, max(size * number // parts, starts[-1]), size)
        if start > starts[-1]:
            starts.append(start)
    if starts[-1] == size and len(starts) > 1:
        starts.pop()
    ends = [*starts[1:], size]
    helpers = []
    try:
        for start, end in zip(starts[1:], ends[1:], strict=True):
            helpers.append(_Helper(options, fd, start, end, last=end == size))
        tally = Tally(options)
        add_part(tally, fd, 0, ends[0], last=len(ends) == 1)
        for helper in helpers:
            tally.merge(helper.result())
    finally:
        for helper in helpers:
            helper.stop()
    return tally


class _Helper:
    """A child process that counts one part."""

    def __init__(self, options: Options, fd: int, start: int, end: int, *, last: bool) -> None:
        self._pipe, write = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                end_with(parent)
                os.close(self._pipe)
                _work(options, fd, start, end, write, last=last)
                status = 0
            finally:
                # not sys.exit(): nothing of the parent's must run here, whatever was raised
                os._exit(status)
        os.close(write)

    def result(self) -> tuple[object, ...]:
        """What `Tally.state` gave there."""
        import marshal

        with os.fdopen(self._pipe, "rb") as pipe:
            self._pipe = -1
            data = pipe.read()
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        if status != 0:
            raise PageownerError("a worker process died; is memory short?")
        state: tuple[object, ...] = marshal.loads(data)
        return state

    def stop(self) -> None:
        """End it if it still works: something else went wrong."""
        if self._pid:
            import signal

            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def _work(options: Options, fd: int, start: int, end: int, write: int, *, last: bool) -> None:
    import marshal

    tally = Tally(options, bits=UNKNOWN)
    add_part(tally, fd, start, end, last=last)
    with os.fdopen(write, "wb") as pipe:
        marshal.dump(tally.state(), pipe)


def _processors() -> int:
    # a process with other threads must not fork: a lock that one of them holds stays locked
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        return 1
    return len(os.sched_getaffinity(0))
