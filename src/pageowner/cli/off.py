"""``pageowner off``."""

from __future__ import annotations

from pageowner.cli.verb import verb

__all__ = ["command"]

_EXAMPLES = (
    ("sudo pageowner off", "stop tracking now"),
)


@verb("off", *_EXAMPLES)
def command() -> None:
    """Stop tracking and leave nothing behind, also after a crash."""
    from pageowner.tracker import lifecycle

    print("tracking is off" if lifecycle.off() else "tracking was not on")
