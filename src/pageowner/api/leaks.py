"""Who leaks: ``pageowner leaks``, of this machine or of a series of snapshots."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.analysis.filters import Filter, duration_ns, key_names, size_bytes
from pageowner.analysis.judging import judged, judged_objects, judged_pages
from pageowner.analysis.leak_rules import check_chosen
from pageowner.analysis.leaks import (
    LEAST_SAMPLES,
    Leaks,
    Watch,
    Watched,
    available_pages,
    least_rows,
    of_snapshots,
    rows_of,
    settling_ns,
)
from pageowner.analysis.object_leaks import with_pages
from pageowner.analysis.one_leak import joined
from pageowner.analysis.shorten import shortened
from pageowner.api.series_times import moments
from pageowner.errors import PageownerError, UsageError
from pageowner.model.metadata import of_some_tasks
from pageowner.report.text import age, count_of
from pageowner.sources import of_objects
from pageowner.sources.source import read as read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pageowner.analysis.leaks import Rows
    from pageowner.model.snapshot import Snapshot

__all__ = ["leaks", "watch_for"]

_COMMAND = 120  # bytes of a command line
_EVERY = "5s"


def leaks(*sources: str | os.PathLike[str], by: str | Sequence[str] = "stack", window: str = "60s",
          every: str | None = None, least: str | None = None, where: Filter | None = None,
          read: Callable[[str | None], Snapshot] = read_source,
          progress: Callable[[int, int], None] = lambda done_ns, looks: None) -> Leaks:
    """Find leaks: owners whose pages grow steadily and stay, while those of others come and go.

    Without sources, this machine is watched for ``window``, with one look every ``every`` (5s);
    Ctrl-C ends that early. Otherwise ``sources`` are at least four snapshots or dumps of one boot,
    oldest first, or directories of captures. Owners are grouped by the keys ``by``; ``where``
    selects allocations, but not by age, which the rules do. Sources without a time are taken to be
    ``every`` apart; without ``every``, their files' modification times are used. Owners that grew
    by less than ``least`` (1 MiB; for objects 64 KiB) are left out. ``read``: the function that
    reads sources. ``progress`` is called with the ns since the start and the number of looks.

    Raises UsageError for invalid arguments, and if the snapshots are too few, of several boots or
    out of order; PageownerError if a source cannot be read, tracking is off, or Ctrl-C came before
    there were enough looks.
    """
    names = key_names(by if isinstance(by, str) else list(by))
    length = duration_ns(window)
    min_bytes = None if least is None else size_bytes(least)
    step = None if every is None else duration_ns(every)
    chosen = where or Filter()
    check_chosen(chosen)
    if sources:
        return _saved([os.fspath(path) for path in sources], chosen, names, min_bytes, read, step)
    return _live(chosen, names, min_bytes, length, duration_ns(_EVERY) if step is None else step,
                 progress)


def _saved(sources: list[str], chosen: Filter, names: list[str], min_bytes: int | None,
           read: Callable[[str | None], Snapshot], step: int | None) -> Leaks:
    from pageowner.storage import series

    if any(name == "-" or (os.path.exists(name) and not os.path.isfile(name)
                           and not os.path.isdir(name)) for name in sources):
        raise UsageError("a series is of files and folders; standard input and pipes can be read"
                         " once")
    parts = [series.last_boot(Path(name)) if os.path.isdir(name) else name for name in sources]
    for name, part in zip(sources, parts, strict=True):
        if not part:
            raise PageownerError(f"{name}: is a directory without captures of 'pageowner"
                                 " record'; name a dump or a snapshot")
    number = sum(1 if isinstance(part, str) else len(part) for part in parts)
    if number < LEAST_SAMPLES:
        raise UsageError(f"a trend takes at least {LEAST_SAMPLES} snapshots of one boot and one"
                         " time of tracking, here"
                         f" {'is' if number == 1 else 'are'} {number}; two are compared by:"
                         " pageowner diff A B")
    last: list[Snapshot] = []

    def each() -> Iterator[Snapshot]:
        for part in parts:
            for snapshot in [read(part)] if isinstance(part, str) else series.each(part):
                last[:] = [shortened(snapshot.where(chosen) if chosen else snapshot)]
                yield last[0]

    def end(part: str | list[Path], place: int) -> Snapshot:
        return read(part) if isinstance(part, str) else series.read(part[place])

    # How long they span decides what is settled: the ends are read twice.
    when = moments(parts, end(parts[0], 0), end(parts[-1], -1), step)
    watch: Watch = of_snapshots(each(), names, when.window_ns, when.times)
    meta = last[0].meta
    earlier = sum(len(series.captures(Path(name))) - len(part)
                  for name, part in zip(sources, parts, strict=True) if isinstance(part, list))
    return Leaks(judged(watch, meta.page_size, min_bytes), Watched(
        meta.host or sources[-1], (watch.times[-1] - watch.times[0]) / 1e9, len(watch.times),
        watch.owners, names, meta.page_size, None if chosen else available_pages(last[0]),
        room="free or page cache", times_from=when.known_from, earlier=earlier))


def _live(chosen: Filter, names: list[str], min_bytes: int | None, length: int, step: int,
          progress: Callable[[int, int], None]) -> Leaks:
    from pageowner.analysis.live_rows import rows_of_looks, told_by_records, untracked_by_kind
    from pageowner.kernel import dentries, zones
    from pageowner.tracker.read.capture import capture, capture_others
    from pageowner.tracker.read.capture_objects import capture_objects
    from pageowner.tracker.read.live import LiveReader
    from pageowner.tracker.read.maps import open_store
    from pageowner.tracker.read.objects import check_objects

    if step <= 0 or length < step * (LEAST_SAMPLES - 1):
        raise UsageError(f"--every must be more than 0 and --for at least"
                         f" {LEAST_SAMPLES - 1} times that, here {age(step * (LEAST_SAMPLES - 1))}:"
                         f" a trend takes {LEAST_SAMPLES} looks")

    objects = of_objects.wanted()

    def of_capture() -> tuple[int, Rows, dict[str, int]]:
        """Keys and filters that records alone do not answer take a whole capture; untracked pages
        are rows of it."""
        snapshot = capture_objects(store) if objects else capture_others(
            "user" in names or bool(chosen.user))
        assert snapshot.meta.clock_ns is not None
        return snapshot.meta.clock_ns, rows_of(snapshot.where(chosen), names), {}

    with open_store() as store:
        cheap = told_by_records(names, chosen)
        of_records = rows_of_looks(LiveReader(store).blocks, names, chosen) if cheap else of_capture
        watch, pages = (Watch(names, settling_ns(length), store.facts["since_ns"], least)
                        for least in (least_rows(check_objects(store)) if objects else 0, 0))
        beside = objects and cheap and "stack" in names

        def of_both() -> tuple[int, Rows, dict[str, int]]:
            pages.add(*of_records())
            return of_capture()

        in_use = dentries.bytes_in_use() if objects else None
        look = of_both if beside else of_records if cheap and not objects else of_capture
        watch_for(watch, look, length, step, progress)
        if len(watch.times) < LEAST_SAMPLES:
            raise PageownerError(f"stopped after {count_of(len(watch.times), 'look')}; a trend"
                                 f" takes at least {LEAST_SAMPLES}")
        store.check_on()
        page_size = os.sysconf("SC_PAGE_SIZE")
        if objects:
            now_in_use = dentries.bytes_in_use()
            # The kernel counts the dentries of all, which says nothing of some.
            some = chosen or of_some_tasks(store.facts["options"])
            pinned = None if some or in_use is None or now_in_use is None else now_in_use - in_use
            found = judged_objects(watch, min_bytes, pinned)
            found = with_pages(found, judged_pages(pages, min_bytes, page_size), page_size) if (
                beside) else joined(found)
        else:
            found = judged_pages(watch, min_bytes, page_size)
        notes = [note for note, kind in zip(found["note"].to_pylist(), found["kind"].to_pylist(),
                                            strict=True) if kind == "leak" and note]
        by_kind = untracked_by_kind(capture(store)) if notes and not objects else None
        tgids = {task["tgid"] for tasks in found["tasks"].to_pylist() for task in tasks}
        commands = {tgid: line for tgid in tgids - {None, 0} if (line := _command_line(tgid))}
    unit = 1 if objects else page_size
    return Leaks(found, Watched(
        socket.gethostname(), (watch.times[-1] - watch.times[0]) / 1e9, len(watch.times),
        watch.owners + (pages.owners if beside else 0), names, unit,
        zones.meminfo_pages(zones.read_text("/proc/meminfo"), "MemAvailable", unit), by_kind,
        commands))


def _command_line(tgid: int) -> str:
    """Of a process that runs yet; empty for others, and for kernel threads."""
    try:
        words = Path(f"/proc/{tgid}/cmdline").read_bytes()[:_COMMAND]
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()


def watch_for(watch: Watch, look: Callable[[], tuple[int, Rows, dict[str, int]]], length: int,
              step: int, progress: Callable[[int, int], None] = lambda done_ns, looks: None,
              ) -> bool:
    """Look every ``step`` ns for ``length`` ns, or longer where looks are so slow that there are
    too few for a trend by then; whether Ctrl-C ended it. ``progress``: see `leaks`."""
    began = time.monotonic_ns()
    try:
        progress(0, 0)
        number = 0
        while True:
            now, rows, others = look()
            watch.add(now, rows, others)
            progress(time.monotonic_ns() - began, len(watch.times))
            number += 1
            # looks that take longer than a step leave some out
            while (left := began + number * step - time.monotonic_ns()) < 0:
                number += 1
            if number * step > length and len(watch.times) >= LEAST_SAMPLES:
                return False
            while left > 0:
                time.sleep(min(left / 1e9, 1))
                progress(time.monotonic_ns() - began, len(watch.times))
                left = began + number * step - time.monotonic_ns()
    except KeyboardInterrupt as error:
        if type(error) is not KeyboardInterrupt:
            raise  # SIGTERM or SIGHUP
        return True
