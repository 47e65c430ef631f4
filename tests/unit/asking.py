"""Questions about a source: by the command, and by the call."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pageowner


def run(*words: object) -> tuple[int, str, str]:
    """The command's exit status, standard output and standard error."""
    done = subprocess.run([sys.executable, "-m", "pageowner", *map(str, words)], text=True,
                          capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


def python(code: str) -> str:
    """What a Python of its own prints for this code."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout


def pages_by(source: Any, key: str = "stack") -> dict[Any, int]:
    """The pages (bytes, where the source tells these) of each owner."""
    table = pageowner.owners(source, key).table
    return dict(zip(table[key].to_pylist(), table["pages"].to_pylist(), strict=True))
