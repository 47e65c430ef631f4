"""``pageowner top``: Who owns memory now, and how it changes: the live view."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.options import filters, grouped, or_objects
from pageowner.cli.verb import verb
from pageowner.errors import UsageError
from pageowner.model.schema import LOOKS

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]

*_KEYS, _LAST = LOOKS


@verb("top")
@click.option("--every", default="2s", show_default=True, metavar="SECONDS",
              help="How often to update.")
@grouped(f"Group owners at the start by {', '.join(_KEYS)} or {_LAST}.",
         "stack", single=True, complete_by=complete.live_keys)
@or_objects()
@filters
def command(chosen: Filter, every: str, by: str) -> None:
    """Who owns memory now, and how it changes: the live view.

    Keys: q quit, ? help, / filter, g s t u m group, o order, enter expand.

    Examples:
        pageowner top                       by stack, most memory first
        pageowner top --by comm --every 1   by task, each second
        pageowner top --subsystem 'slab*'   slab pages alone
        pageowner top --objects --by cache  objects in slabs, by slab cache
    """
    from pageowner.api.watch import live_model, live_reader, object_reader
    from pageowner.sources import of_objects

    model, step = live_model(by, every, chosen)
    # The screen library writes to standard error.
    if not all(file is not None and file.isatty() for file in (
            sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("top draws on a terminal; for a file or a pipe there is: pageowner report"
                         " (and pageowner leaks for what grows)")
    objects = of_objects.wanted()
    with object_reader() if objects else live_reader() as reader:
        from pageowner.report.top_view import TopApp

        app = TopApp(reader.counts, lambda: reader.health, model, step / 1e9,
                     f"{socket.gethostname()}{_share(reader)}",
                     page_size=1 if objects else None)
        app.run()
        if app.error is not None:
            raise app.error
    if app.return_code:
        raise click.exceptions.Exit(app.return_code)


def _share(reader: object) -> str:
    """Which objects are shown."""
    share = getattr(reader, "share", 0)
    return "" if not share else "  all objects" if share == 1 else f"  one object in {share}"
