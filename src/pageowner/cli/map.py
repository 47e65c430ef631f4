"""``pageowner map``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli.options import as_json, load, page_flags, source

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["command"]


@click.command("map")
@source
@click.option("--by", default="subsystem", show_default=True, metavar="KEY",
              help="Colour by age, or by any of report's keys: state, subsystem, migratetype, task,"
                   " memcg, …")
@click.option("--order", type=click.Choice(["row", "hilbert"]), default="row", show_default=True,
              help="Line by line, or along a Hilbert curve, which keeps together what lies"
                   " together.")
@click.option("--kpageflags", metavar="FILE",
              help="A copy of /proc/kpageflags made with the dump, which tells what is free.")
@as_json
def command(source: str | None, by: str, order: str, kpageflags: str | None,
            as_json: bool) -> None:
    """A picture of physical memory.

    \b
    pageowner map                        this machine, in the terminal
    pageowner map dump.txt --by task     who has memory where

    Each cell stands for so many pages, and shows what most of them are; the less of it that is,
    the darker. Nodes and zones begin on lines of their own, with the address at the left.
    """
    if by != "age":
        from pageowner.analysis.words import key_names

        (by,) = key_names([by])  # before the source is read, which may take a while
    snapshot = load(source)
    from pageowner.analysis.picture import picture
    from pageowner.report import map_view

    drawn = picture(snapshot, by, flags=page_flags(snapshot, kpageflags))
    if as_json:
        import json

        print(json.dumps(map_view.to_json(drawn, snapshot.meta), indent=1))
        return
    import shutil

    width, height = shutil.get_terminal_size()
    map_view.draw(drawn, snapshot.meta, order, width, height, _console())


def _console() -> Console | None:
    """A terminal with colours; None where characters have to do."""
    import os

    from pageowner.report.terminal import console, is_terminal

    coloured = is_terminal() or bool(os.environ.get("FORCE_COLOR"))
    if not coloured or os.environ.get("NO_COLOR"):
        return None
    import shutil

    screen = console(shutil.get_terminal_size().columns)
    return screen if screen.color_system else None
