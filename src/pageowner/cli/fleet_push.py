"""``pageowner fleet push``: Send the owners of this machine's memory to a shared directory
or bucket."""

from __future__ import annotations

import sys
from typing import Any

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import about_dumps, load
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("push")
@click.argument("store", metavar="STORE", shell_complete=complete.folders)
@click.argument("source", required=False, metavar="[SOURCE]", shell_complete=complete.files)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE",
              help="A label of the machine, such as rack=7; may be given several times.")
@click.option("--every", metavar="TIME", help="Push once per TIME, until Ctrl-C.")
@click.option("--count", type=click.IntRange(min=1), metavar="N",
              help="With --every: stop after N captures.")
@click.option("--all", "all_captures", is_flag=True,
              help="Push every capture of a directory written by 'record', not only the newest.")
@click.option("--least", default="64KiB", show_default=True, metavar="SIZE",
              help="Sum up owners of less than SIZE in one row.")
@click.option("--whole", is_flag=True, help="Send the whole snapshot too.")
@click.option("--host", metavar="NAME", help="The machine's name, for a dump.")
@click.option("--kernel", metavar="RELEASE", help="The kernel's release, for a dump.")
@click.option("--taken", metavar="TIME",
              help="When a dump was taken: 14:30, 2026-11-23T14:30, or 2h (ago).")
@click.option("--spool", metavar="DIR", shell_complete=complete.folders,
              help="Where captures wait while STORE cannot be reached. Default: below"
                   " /var/lib/pageowner for"
              " root, ~/.local/state for others.")
@click.option("--spool-limit", default="256MiB", show_default=True, metavar="SIZE",
              help="Drop the oldest waiting captures when all of them take more than SIZE.")
@about_dumps
def command(store: str, labels: tuple[str, ...], taken: str | None, **words: Any) -> None:
    """Send the owners of this machine's memory, or of SOURCE, to STORE.

    STORE is a directory or s3://BUCKET/PREFIX; credentials are those of the environment. A capture
    takes some 10 KB and is written completely or not at all. If STORE cannot be reached, the
    capture waits on disk and is sent with the next one.

    Examples:
        pageowner fleet push /mnt/fleet                              once
        pageowner fleet push s3://memory/fleet --every 1h --label rack=7
            every hour, with a label
        pageowner fleet push STORE dump.txt --host db1 --taken 14:30
            a dump from elsewhere
        pageowner fleet push STORE DIR --all                         all captures of 'record'
    """
    from pageowner.api.fleet import Fleet
    from pageowner.api.fleet_push import labels_of
    from pageowner.model.times import moment

    given = labels_of(labels)
    failed = ""
    for pushed in Fleet(store).push(
            labels=given, taken=None if taken is None else moment(taken),
            read=lambda name: load(name, whole=True), **words):
        failed = _report(pushed, store)
    if failed:
        from pageowner.errors import PageownerError

        raise PageownerError(failed)


def _report(pushed: Any, store: str) -> str:
    """Say what became of a capture; returns what is wrong with it, which ends the command badly if
    it was the last one."""
    from pageowner.errors import PageownerError
    from pageowner.fleet.pushing import CLOCK_S
    from pageowner.report.text import age, count_of, size

    if isinstance(pushed, PageownerError):
        say(f"this capture is lost: {pushed}")
        return "the last capture is lost"
    if pushed.dropped:
        say(f"the spool is full: {count_of(pushed.dropped, 'oldest capture')} dropped; allow more"
            " with --spool-limit")
    if pushed.away:
        say(f"{pushed.away}; {count_of(pushed.waiting, 'object')} kept, to be sent with the next"
            " push")
        return f"{store}: nothing was sent this time"
    ahead = pushed.clock_ahead_s
    if ahead is not None and abs(ahead) > CLOCK_S:
        where = "ahead of" if ahead > 0 else "behind"
        say(f"this machine's clock is {age(abs(ahead) * 1e9)} {where} the store's;"
            " what is captured now is filed by the store's")
    if sys.stderr.isatty():
        others = f", {pushed.sent - 1} more sent" if pushed.sent > 1 else ""
        say(f"{pushed.path}: {size(pushed.size)}{others}", "")
    return ""
