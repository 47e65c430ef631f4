"""``pageowner flame``: A flame graph, as an interactive page or an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.messages import written
from pageowner.cli.options import at_times, filters, grouped, or_objects, reading
from pageowner.cli.overwriting import check_pictures
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("flame")
@click.argument("first", required=False, metavar="[A]", shell_complete=complete.files)
@click.argument("second", required=False, metavar="[B]", shell_complete=complete.files)
@click.option("--html", metavar="FILE", shell_complete=complete.files,
              help="Write an interactive page, with zoom and search.")
@click.option("--svg", metavar="FILE", shell_complete=complete.files, help="Write an image.")
@click.option("-o", "--output", metavar="FILE", shell_complete=complete.files,
              help="Write an image if FILE ends in .svg, else a page.")
@grouped("Add the values of these keys (as in report) below each stack; comm draws a"
         " tower for each task.")
@click.option("--icicle", is_flag=True, help="Draw as an icicle: root at the top.")
@click.option("--reverse", is_flag=True,
              help="Start with the innermost function, then its callers.")
@at_times("first", "second")
@or_objects("first")
@filters
def command(first: str | None, second: str | None, html: str | None, svg: str | None,
            output: str | None, by: str | None, icicle: bool, reverse: bool,
            chosen: Filter) -> None:
    """A flame graph of who owns the memory, or of what changed from A to B.

    A box is a function, as wide as the memory allocated through it; below it is its caller. With
    two sources, red boxes have more pages in B than in A, blue ones fewer.

    Examples:
        pageowner flame --html now.html                                  this machine
        pageowner flame dump.txt --svg dump.svg --by comm
            a dump, a tower for each task
        pageowner flame before.parquet after.parquet --html change.html  what changed
    """
    if output is not None:
        if output.lower().endswith(".svg"):
            svg, output = output, svg
        else:
            html, output = output, html
        if output is not None:
            raise click.UsageError("two files of the same kind to write; name one")
    if html is None and svg is None:
        raise click.UsageError("name a file to write: -o FILE, --html FILE or --svg FILE")
    if "-" in (html, svg):
        raise click.UsageError("a flame graph is written to a file; name one")
    check_pictures(html, svg)
    if first == second == "-":
        raise click.UsageError("only one of A and B can be standard input")
    from pageowner.analysis.filters import key_names

    # before the sources are read, which may take a while
    names = [] if by is None else key_names(by)
    from pageowner.api.flame import flame

    graph = flame(first, second, by=names, read=reading(chosen))
    for path, save in ((html, graph.save_html), (svg, graph.save_svg)):
        if path is not None:
            save(path, icicle=icicle, reverse=reverse)
            written(path, ", to be opened in a browser")
