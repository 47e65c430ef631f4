"""``pageowner leaks``: Find leaks: owners whose pages keep growing and are never freed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import about_dumps, as_json, grouped, load, or_objects, some_filters
from pageowner.cli.output import write_out
from pageowner.cli.progress import Progress
from pageowner.cli.verb import verb
from pageowner.model.schema import AGE, FILTERS
from pageowner.report.text import count_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.analysis.filters import Filter

__all__ = ["LEAKS", "command"]

LEAKS = 3
"""The exit status when something leaks and ``--fail`` or ``--fail-over`` was given."""

_TOP = 10


def _refused(_context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Options that other verbs have, so that it is said why this one has not."""
    from pageowner.analysis.filters import Filter
    from pageowner.analysis.leak_rules import check_chosen

    if value is not None:
        check_chosen(Filter(older=value) if option.name == "older" else Filter(newer=value))


def _ages(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in (name for name, word in FILTERS.items() if word.takes == AGE):
        command = click.option(f"--{name}", metavar=AGE, hidden=True, expose_value=False,
                               callback=_refused)(command)
    return command


@verb("leaks")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]", shell_complete=complete.files)
@click.option("--for", "window", default="60s", show_default=True, metavar="TIME",
              help="How long to watch this machine; Ctrl-C shows the result so far.")
@click.option("--every", metavar="TIME",
              help="How often to look (5s by default). For dumps without times: how far apart they"
                   " are; without --every, the times of the files are used.")
@grouped("Group owners by any of report's keys.", "stack")
@click.option("--min", "least", metavar="SIZE",
              help="Hide owners that grew by less than SIZE in the watched time. Default: 1MiB;"
                   " with --objects 64KiB.")
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help=f"Show N owners of each kind ({_TOP} by default; JSON has all).")
@click.option("--full", is_flag=True, help="Show whole stacks of leaks.")
@click.option("--fail", is_flag=True, help=f"Exit with status {LEAKS} if there is a leak.")
@click.option("--fail-over", metavar="RATE",
              help=f"Exit with status {LEAKS} if an owner leaks more than RATE, such as 10MiB/h.")
@about_dumps
@or_objects("sources")
@some_filters([name for name, word in FILTERS.items() if word.takes != AGE])
@_ages
@as_json
def command(sources: tuple[str, ...], chosen: Filter, window: str, every: str | None,
            by: str, least: str | None, top: int | None, full: bool, fail: bool,
            fail_over: str | None, as_json: bool) -> int:
    """Find leaks: owners whose pages keep growing and are never freed.

    From snapshots, it needs at least four of one boot; for two, use 'pageowner diff'. Exit status:
    0 for success, 1 for failure, 2 for wrong usage, 3 if --fail or --fail-over finds a leak.

    Examples:
        pageowner leaks
            watch this machine for a minute
        pageowner leaks --for 1h --every 1m                              find slower leaks
        pageowner leaks --by comm,subsystem                              by task and use
        pageowner leaks mon.parquet tue.parquet wed.parquet thu.parquet
        pageowner leaks old-*.txt --every 10m
            dumps of kernels before 5.11, which have no times
        pageowner leaks DIR
            all captures of 'pageowner record'
        pageowner leaks DIR --fail-over 10MiB/h                          for a cron job or a test
    """
    # before what is heavy is imported, and the sources are read
    from pageowner.analysis.filters import duration_ns, key_names, rate_per_hour, size_bytes

    names, length = key_names(by), duration_ns(window)
    if every is not None:
        duration_ns(every)
    if least is not None:
        size_bytes(least)
    over_rate = None if fail_over is None else rate_per_hour(fail_over)
    limit = 0.0 if fail else over_rate
    from pageowner.api.leaks import leaks

    with Progress(length) as progress:
        found = leaks(*sources, by=names, window=window, every=every, least=least, where=chosen,
                      read=load, progress=progress.show)
    rows = found.owners.to_pylist()
    from pageowner.report import leaks_view
    from pageowner.report.terminal import paper

    if as_json:
        write_out(leaks_view.to_json(rows, found.watched, top))
    else:
        leaks_view.draw(rows, found.watched, top or _TOP, full, paper())
    over = 0 if limit is None else sum(
        row["kind"] == "leak" and row["rate"] * found.watched.page_size > limit for row in rows)
    if over:
        say(f"{count_of(over, 'owner')} leaked" + (f" more than {fail_over}" if limit else ""))
    return LEAKS if over else 0
