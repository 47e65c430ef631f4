"""``pageowner who``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import completing
from pageowner.cli.options import as_json, at_time, load
from pageowner.cli.verb import verb
from pageowner.kernel.limits import PFN_BITS

if TYPE_CHECKING:
    from pageowner.tracker.last_free import LastFree

__all__ = ["command"]


class _Pfn(click.ParamType[int]):
    """A page frame number, decimal or 0x hexadecimal."""

    name = "PFN"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> int:
        try:
            pfn = int(str(value), 0)
            if pfn < 0:
                raise ValueError
            if pfn >> PFN_BITS:
                self.fail(f"{value} is beyond the page frames that a machine can have", param, ctx)
        except ValueError:
            self.fail(f"{value!r} is not a page frame number; write 1234 or 0x4d2", param, ctx)
        return pfn

_EXAMPLES = (
    ("pageowner who 0x1a2b3", "of this machine"),
    ("pageowner who 6699 6700 -s dump.txt", "of a dump"),
)


@verb("who", *_EXAMPLES)
@click.argument("pfns", nargs=-1, required=True, type=_Pfn(), metavar="PFN...")
@click.option("-s", "--source", metavar="SOURCE", shell_complete=completing.files,
              help="A dump or a snapshot, not this machine.")
@at_time
@as_json
def command(pfns: tuple[int, ...], source: str | None, as_json: bool) -> None:
    """All that is known of page frames.

    With 'pageowner on --free' it says too who freed the page last; of a free page, too.
    """
    snapshot = load(source)
    from pageowner.analysis.lookup import covering
    from pageowner.analysis.select import newest_ns
    from pageowner.report import page
    from pageowner.report.terminal import paper

    found = [(pfn, snapshot.table.take(covering(snapshot, pfn)).to_pylist()) for pfn in pfns]
    # Of a block it is known when the one that began at its first page was freed.
    heads = {pfn: rows[0]["pfn"] if rows else pfn for pfn, rows in found}
    freed = _freed(set(heads.values())) if snapshot.meta.kind == "tracker" and not source else {}
    if as_json:
        import json

        print(json.dumps([page.to_json(pfn, rows, freed.get(heads[pfn])) for pfn, rows in found],
                         indent=1))
    else:
        sheet = paper()
        for place, (pfn, rows) in enumerate(found):
            if place:
                sheet.line()
            page.draw(pfn, rows, snapshot.meta, newest_ns(snapshot), sheet,
                      freed.get(heads[pfn]))
    if not all(rows or heads[pfn] in freed for pfn, rows in found):
        raise click.exceptions.Exit(1)


def _freed(pfns: set[int]) -> dict[int, LastFree]:
    from pageowner.tracker.last_free import last_frees
    from pageowner.tracker.maps import open_store

    with open_store() as store:
        return last_frees(store, pfns)
