"""The version of a kernel by its release, ``6.1.0-28-amd64``."""

from __future__ import annotations

import re

__all__ = ["version"]


def version(release: str | None) -> tuple[int, int]:
    """The first two numbers; (0, 0) if it does not begin with them."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", release or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)
