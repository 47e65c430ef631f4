"""``pageowner who``: Everything known about a page frame."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import about_users, as_json, at_time, load
from pageowner.cli.output import write_out
from pageowner.cli.page_frames import AddressType, FramesType, VirtualType
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.api.who import Frames

__all__ = ["command"]

_TOP = 40


@verb("who")
@click.argument("frames", nargs=-1, type=FramesType(), metavar="[PFN|FIRST-LAST|OBJECT]...")
@click.option("--phys", multiple=True, type=AddressType(), metavar="ADDRESS",
              help="The page at this physical address.")
@click.option("--virt", multiple=True, type=VirtualType(), metavar="PID:ADDRESS",
              help="The page at this virtual address of a process on this machine.")
@click.option("-s", "--source", metavar="SOURCE", shell_complete=complete.files,
              help="Read a dump or a snapshot instead of this machine.")
@at_time
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help=f"Show at most N blocks of a range ({_TOP} by default; JSON has all).")
@click.option("--user", "users", is_flag=True,
              help="Also find what uses each page now, as report --by user does; for a single page"
              " without a stack this is always shown.")
@as_json
def command(frames: tuple[tuple[int, int] | int, ...], phys: tuple[int, ...],
            virt: tuple[tuple[int, int], ...], source: str | None, top: int | None, users: bool,
            as_json: bool) -> None:
    """Everything known about page frames; for a range, a line for each block.

    With 'pageowner on --free' it also shows who last freed the page, even if the page is free now.
    With 'pageowner on --objects' it takes addresses of objects in slabs, which begin with 0xffff on
    most machines: the object's owner, and the other objects in its slab.

    Exit status 1 if nothing is known of an object, or of a page that is not part of a range.

    Examples:
        pageowner who 0x1a2b3                     a page of this machine
        pageowner who 6699 6700 -s dump.txt       two pages of a dump
        pageowner who --user 0x1000-0x1fff        all frames from 0x1000 to 0x1fff, inclusive
        pageowner who '[8800, 8a00)'              as the kernel writes 'PFNs busy' to its log
        pageowner who --virt 1234:0x7f0012345000  the page at an address of process 1234
        pageowner who 0xffff888012345680          the object in a slab at this address
    """
    if not frames and not phys and not virt:
        raise click.UsageError("name a page frame, --phys or --virt")
    if virt and source is not None:
        raise click.UsageError("--virt asks this machine, -s something else; use one of them")
    addresses = [name for name in frames if isinstance(name, int)]
    if addresses:
        if len(addresses) < len(frames) or phys or virt or source is not None:
            raise click.UsageError("name either objects of this machine by their address, or pages")
        _objects(addresses, top or _TOP, as_json)
        return
    from pageowner.api.who import who

    # what is shown has an end, which is put to the rows that are
    pages = [name for name in frames if not isinstance(name, int)]
    answers = [replace(answer, blocks=[_short(row) for row in answer.blocks]) for answer in who(
        *pages, phys=phys, virt=virt, source=source, read=partial(load, whole=True), users=users)]
    for line in dict.fromkeys(line for answer in answers for line in about_users(answer.meta)):
        say(line)
    if as_json:
        from pageowner.report import page_view, range_view
        from pageowner.report.json_text import Json

        write_out(Json([
            page_view.document(answer.first, answer.blocks, answer.last_free, answer.page_flags)
            if answer.is_single else
            range_view.document(answer.first, answer.last, answer.blocks, top)
            for answer in answers]))
    else:
        _draw(answers, top or _TOP)
    if not all(answer.blocks or answer.last_free for answer in answers if answer.is_single):
        raise click.exceptions.Exit(1)


def _objects(addresses: list[int], top: int, as_json: bool) -> None:
    from pageowner.api.who_object import who_object
    from pageowner.report import slab_page
    from pageowner.report.json_text import Json
    from pageowner.report.terminal import paper

    answers = [who_object(address) for address in addresses]
    if as_json:
        write_out(Json([slab_page.document(answer) for answer in answers]))
    else:
        sheet = paper()
        for place, answer in enumerate(answers):
            if place:
                sheet.line()
            slab_page.draw(answer, sheet, top)
    if not all(answer.object for answer in answers):
        raise click.exceptions.Exit(1)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    from pageowner.analysis.shorten import short

    return {name: short(value, name in ("stack", "notes")) if isinstance(value, str) else value
            for name, value in row.items()}


def _draw(answers: list[Frames], top: int) -> None:
    from pageowner.report.terminal import paper

    sheet = paper()
    for place, answer in enumerate(answers):
        if place:
            sheet.line()
        if answer.is_single:
            from pageowner.report import page_view

            page_view.draw(answer.first, answer.blocks, answer.meta, answer.now_ns, sheet,
                           answer.last_free, answer.page_flags)
        else:
            from pageowner.report import range_view

            range_view.draw(answer.first, answer.last, answer.blocks, answer.meta, sheet, top)
