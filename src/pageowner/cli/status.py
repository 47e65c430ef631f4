"""``pageowner status``: What is tracked, what it costs, what was missed."""

from __future__ import annotations

from pageowner.cli.options import as_json
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("status")
@as_json
def command(as_json: bool) -> None:
    """What is tracked, what it costs, what was missed.

    Examples:
        sudo pageowner status         since when, how complete, at what cost
        sudo pageowner status --json  the same for programs
    """
    from pageowner.api.status import status
    from pageowner.report import status_view
    from pageowner.report.terminal import paper
    from pageowner.tracker import at_boot

    found = status()
    if as_json:
        write_out(status_view.to_json(found, at_boot.is_enabled()))
        return
    sheet = paper()
    status_view.draw_status(found, sheet)
    if at_boot.is_installed():
        status_view.draw_at_boot(at_boot.UNIT, at_boot.is_unchanged(), at_boot.is_enabled(),
                              at_boot.WORD, at_boot.is_wanted(), sheet)
