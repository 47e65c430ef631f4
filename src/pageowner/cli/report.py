"""``pageowner report``: Who owns the memory: by stack, task, subsystem, cgroup, ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.options import as_json, filters, or_objects, owners_shown, reading, source
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb
from pageowner.model.schema import KEYS

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("report")
@source
@or_objects("source")
@owners_shown(f"Group by any of: {', '.join(KEYS)}.",
              "pages", "pages, blocks, name, age (oldest first), or a key.", complete.sorts)
@click.option("--full", is_flag=True, help="Show whole stacks; each distinct stack is an owner.")
@filters
@as_json
def command(source: str | None, chosen: Filter, by: str, sort: str, reverse: bool,
            most: int | None, full: bool, as_json: bool) -> None:
    """Who owns the memory.

    Examples:
        pageowner report dump.txt                    by stack, most pages first
        pageowner report dump.txt --by subsystem     what the memory is used for
        pageowner report --by comm,order --gfp ZERO  tasks and block sizes, zeroed pages only
        pageowner report --older 1h --full           whole stacks of old pages
        sudo pageowner report --by user              what uses each page now; needs no tracking
    """
    from pageowner.analysis.filters import check_sort, key_names

    # before the source is read, which may take a while
    names = key_names(by)
    if full and "stack" not in names:
        names.append("stack")
    check_sort(sort, names)
    # Imported while workers read what was begun.
    from pageowner.analysis.ranking import head, named
    from pageowner.api.owners import owners
    from pageowner.report import owners_table
    from pageowner.report.terminal import paper

    found = owners(source, names, sort=sort, reverse=reverse, read=reading(chosen),
                   first=None if full else most)
    held, meta, now_ns = found.columns, found.meta, found.now_ns
    if as_json:
        write_out(owners_table.to_json(held, most, names, meta))
        return
    if full:
        # There is nothing to show in full of pages of which nothing is known, however many.
        held, without = named(held, names)
        owners_table.draw_full(head(held, most), names, meta, now_ns, paper(), without)
    else:
        owners_table.draw(head(held, most), names, meta, now_ns, paper())
