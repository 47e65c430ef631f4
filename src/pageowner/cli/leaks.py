"""``pageowner leaks``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import as_json, filters, load
from pageowner.cli.verb import verb
from pageowner.errors import PageownerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.analysis.filters import Filter
    from pageowner.analysis.leaks import Rows, Watch
    from pageowner.model.snapshot import Snapshot
    from pageowner.report.leaks_view import Watched

__all__ = ["command", "watch_for"]

_TOP = 10
_COMMAND = 120  # bytes of a command line

_EXAMPLES = (
    ("pageowner leaks", "watch this machine for a minute"),
    ("pageowner leaks --for 1h --every 1m", "find slower leaks"),
    ("pageowner leaks --by comm,subsystem", "by task and use"),
    ("pageowner leaks mon.parquet tue.parquet wed.parquet thu.parquet", ""),
    ("pageowner leaks DIR", "all captures of 'pageowner record'"),
)


@verb("leaks", *_EXAMPLES)
@click.argument("sources", nargs=-1, metavar="[SOURCE...]", shell_complete=complete.files)
@click.option("--for", "window", default="60s", show_default=True, metavar="TIME",
              help="How long to watch this machine; Ctrl-C gives the result so far.")
@click.option("--every", default="5s", show_default=True, metavar="TIME",
              help="How often to look.")
@click.option("--by", default="stack", show_default=True, metavar="KEY[,KEY...]",
              shell_complete=complete.keys,
              help="Owners by any of report's keys.")
@click.option("--min", "least", default="1MiB", show_default=True, metavar="SIZE",
              help="Leave out who grew by less in the time that was watched.")
@click.option("--top", type=click.IntRange(min=1), default=_TOP, show_default=True, metavar="N",
              help="Show N owners of each kind.")
@click.option("--full", is_flag=True, help="Show whole stacks of leaks.")
@filters
@as_json
def command(sources: tuple[str, ...], chosen: Filter, window: str, every: str, by: str, least: str,
            top: int, full: bool, as_json: bool) -> None:
    """Who leaks: whose pages grow steadily and stay, while others' come and go.

    At least four snapshots of one boot make a series; two are compared by 'pageowner diff'.
    """
    from pageowner.analysis.filters import duration_ns, key_names, size_bytes

    names = key_names(by)
    length, step = duration_ns(window), duration_ns(every)
    min_bytes = size_bytes(least)
    if sources:
        watch, watched = _saved(sources, chosen, names)
    else:
        watch, watched = _live(chosen, names, length, step)
    rows = watch.leaks(max(min_bytes // watched.page_size, 1)).to_pylist()
    from pageowner.report import leaks_view
    from pageowner.report.terminal import paper

    if as_json:
        import json

        print(json.dumps(leaks_view.to_json(rows, watched), indent=1))
    else:
        leaks_view.draw(rows, watched, top, full, paper())


def _saved(sources: tuple[str, ...], chosen: Filter,
           names: list[str]) -> tuple[Watch, Watched]:
    from pageowner.analysis.leaks import LEAST_SAMPLES, available_pages, of_snapshots
    from pageowner.analysis.select import newest_ns
    from pageowner.analysis.shorten import shortened
    from pageowner.report.leaks_view import Watched
    from pageowner.storage import series

    if any(name == "-" or (os.path.exists(name) and not os.path.isfile(name)
                           and not os.path.isdir(name)) for name in sources):
        raise UsageError("a series is of files and folders; standard input and pipes can be read"
                         " once")
    parts = [series.last_boot(Path(name)) if os.path.isdir(name) else name for name in sources]
    for name, part in zip(sources, parts, strict=True):
        if not part:
            raise PageownerError(f"{name}: is a folder without captures, which 'pageowner record'"
                                 " makes; name a dump or a snapshot")
    number = sum(1 if isinstance(part, str) else len(part) for part in parts)
    if number < LEAST_SAMPLES:
        raise UsageError(f"a trend takes at least {LEAST_SAMPLES} snapshots of one boot, here"
                         f" {'is' if number == 1 else 'are'} {number}; two are compared by:"
                         " pageowner diff A B")
    last: list[Snapshot] = []

    def each() -> Iterator[Snapshot]:
        for part in parts:
            for snapshot in [load(part)] if isinstance(part, str) else series.each(part):
                last[:] = [shortened(snapshot.where(chosen) if chosen else snapshot)]
                yield last[0]

    def clock(part: str | list[Path], place: int) -> int:
        return newest_ns(load(part) if isinstance(part, str) else series.read(part[place]))

    # How long they span decides what is settled: the ends are read twice.
    watch: Watch = of_snapshots(each(), names, max(clock(parts[-1], -1) - clock(parts[0], 0), 0))
    meta = last[0].meta
    return watch, Watched(
        meta.host or sources[-1], (watch.times[-1] - watch.times[0]) / 1e9, len(watch.times),
        watch.owners, names, meta.page_size, None if chosen else available_pages(last[0]),
        room="free or page cache")


def _live(chosen: Filter, names: list[str], length: int, step: int) -> tuple[Watch, Watched]:
    import socket

    from pageowner.analysis.leaks import LEAST_SAMPLES, Watch, rows_of, settling_ns
    from pageowner.analysis.live_rows import rows_of_looks, told_by_records, untracked_by_kind
    from pageowner.kernel import zones
    from pageowner.report.leaks_view import Watched
    from pageowner.report.text import age, count_of
    from pageowner.tracker.read.capture import capture
    from pageowner.tracker.read.maps import open_store
    from pageowner.tracker.read.watch import Sampler, capture_others

    if step <= 0 or length < step * (LEAST_SAMPLES - 1):
        raise UsageError(f"--every must be more than 0 and --for at least"
                         f" {LEAST_SAMPLES - 1} times that, here {age(step * (LEAST_SAMPLES - 1))}:"
                         f" a trend takes {LEAST_SAMPLES} looks")
    def of_capture() -> tuple[int, Rows, dict[str, int]]:
        """Keys and filters that records alone do not answer take a whole capture; untracked pages
        are rows of it."""
        snapshot = capture_others()
        assert snapshot.meta.clock_ns is not None
        return snapshot.meta.clock_ns, rows_of(snapshot.where(chosen), names), {}

    with open_store() as store:
        cheap = not chosen and told_by_records(names)
        look = rows_of_looks(Sampler(store, names).look, names) if cheap else of_capture
        watch = Watch(names, settling_ns(length))
        watch_for(watch, look, length, step)
        if len(watch.times) < LEAST_SAMPLES:
            raise PageownerError(f"stopped after {count_of(len(watch.times), 'look')}; a trend"
                                 f" takes at least {LEAST_SAMPLES}")
        store.check_on()
        found = watch.leaks(1)
        told = [note for note, kind in zip(found["note"].to_pylist(), found["kind"].to_pylist(),
                                           strict=True) if kind == "leak" and note]
        by_kind = untracked_by_kind(capture(store)) if told else None
        tgids = {task["tgid"] for tasks in found["tasks"].to_pylist() for task in tasks}
        commands = {tgid: said for tgid in tgids - {None, 0} if (said := _command_line(tgid))}
    page_size = os.sysconf("SC_PAGE_SIZE")
    return watch, Watched(
        socket.gethostname(), (watch.times[-1] - watch.times[0]) / 1e9, len(watch.times),
        watch.owners, names, page_size,
        zones.meminfo_pages(zones.read_text("/proc/meminfo"), "MemAvailable", page_size), by_kind,
        commands)


def _command_line(tgid: int) -> str:
    """Of a process that runs yet; empty for others, and for kernel threads."""
    try:
        words = Path(f"/proc/{tgid}/cmdline").read_bytes()[:_COMMAND]
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()


def watch_for(watch: Watch, look: Callable[[], tuple[int, Rows, dict[str, int]]], length: int,
              step: int) -> bool:
    """Look every ``step`` ns for ``length`` ns, or longer where looks are so slow that there are
    too few for a trend by then; whether Ctrl-C ended it."""
    from pageowner.analysis.leaks import LEAST_SAMPLES

    began = time.monotonic_ns()
    with _Progress(length) as progress:
        try:
            number = 0
            while True:
                now, rows, others = look()
                watch.add(now, rows, others)
                progress.show(time.monotonic_ns() - began, len(watch.times))
                number += 1
                # looks that take longer than a step leave some out
                while (left := began + number * step - time.monotonic_ns()) < 0:
                    number += 1
                if number * step > length and len(watch.times) >= LEAST_SAMPLES:
                    return False
                while left > 0:
                    time.sleep(min(left / 1e9, 1))
                    progress.show(time.monotonic_ns() - began, len(watch.times))
                    left = began + number * step - time.monotonic_ns()
        except KeyboardInterrupt as error:
            if type(error) is not KeyboardInterrupt:
                raise  # SIGTERM or SIGHUP
            return True


class _Progress:
    """A bar on stderr if a person sees it, else one line."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(TextColumn("watching"), BarColumn(None), TextColumn("{task.fields"
                                 "[looks]} looks"), TimeRemainingColumn(),
                                 console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=self._length, looks=0)
            self._bar.start()
        else:
            from pageowner.report.text import age

            say(f"watching for {age(self._length)}")
        return self

    def show(self, done: int, looks: int) -> None:
        """Draw how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=min(done, self._length), looks=looks)

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
