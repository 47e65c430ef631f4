"""``pageowner flame``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.messages import written
from pageowner.cli.options import at_times, check_two_files, filters, load, load_counted
from pageowner.cli.verb import verb
from pageowner.report.text import source_name

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]

_EXAMPLES = (
    ("pageowner flame --html now.html", "this machine"),
    ("pageowner flame dump.txt --svg dump.svg --by comm", "a dump, a tower for each task"),
    ("pageowner flame before.parquet after.parquet --html change.html", "what changed"),
)


@verb("flame", *_EXAMPLES)
@click.argument("first", required=False, metavar="[A]", shell_complete=complete.files)
@click.argument("second", required=False, metavar="[B]", shell_complete=complete.files)
@click.option("--html", metavar="FILE", shell_complete=complete.files,
              help="Write a page to zoom into and search.")
@click.option("--svg", metavar="FILE", shell_complete=complete.files, help="Write an image.")
@click.option("-o", "--output", metavar="FILE", shell_complete=complete.files,
              help="Write an image if the name of FILE ends in .svg, else a page.")
@click.option("--by", metavar="KEY[,KEY...]", shell_complete=complete.keys,
              help="Frames around the stack: comm gives a tower for each task.")
@click.option("--icicle", is_flag=True, help="Hang from the top instead of standing.")
@click.option("--reverse", is_flag=True,
              help="Begin with the innermost function: who allocates, called by whom.")
@at_times("first", "second")
@filters
def command(first: str | None, second: str | None, html: str | None, svg: str | None,
            output: str | None, by: str | None, icicle: bool, reverse: bool,
            chosen: Filter) -> None:
    """A flame graph of who owns the memory, or of what changed from A to B.

    A box is a function, as wide as the memory allocated through it; below it stands who called it.
    Of two sources, red has more pages than before, blue fewer.
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
    check_two_files(html, svg)
    if first == second == "-":
        raise click.UsageError("only one of A and B can be standard input")
    from pageowner.analysis.filters import key_names

    # before the sources are read, which may take a while
    names = [] if by is None else key_names(by)
    sources = [first] if second is None else [first, second]
    read = [load(source, chosen) if chosen else load_counted(source) for source in sources]
    from pageowner.analysis.diff import check_page_sizes
    from pageowner.analysis.flame import chains
    from pageowner.analysis.profile import samples
    from pageowner.report import flame_html, flame_svg
    from pageowner.storage.whole_file import whole_file

    *old, new = read
    if old:
        check_page_sizes(old[0].meta.page_size, new.meta.page_size)
    merged = chains(samples(new, names), samples(old[0], names) if old else None)
    title = " → ".join(
        source_name(source, found.meta) for source, found in zip(sources, read, strict=True))
    for path, draw in ((html, flame_html.write), (svg, flame_svg.write)):
        if path is not None:
            with whole_file(path) as file:
                draw(file, merged, new.meta.page_size, title, difference=bool(old), icicle=icicle,
                     reverse=reverse)
            written(path, ", to be opened in a browser")

