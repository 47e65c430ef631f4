"""``pageowner status``."""

from __future__ import annotations

import click

from pageowner.cli.options import as_json

__all__ = ["command"]


@click.command("status")
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
