"""``pageowner off``."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("off")
def command() -> None:
    """Stop tracking and leave nothing behind, also after a crash."""
    from pageowner.tracker import lifecycle

    print("tracking is off" if lifecycle.off() else "tracking was not on")
