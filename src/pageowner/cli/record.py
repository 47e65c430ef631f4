"""``pageowner record``: Capture this machine periodically into a directory."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pageowner.cli import complete
from pageowner.cli.messages import say, told, written
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("record")
@click.argument("folder", metavar="DIR", shell_complete=complete.folders,
                type=click.Path(file_okay=False, path_type=Path))
@click.option("--every", default="10m", show_default=True, metavar="TIME",
              help="How often to capture.")
@click.option("--keep", default="7d", show_default=True, metavar="TIME",
              help="Remove captures older than this.")
@click.option("--source", metavar="FILE", shell_complete=complete.files,
              help="Capture a file of the kernel instead: /proc/allocinfo, or the directory"
              " /sys/kernel/debug/page_owner_stacks.")
@click.option("--objects", is_flag=True,
              help="Capture objects in slabs instead of pages; needs 'pageowner on --objects'.")
@click.option("--on", default="", metavar="EVENT[,EVENT...]",
              help="Also capture when one of these happens: oom, psi, low=5%, order=4,"
                   " growth=200MiB/10m.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N captures.")
def command(folder: Path, every: str, keep: str, source: str | None, objects: bool,
            on: str, count: int | None) -> None:
    """Capture this machine periodically into DIR, until Ctrl-C.

    Most files contain only the changes since the last capture. A full disk or a kill loses only the
    capture being written. --on oom captures before an OOM kill; psi when tasks wait for memory;
    low=SIZE when less than SIZE is available; order=N when an allocation of that order fails;
    growth=SIZE/TIME when a stack grows by SIZE within TIME. Read these with --at oom, --at low, ...

    Examples:
        pageowner record /var/lib/pageowner        every 10 minutes, for 7 days
        pageowner record --every 1m --keep 1d DIR  more often, for a day
        pageowner report DIR --at 14:30            the state at that time
        pageowner record DIR --source /proc/allocinfo
            bytes by line of code: small and quick to read
        pageowner record DIR --on oom,psi,low=5%   also when memory is short
        pageowner report DIR --at oom --by comm    who owned memory before the last OOM kill
        pageowner leaks DIR                        owners that kept growing
    """
    if objects and (source is not None or on):
        raise click.UsageError("--objects goes with neither --source nor --on")
    from pageowner.api.record import record

    for capture in record(folder, every=every, keep=keep, count=count, source=source, on=on,
                          objects=objects, told=told):
        if capture.path is None:
            say(f"this capture is lost: {capture.lost}")
        elif sys.stderr.isatty():
            written(str(capture.path))
        if capture.stays:
            say(f"old captures stay: {capture.stays}")
