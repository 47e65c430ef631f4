"""``pageowner map``: A picture of physical memory."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.messages import say, written
from pageowner.cli.options import as_json, check_page_flags, grouped, load, source
from pageowner.cli.output import write_out
from pageowner.cli.overwriting import check_pictures
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["command"]


@verb("map")
@source
@grouped("Colour by age, or by any of report's keys: state, subsystem, migratetype, task,"
         " memcg, ...", "subsystem", single=True, complete_by=complete.colourings)
@click.option("--order", type=click.Choice(["row", "hilbert"]), default="row", show_default=True,
              help="Line by line, or along a Hilbert curve, which draws neighbouring pages near"
                   " each other.")
@click.option("--png", metavar="FILE", shell_complete=complete.files,
              help="Write an image: one pixel per page, or per several pages.")
@click.option("--html", metavar="FILE", shell_complete=complete.files,
              help="Write an interactive page: zoom to single pages and their owners.")
@click.option("--beside", metavar="SOURCE", shell_complete=complete.files,
              help="A second snapshot or dump, side by side with the first on the page of --html.")
@click.option("--kpageflags", metavar="FILE", shell_complete=complete.files,
              help="A copy of /proc/kpageflags made with the dump: shows which pages are free.")
@as_json
def command(source: str | None, by: str, order: str, png: str | None,
            html: str | None, beside: str | None, kpageflags: str | None, as_json: bool) -> None:
    """A picture of physical memory.

    A cell is a number of neighbouring pages and has the colour of what most of them are; the
    smaller their share, the darker. Each node and zone begins on a new line, with the address at
    the left.

    Examples:
        pageowner map
            this machine, in the terminal
        pageowner map dump.txt --by task
            where the memory of each task is
        pageowner map --png memory.png --order hilbert                   as an image
        pageowner map --html memory.html                                 to zoom into and search
        pageowner map old.parquet --beside new.parquet --html both.html
    """
    if beside is not None and html is None:
        raise click.UsageError("--beside goes with --html")
    if "-" in (png, html):
        raise click.UsageError("a picture is written to a file; name one")
    check_pictures(html, png)
    if as_json and (png or html):
        raise click.UsageError("--json prints sums, and goes with neither --png nor --html")
    from pageowner.analysis.filters import colouring

    by = colouring(by)  # before the source is read, which may take a while
    # while other processes read a large dump
    from pageowner.api.map import map as map_of
    from pageowner.report import map_view
    from pageowner.sources import live_users

    with live_users.using(by == "user"):
        snapshot = load(source)
    check_page_flags(snapshot, kpageflags)
    memory_map = map_of(snapshot, by, kpageflags=kpageflags)
    picture = memory_map.picture
    if as_json:
        write_out(map_view.to_json(picture, snapshot.meta))
        return
    width, height = shutil.get_terminal_size()
    for note in picture.notes:
        lines = say(f"note: {note}")
        if sys.stderr.isatty():
            height -= lines  # the picture is to fit below
    if html is not None:
        memory_map.save_html(html, order, beside=None if beside is None else load(beside))
        written(html, ", to be opened in a browser")
    if png is not None:
        image = memory_map.save_png(png, order)
        high, wide = image.pixels.shape
        each = "pixel" if image.scale == 1 else f"square of {image.scale} x {image.scale} pixels"
        written(png, about=f"{wide} x {high} pixels, each {each} is"
                           f" {map_view.frames_of(image.frames, snapshot.meta)}")
        map_view.draw_legend(picture, snapshot.meta, width, _console())
    if png is None and html is None:
        map_view.draw(picture, snapshot.meta, order, width, height, _console())


def _console() -> Console | None:
    """A terminal with colours; None where characters have to do."""
    from pageowner.report.ascii import is_ascii
    from pageowner.report.terminal import console, is_terminal

    coloured = is_terminal() or bool(os.environ.get("FORCE_COLOR"))
    # a cell's two halves are drawn with signs that ASCII has not
    if not coloured or os.environ.get("NO_COLOR") or is_ascii(sys.stdout):
        return None
    screen = console(shutil.get_terminal_size().columns)
    return screen if screen.color_system else None
