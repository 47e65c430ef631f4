"""``pageowner slabs``: Which owners keep slabs that are at most half full."""

from __future__ import annotations

import click

from pageowner.cli.options import as_json
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb

__all__ = ["command"]

_TOP = 20


@verb("slabs")
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help=f"Show N owners ({_TOP} by default; JSON has all).")
@as_json
def command(top: int | None, as_json: bool) -> None:
    """Which owners keep slabs that are at most half full.

    A slab's pages are freed with its last object, so a single object can keep all of them. This
    shows, by owner, the slabs that are at most half full and whose objects all have one owner.
    Slabs from before tracking are not judged. All objects must be tracked: 'pageowner on --objects
    1'.

    Examples:
        sudo pageowner on --objects 1   track all objects
        sudo pageowner slabs            who keeps slabs that are at most half full
    """
    from pageowner.api.slabs import slabs

    found = slabs()
    from pageowner.report import slabs_view

    if as_json:
        write_out(slabs_view.to_json(found.found, found.meta, found.page_size, top))
    else:
        from pageowner.report.terminal import paper

        slabs_view.draw(found.found, found.meta, found.page_size, top or _TOP, paper())
