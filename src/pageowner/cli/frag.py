"""``pageowner frag``: What fragments memory, and which owners to stop to get huge pages."""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from pageowner.cli import complete
from pageowner.cli.options import as_json, check_page_flags, grouped, load, most_owners, source
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb

__all__ = ["command"]

_LARGEST = 30
_PLANNED = 20
"""Owners to stop that are listed by default: part of a plan helps less than part of a ranking."""


@verb("frag")
@source
@grouped("Group owners by any of report's keys: stack, subsystem, comm, memcg, ..."
         " Default: stack; with --order comm,pid.")
@click.option("--order", type=click.IntRange(1, _LARGEST), metavar="N",
              help="Show what prevents free blocks of 2^N pages: 9 is a huge page, 18 a gigantic"
                   " one.")
@click.option("--want", type=click.IntRange(min=1), metavar="N",
              help="Show which owners to stop to free N more blocks.")
@click.option("--kpageflags", metavar="FILE", shell_complete=complete.files,
              help="A copy of /proc/kpageflags made with the dump: shows which pages are free.")
@most_owners(10, f"; of those to stop, {_PLANNED} by default")
@as_json
def command(source: str | None, by: str | None, order: int | None, want: int | None,
            kpageflags: str | None, most: int | None, as_json: bool) -> None:
    """What fragments memory, and which owners to stop to get huge pages.

    What a source does not contain is reported, never guessed.

    Examples:
        pageowner frag dump.txt             mixed pageblocks and their owners
        pageowner frag --by subsystem       this machine, by what memory is used for
        pageowner frag --order 9            what blocks huge pages
        pageowner frag --order 9 --want 50  which owners to stop to get 50 more
    """
    if want is not None and order is None:
        raise click.UsageError("--want goes with --order, which says how large the blocks are")
    from pageowner.analysis.filters import key_names

    # before the source is read, which may take a while
    names = key_names(by or ("stack" if order is None else "comm,pid"))
    # while other processes read a large dump
    from pageowner.analysis.select import newest_ns
    from pageowner.api.frag import frag
    from pageowner.report import fragmentation_view as view
    from pageowner.report.terminal import paper
    from pageowner.sources import live_users

    with live_users.using("user" in names):
        snapshot = load(source)
    check_page_flags(snapshot, kpageflags)
    # What the asking itself takes is gone when the answer is read.
    leave_out = os.getpid() if source is None else None
    found = vars(
        frag(snapshot, names, kpageflags=kpageflags, top=most, leave_out=leave_out)
        if order is None else
        frag(snapshot, names, order=order, want=want, kpageflags=kpageflags, top=most,
             leave_out=leave_out))
    if as_json:
        if order is None:
            found["events_in_all"] = len(found["events"])
            found["events"] = found["events"][:most]
        write_out(view.to_json(found, names, snapshot.meta))
    elif order is None:
        view.draw(found, names, snapshot.meta, newest_ns(snapshot), most, paper())
    else:
        asked = click.get_current_context().get_parameter_source("top")
        is_default = most is not None and asked == ParameterSource.DEFAULT
        view.draw_huge(found, snapshot.meta, paper(), _PLANNED if is_default else most)
