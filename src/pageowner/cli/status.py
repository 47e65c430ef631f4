"""``pageowner status``."""

from __future__ import annotations

from dataclasses import replace

from pageowner.cli.options import as_json
from pageowner.cli.verb import verb

__all__ = ["command"]

_EXAMPLES = (
    ("sudo pageowner status", "since when, how complete, at what price"),
    ("sudo pageowner status --json", "the same for programs"),
)


@verb("status", *_EXAMPLES)
@as_json
def command(as_json: bool) -> None:
    """What is tracked, what it costs, what was missed."""
    from pageowner.report import tracking
    from pageowner.report.terminal import paper
    from pageowner.tracker import at_boot, lifecycle
    from pageowner.tracker.maps import open_store
    from pageowner.tracker.untracked import MOST_FRAMES, untracked

    status = lifecycle.status()
    if status.on and status.frames <= MOST_FRAMES:
        with open_store() as store:
            pages, groups = untracked(store)
        status = replace(status, untracked=pages, unexplained=groups)
    if as_json:
        import json

        print(json.dumps({**tracking.to_json(status), "at_boot": at_boot.is_enabled()}, indent=1))
        return
    sheet = paper()
    tracking.draw_status(status, sheet)
    if at_boot.is_installed():
        tracking.draw_at_boot(at_boot.UNIT, at_boot.is_unchanged(), at_boot.is_enabled(),
                              at_boot.WORD, at_boot.is_wanted(), sheet)
