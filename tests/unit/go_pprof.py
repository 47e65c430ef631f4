"""Go's own reader of pprof, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["missing", "pprof"]


def missing() -> str:
    """Why it is not there; else empty."""
    if not shutil.which("go"):
        return "go is not installed (apt-get install golang-go)"
    asked = subprocess.run(["go", "tool", "pprof", "-help"], capture_output=True, check=False)
    return "" if b"-top" in asked.stdout + asked.stderr else "this go has no pprof tool"


def pprof(home: Path, *words: str) -> str:
    """What it prints."""
    return subprocess.run(["go", "tool", "pprof", *words], capture_output=True, text=True,
                          check=True, timeout=120,
                          env={"HOME": str(home), "PATH": "/usr/bin:/bin"}).stdout
