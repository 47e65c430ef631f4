"""``pageowner stacks``: Pages per stack, as the kernel's page_owner_stacks prints them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pageowner.cli.options import as_json, filters, load, source
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("stacks")
@source
@filters
@click.option("--threshold", type=click.IntRange(min=0), default=0, metavar="PAGES",
              help="Leave out stacks with fewer pages, as the kernel's count_threshold does.")
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help="Print only N stacks. Default: all, as the kernel does.")
@as_json
def command(source: str | None, chosen: Filter, threshold: int, top: int | None,
            as_json: bool) -> None:
    """Print how many pages each stack holds, most first.

    The format is that of /sys/kernel/debug/page_owner_stacks/show_stacks.

    Examples:
        pageowner stacks dump.txt                all stacks, most pages first
        pageowner stacks dump.txt --top 3        the largest three
        pageowner stacks --threshold 1000        this machine, large owners only
        pageowner stacks --comm 'nginx*' --json  some tasks, as JSON
    """
    snapshot = load(source, chosen)
    from pageowner.sources import page_owner_stacks as text

    held = snapshot.stacks(threshold)[:top]
    if as_json:
        from pageowner.report.json_text import Json

        write_out(Json([{"stack": stack.split("\n"), "nr_base_pages": pages}
                        for stack, pages in held]))
    else:
        from pageowner.report.terminal import output_encoding

        sys.stdout.flush()
        text.write(held, sys.stdout.buffer, output_encoding())
        sys.stdout.buffer.flush()
