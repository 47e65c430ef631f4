"""``pageowner diff``: Compare two snapshots: which owners grew, shrank, are new or gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import as_json, at_times, filters, or_objects, owners_shown, reading
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb
from pageowner.errors import PageownerError
from pageowner.report.text import count_of

if TYPE_CHECKING:
    from pageowner.analysis.diff import Difference
    from pageowner.analysis.filters import Filter

__all__ = ["GREW", "command"]

GREW = 3
"""The exit status when an owner has gained more than ``--fail-over`` allows."""


@verb("diff")
@click.argument("before", metavar="A", shell_complete=complete.files)
@click.argument("after", required=False, metavar="[B]", shell_complete=complete.files)
@owners_shown("Compare by any of report's keys: stack, comm, module, subsystem, memcg, ...",
              "change", "change (gained or lost), gained, lost, before, after, name, or a key.",
              complete.changes)
@click.option("--full", is_flag=True, help="Show whole stacks.")
@click.option("--fail-over", metavar="SIZE",
              help=f"Exit with status {GREW} if any owner gained more than SIZE, such as 10MiB.")
@at_times("before", "after")
@or_objects("before", "after")
@filters
@as_json
def command(before: str, after: str | None, chosen: Filter, by: str, sort: str, reverse: bool,
            most: int | None, full: bool, fail_over: str | None, as_json: bool) -> int:
    """Show which owners grew, shrank, are new or gone from A to B, or to now.

    A and B are snapshots or dumps. Stacks with the same functions match, also across kernel builds.
    Exit status: 0 for success, 1 for failure, 2 for wrong usage, 3 if an owner gained more than
    --fail-over allows.

    Examples:
        pageowner diff before.parquet after.parquet     by stack, largest change first
        pageowner diff before.parquet                   what changed on this machine since then
        pageowner diff old.txt new.txt --by subsystem   dumps, even of different kernels
        pageowner diff A B --by comm --fail-over 10MiB  for a test suite
        pageowner diff DIR DIR --at 9:00 --at 14:30     two captures of 'pageowner record'
    """
    if before == after == "-":
        raise click.UsageError("only one of A and B can be standard input")
    from pageowner.analysis import filters

    # before the sources are read, which may take a while
    names = filters.key_names(by)
    if full and "stack" not in names:
        names.append("stack")
    limit = None if fail_over is None else filters.size_bytes(fail_over)
    from pageowner.analysis.diff import check_sort
    from pageowner.api.diff import diff

    check_sort(sort, names)
    found = diff(before, after, names, sort=sort, reverse=reverse, read=reading(chosen))
    _check_filters(found, fail_over is not None)
    from pageowner.report import diff_table
    from pageowner.report.terminal import paper

    table, before_after = found.changes, (found.before, found.after)
    if as_json:
        write_out(diff_table.to_json(table, most, names, *before_after))
    else:
        diff_table.draw(table, most, names, *before_after, full, paper())
    if limit is None:
        return 0
    over = sum(pages * found.after.meta.page_size > limit for pages in table["gained"].to_pylist())
    if over:
        say(f"{count_of(over, 'owner')} gained more than {fail_over}")
    return GREW if over else 0


def _check_filters(found: Difference, decides: bool) -> None:
    """Say if the sides were tracked with different filters, or if tracking was turned off and on
    between them: that makes part of the difference.

    Raises PageownerError if the exit status is to tell growth, also if that is estimated.
    """
    from pageowner.report.objects_view import estimated

    if decides and (text := estimated(found.before.meta) or estimated(found.after.meta)):
        raise PageownerError(f"{text}, and what grew may be chance; --fail-over needs all objects:"
                             " pageowner on --objects 1")
    if found.restarted:
        text = ("tracking was turned off and on between A and B: memory that was there by then has"
                " no owner in the later one")
        if decides:
            raise PageownerError(f"{text}; --fail-over needs two of one time of tracking")
        say(text)
    if found.filters is None:
        return
    was, now = (f"with '{words}'" if words else "for all pages" for words in found.filters)
    text = f"A was tracked {was}, B {now}, which differ in what they leave out"
    if decides:
        raise PageownerError(f"{text}; --fail-over takes two that were tracked alike")
    say(f"{text}: owners may seem to come or go")
