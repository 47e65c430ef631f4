"""``pageowner balance``: Where all memory is, in lines that add up; needs no tracking."""

from __future__ import annotations

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import about_vmcores, as_json
from pageowner.cli.verb import verb

__all__ = ["command"]

_TOP = 3


@verb("balance")
@click.argument("source", required=False, shell_complete=complete.files)
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help=f"Show up to N parts of each line ({_TOP} by default), each at least 0.05 % of"
                   " MemTotal.")
@click.option("--all", "everything", is_flag=True, help="Show all lines.")
@click.option("--root", type=click.Path(exists=True, file_okay=False), metavar="DIR",
              help="Read copies of another machine's files, DIR/proc/meminfo and so on.")
@about_vmcores
@as_json
def command(source: str | None, top: int | None, everything: bool, root: str | None,
            as_json: bool) -> None:
    """Where all memory of this machine is, in lines that add up; or was, if SOURCE is a vmcore.

    Tracking is not needed: the figures are the kernel's own counters, down to processes, slab
    caches, callers of vmalloc and mounts of tmpfs. What no counter accounts for has a line of its
    own. Warnings name what often holds memory unnoticed. An ordinary user sees most of this; a
    message says what needs root.

    Examples:
        sudo pageowner balance          where the memory is, and what looks wrong
        pageowner balance --json        every line, for programs
        pageowner balance vmcore        of a machine that crashed
    """
    if everything and top is not None:
        raise click.UsageError("--all and --top contradict each other")
    from pageowner.api.balance import balance

    found = balance(source, root=root)
    for note in found.notes:
        say(note)
    if found.missing:
        say(f"not readable here: {'; '.join(found.missing)}; run as root to see more")
    if as_json:
        from pageowner.cli.output import write_out
        from pageowner.report.balance_json import to_json
        from pageowner.report.json_text import Json

        write_out(Json(to_json(found)))
    else:
        from pageowner.report.balance_view import draw
        from pageowner.report.terminal import paper

        draw(found, paper(), None if everything else top or _TOP)
