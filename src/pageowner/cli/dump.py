"""``pageowner dump``: Print a dump, in the format of the kernel's page_owner."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.options import filters, load, source
from pageowner.cli.overwriting import spare_sources
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("dump")
@source
@filters
@click.option("-o", "--output", metavar="FILE", shell_complete=complete.files,
              help="Write to FILE, completely or not at all. Default: -, standard output.")
def command(source: str | None, chosen: Filter, output: str | None) -> None:
    """Print a dump in the format of the kernel's page_owner, for tools that read it.

    A dump of Linux 4.6 or newer is printed unchanged, without its damaged records; an older one in
    the format of 4.6. Pages allocated before tracking began have records as in the kernel's own
    dump, with the stack register_early_stack (--state owned leaves them out). On a terminal,
    control characters in task names are escaped.

    Examples:
        pageowner dump >page_owner.txt        this machine, for the kernel's tools
        pageowner dump now.parquet            the text that a snapshot was made from
        pageowner dump --older 1h -o old.txt  pages allocated an hour ago or earlier
    """
    if output is not None and output != "-":
        spare_sources(output, source)
    snapshot = load(source, chosen)
    if output is not None and output != "-":
        snapshot.dump(output)
        return
    from pageowner.sources.page_owner_text import write

    sys.stdout.flush()
    from pageowner.report.terminal import output_encoding

    write(snapshot, sys.stdout.buffer, output_encoding())
    sys.stdout.buffer.flush()
