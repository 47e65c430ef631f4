"""``pageowner who``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import complete
from pageowner.cli.options import as_json, at_time, load
from pageowner.cli.verb import verb
from pageowner.kernel.limits import PFN_BITS

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot
    from pageowner.tracker.read.last_free import LastFree

__all__ = ["command"]

_KERNELS_RANGE = re.compile(r"\[([0-9a-f]+),\s*([0-9a-f]+)\)")
"""As the kernel's log has them, hexadecimal, the second one not included: mm/page_alloc.c,
``alloc_contig_range: [%lx, %lx) PFNs busy``."""


_AT_ONCE = 16
"""Up to so many frames are looked at one by one."""


class _Frames(click.ParamType[tuple[int, int]]):
    """A page frame number, decimal or 0x hexadecimal, or a range of them: as (first, last)."""

    name = "PFN"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[int, int]:
        text = str(value)
        try:
            if kernels := _KERNELS_RANGE.fullmatch(text):
                first, last = int(kernels[1], 16), int(kernels[2], 16) - 1
            else:
                words = text.split("-") if text.count("-") == 1 and text[0] != "-" else [text]
                first, last = int(words[0], 0), int(words[-1], 0)
            if first < 0:
                raise ValueError
        except ValueError:
            self.fail(f"{text!r} is not a page frame number or a range of them; write 1234, 0x4d2,"
                      " 0x1000-0x1fff or '[1000, 2000)'", param, ctx)
        if last < first:
            self.fail(f"{text!r} ends before it begins", param, ctx)
        if last >> PFN_BITS:
            self.fail(f"{text} is beyond the page frames that a machine can have", param, ctx)
        return first, last


class _Address(click.ParamType[int]):
    """An address in bytes."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> int:
        try:
            address = int(str(value), 0)
        except ValueError:
            address = -1
        if not 0 <= address < 1 << 64:
            self.fail(f"{value!r} is not an address; write 0x1a2b3000", param, ctx)
        return address


class _Virtual(click.ParamType[tuple[int, int]]):
    """A process and an address in it."""

    name = "PID:ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[int, int]:
        pid, colon, address = str(value).partition(":")
        if not colon or not pid.isascii() or not pid.isdigit() or len(pid) > 10:
            self.fail(f"{value!r} is not an address of a process; write 1234:0x7f0012345000",
                      param, ctx)
        return int(pid), _Address().convert(address, param, ctx)


_EXAMPLES = (
    ("pageowner who 0x1a2b3", "of this machine"),
    ("pageowner who 6699 6700 -s dump.txt", "of a dump"),
    ("pageowner who 0x1000-0x1fff", "of all frames from 0x1000 to 0x1fff, both included"),
    ("pageowner who '[8800, 8a00)'", "as the kernel writes 'PFNs busy' to its log"),
    ("pageowner who --virt 1234:0x7f0012345000", "behind an address of process 1234"),
)


@verb("who", *_EXAMPLES)
@click.argument("frames", nargs=-1, type=_Frames(), metavar="[PFN|FIRST-LAST]...")
@click.option("--phys", multiple=True, type=_Address(), metavar="ADDRESS",
              help="The page at this physical address.")
@click.option("--virt", multiple=True, type=_Virtual(), metavar="PID:ADDRESS",
              help="The page at this address of a process of this machine.")
@click.option("-s", "--source", metavar="SOURCE", shell_complete=complete.files,
              help="A dump or a snapshot, not this machine.")
@at_time
@click.option("--top", type=click.IntRange(min=1), default=40, metavar="N", show_default=True,
              help="Of a range show N blocks.")
@as_json
def command(frames: tuple[tuple[int, int], ...], phys: tuple[int, ...],
            virt: tuple[tuple[int, int], ...], source: str | None, top: int,
            as_json: bool) -> None:
    """All that is known of page frames, or a line for each block of a range of them.

    With 'pageowner on --free' it says too who freed the page last; of a free page, too.
    """
    if not frames and not phys and not virt:
        raise click.UsageError("name a page frame, --phys or --virt")
    if virt and source is not None:
        raise click.UsageError("--virt asks this machine, -s something else; use one of them")
    from pageowner.kernel.pagemap import frame_of

    wanted = [*frames, *((pfn, pfn) for pfn in (frame_of(*one) for one in virt))]
    if source is None and _at_once(wanted, phys, as_json):
        return
    snapshot = _read(source, wanted, phys)
    wanted += [(pfn, pfn) for pfn in (one // snapshot.meta.page_size for one in phys)]
    single = [first for first, last in wanted if first == last]
    rows = {pfn: _rows(snapshot, pfn, pfn) for pfn in single}
    # Of a block it is known when the one that began at its first page was freed.
    heads = {pfn: rows[pfn][0]["pfn"] if rows[pfn] else pfn for pfn in single}
    freed = _freed(set(heads.values())) if (
        single and snapshot.meta.kind == "tracker" and not source) else {}
    if as_json:
        import json

        from pageowner.report import page_view, range_view

        print(json.dumps([
            page_view.to_json(first, rows[first], freed.get(heads[first])) if first == last
            else range_view.to_json(first, last, _rows(snapshot, first, last))
            for first, last in wanted], indent=1))
    else:
        _draw(snapshot, wanted, rows, heads, freed, top)
    if not all(rows[pfn] or heads[pfn] in freed for pfn in single):
        raise click.exceptions.Exit(1)


def _at_once(frames: list[tuple[int, int]], phys: tuple[int, ...], as_json: bool) -> bool:
    """Answer for single frames of this machine without a capture, if none is in doubt: without
    NumPy and Arrow, whose imports take longer than all of this."""
    from pageowner.sources.source import is_tracking

    if len(frames) + len(phys) > _AT_ONCE or any(first != last for first, last in frames) or (
            not is_tracking()):
        return False
    import mmap

    from pageowner.model.columns import SAVED
    from pageowner.tracker.read import single

    pfns = [first for first, _ in frames] + [one // mmap.PAGESIZE for one in phys]
    answers = single.look(pfns, SAVED)
    if answers is None:
        return False
    from pageowner.analysis.shorten import short
    from pageowner.report import page_view

    rows = [[] if one.row is None else [
        {name: short(value, name == "stack") if isinstance(value, str) else value
         for name, value in one.row.items()}] for one in answers]
    if as_json:
        import json

        print(json.dumps([page_view.to_json(pfn, row, one.freed) for pfn, row, one in zip(
            pfns, rows, answers, strict=True)], indent=1))
    else:
        from pageowner.report.terminal import paper

        sheet = paper()
        for place, (pfn, row, one) in enumerate(zip(pfns, rows, answers, strict=True)):
            if place:
                sheet.line()
            page_view.draw(pfn, row, one.meta, one.meta.clock_ns or 0, sheet, one.freed)
    if not all(row or one.freed for row, one in zip(rows, answers, strict=True)):
        raise click.exceptions.Exit(1)
    return True


def _draw(snapshot: Snapshot, wanted: list[tuple[int, int]], rows: dict[int, list[dict[str, Any]]],
          heads: dict[int, int], freed: dict[int, LastFree], top: int) -> None:
    from pageowner.analysis.select import newest_ns
    from pageowner.report import page_view, range_view
    from pageowner.report.terminal import paper

    sheet = paper()
    for place, (first, last) in enumerate(wanted):
        if place:
            sheet.line()
        if first == last:
            page_view.draw(first, rows[first], snapshot.meta, newest_ns(snapshot), sheet,
                      freed.get(heads[first]))
        else:
            range_view.draw(first, last, _rows(snapshot, first, last), snapshot.meta, sheet, top)


def _read(source: str | None, wanted: list[tuple[int, int]], phys: tuple[int, ...]) -> Snapshot:
    """What is known of these frames: of this machine no more is looked at."""
    from pageowner.sources.source import is_tracking

    if source is not None or not is_tracking():
        return load(source)
    import mmap

    from pageowner.analysis.shorten import shortened
    from pageowner.tracker.read.capture import capture_near

    pages = [(one // mmap.PAGESIZE,) * 2 for one in phys]
    return shortened(capture_near([(first, last + 1) for first, last in (*wanted, *pages)]))


def _rows(snapshot: Snapshot, first: int, last: int) -> list[dict[str, Any]]:
    from pageowner.analysis.lookup import covering

    found: list[dict[str, Any]] = snapshot.table.take(covering(snapshot, first, last)).to_pylist()
    return found


def _freed(pfns: set[int]) -> dict[int, LastFree]:
    from pageowner.tracker.read.last_free import last_frees
    from pageowner.tracker.read.maps import open_store

    with open_store() as store:
        return last_frees(store, pfns)
