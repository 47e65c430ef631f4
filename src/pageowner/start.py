"""Where the commands begin: Ctrl-C ends them without a word from the first line of ours on.

What is imported takes a tenth of a second, and Python says of an interrupt in there where it was.
Until `pageowner.cli.main` or `pageowner.page_owner_sort.command.main` is at work, which clears up
before it ends, an interrupt ends the process at once: there is nothing to clear up yet. The
commands (bin/) begin with that, before anything of the package is imported.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself loads enum, which takes longer
import os
import sys

# At import, numpy's library for matrices starts a thread for each CPU, which spins for a while
# before it sleeps: as much CPU time as half of a command's start. Nothing here needs these threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Type checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["at_work", "page_owner_sort", "pageowner"]


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    """An interrupt as an exception, but not inside an import, where it may be lost or told of by
    Python: there it comes again a little later."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _signal.setitimer(_signal.ITIMER_REAL, 0.01)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


_ends = _signal.getsignal(_signal.SIGINT) not in (_signal.SIG_IGN, None)
"""Whether an interrupt ends this process: a shell may have it ignore them."""
if _ends:
    _signal.signal(_signal.SIGINT, _end)


def at_work(works: bool) -> None:
    """From now on there is something to clear up, or no longer."""
    if _ends:
        if not works:  # Python would leave the alarm to the kernel, which ends the process by it
            _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, _raise if works else _end)
        _signal.signal(_signal.SIGINT, _raise if works else _end)


def pageowner() -> int:
    """The command ``pageowner``; the exit status."""
    from pageowner.cli import main

    try:
        return main()
    except KeyboardInterrupt:  # while an error was told
        return 128 + 2


def page_owner_sort() -> int:
    """The command ``page_owner_sort``; the exit status."""
    from pageowner.page_owner_sort.command import main

    return main()


if __name__ == "__main__":
    sys.exit(pageowner())
