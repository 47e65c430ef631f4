"""Captures again and again: ``pageowner record``."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pageowner.analysis.filters import duration_ns
from pageowner.errors import PageownerError, UsageError
from pageowner.sources import of_objects
from pageowner.sources import source as sources
from pageowner.storage import witnessed
from pageowner.storage.recording import Recorder, owned_folder
from pageowner.system.this_machine import here_and_now
from pageowner.witness import conditions
from pageowner.witness.starting import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.model.snapshot import Snapshot

__all__ = ["Recorded", "record"]

_FIRST_FORGET_S = 600.0


@dataclass(frozen=True)
class Recorded:
    """One capture: ``path`` is its file, or None if it failed, and then ``lost`` is the reason.
    ``stays``: why old captures could not be removed, else empty."""

    path: Path | None
    lost: str = ""
    stays: str = ""


def record(folder: str | os.PathLike[str], *, every: str = "10m", keep: str = "7d",
           count: int | None = None,
           source: str | os.PathLike[str] | None = None, on: str = "", objects: bool = False,
           told: Callable[[str], None] = lambda text: None) -> Iterator[Recorded]:
    """Capture this machine into a directory every ``every``, and remove captures older than
    ``keep``.

    ``source``: a file of this machine's kernel to capture instead, such as /proc/allocinfo or the
    directory /sys/kernel/debug/page_owner_stacks. ``objects``: capture the tracked objects in slabs
    instead of pages. ``on``: events to capture when they happen, such as ``oom,psi,low=5%``
    (`pageowner.witness.conditions`); a separate process watches for them. ``told`` is called with a
    sentence about each event, from another thread.

    This is a generator: each step waits for the next capture and yields it. It ends after ``count``
    captures, or never if ``count`` is None.

    Raises UsageError for times out of range and unknown events. The first step raises
    PageownerError if another process records into this directory, if another user could change its
    contents, if the capture fails, or if events cannot be watched for. If a later capture fails, it
    is yielded with the reason.
    """
    step, kept = duration_ns(every) / 1e9, duration_ns(keep) / 1e9
    if step < 1 or kept < step:
        raise UsageError("--every must be a second at least, and --keep no shorter than --every")
    if on:
        conditions.parse(on)
    return _captures(Path(folder), step, kept, count, _Source(source, objects), on, told)


def _forget(recorder: Recorder, events: int | None) -> str:
    """Remove what is old, also of events in an open folder, which the process that watches for them
    does where there is one, since it writes their log; why something stays."""
    stays = ""
    for remove in (recorder.forget, *(
            () if events is None else (lambda: witnessed.forget(events, recorder.oldest()),))):
        try:
            remove()
        except (PageownerError, OSError) as error:
            stays = stays or str(error)
    return stays


class _Source(NamedTuple):
    """What is captured: a file, else this machine's pages or objects."""

    file: str | os.PathLike[str] | None
    objects: bool


def _captured(source: _Source) -> Snapshot:
    with of_objects.asking(source.objects):
        found = sources.read() if source.file is None else sources.read(source.file)
    for name, value in here_and_now().items():  # the kernel's own page owner does not say
        if getattr(found.meta, name) is None:
            setattr(found.meta, name, value)
    return found


def _captures(folder: Path, step: float, kept: float, count: int | None,
              source: _Source, on: str, told: Callable[[str], None]) -> Iterator[Recorded]:
    with ExitStack() as stack:
        handle = stack.enter_context(owned_folder(folder))
        recorder = Recorder(folder, step, kept, handle)
        number, due = 0, time.monotonic()
        # At boot a clock may be wrong until the network is there: nothing is old by it so soon.
        believed = due + (_FIRST_FORGET_S if count is None else 0)
        while True:
            path, lost, stays = None, "", ""
            try:
                path = recorder.add(_captured(source))
            except (PageownerError, OSError, MemoryError) as error:
                # OSError: tracking was turned off and on while it was read
                if number == 0:
                    raise  # wrong from the beginning: tracking is off, or the folder is not ours
                lost = str(error) or "out of memory"
            if on and number == 0:
                stack.enter_context(Watching(on, handle, kept, None if source.file is None else
                                             os.path.abspath(source.file), told))
            if time.monotonic() >= believed:
                stays = _forget(recorder, None if on else handle)
            yield Recorded(path, lost, stays)
            number += 1
            if count is not None and number >= count:
                return
            due = max(due + step, time.monotonic() - step)
            # In a process that ends before its second capture, too, as one of a few hours a day.
            if number == 1 and due > believed > time.monotonic():
                time.sleep(believed - time.monotonic())
                _forget(recorder, None if on else handle)
            time.sleep(max(due - time.monotonic(), 0))
