"""``pageowner explain``: What a kernel log says about memory: OOM, failed allocations, bad
pages."""

from __future__ import annotations

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import about_vmcores, as_json
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("explain")
@click.argument("log", required=False, metavar="[LOG]", shell_complete=complete.files)
@click.option("--last", type=click.IntRange(min=1), metavar="N",
              help="Show only the last N reports.")
@click.option("--page-size", type=click.Choice(["4096", "8192", "16384", "65536"]),
              help="Bytes of a page, if the log does not show it.")
@about_vmcores
@as_json
def command(log: str | None, last: int | None, page_size: str | None, as_json: bool) -> None:
    """What a kernel log says about memory, and which commands to run next.

    LOG is the output of dmesg, journalctl or a serial console; - is standard input; without LOG,
    this machine's own log is read. It explains out-of-memory kills (what the memory was used for),
    failed allocations (too little memory, or too fragmented), bad pages and KASAN reports (who
    allocated the page, who freed it), busy ranges, and memory that could not be taken offline.

    Examples:
        sudo pageowner explain                  this machine's log
        pageowner explain console.log --last 1  the last report of a serial console
        pageowner explain -                     the log from a pipe, such as of 'journalctl -k'
    """
    from pageowner.api.explain import explain
    from pageowner.report.explain_view import draw, warnings
    from pageowner.report.terminal import paper

    found = explain(log, page_size=None if page_size is None else int(page_size))
    if last is not None:
        found = found.only_last(last)
    notes = warnings(found)
    for note in notes:
        say(note)
    if as_json:
        import json

        from pageowner.report.explain_json import to_json

        print(json.dumps(to_json(found, notes), indent=1))
    else:
        draw(found, paper())
