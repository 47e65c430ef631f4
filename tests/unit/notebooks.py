"""Notebooks as they are: their cells of code, run one after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOWTO = Path(__file__).parents[2] / "docs/howto"


def run(name: str) -> dict[str, Any]:
    """What the cells leave behind, by name."""
    names: dict[str, Any] = {}
    document = json.loads((HOWTO / name).read_text())
    assert document["nbformat"] == 4
    for number, cell in enumerate(document["cells"]):
        assert set(cell) >= {"cell_type", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), f"{name}:{number}", "exec"), names)
    return names
