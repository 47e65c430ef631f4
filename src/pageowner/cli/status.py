"""``pageowner status``."""

from __future__ import annotations

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
    from pageowner.tracker import lifecycle

    status = lifecycle.status()
    if as_json:
        import json

        print(json.dumps(tracking.to_json(status), indent=1))
    else:
        tracking.draw_status(status, paper())
