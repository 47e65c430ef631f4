"""Other users of the machine: what they lay in the way harms nothing of root's. Each scene has a
mount namespace of its own (tests/safety)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAFETY = Path(__file__).parents[1] / "safety"
SCENES = [node.name for node in ast.parse((SAFETY / "scenes.py").read_text()).body
          if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


@pytest.fixture(scope="session")
def own_mounts() -> None:
    """Skips where no mount namespace can be made."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")


@pytest.mark.usefixtures("bpf", "own_mounts")
@pytest.mark.parametrize("scene", SCENES)
def test_another_user_in_bpffs_harms_nothing_of_roots(scene: str) -> None:
    done = subprocess.run(["unshare", "--mount", sys.executable, SAFETY / "scenes.py", scene],
                          capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("bpf", "own_mounts")
def test_no_race_with_another_user_changes_a_file_of_roots() -> None:
    """More than a hundred; PAGEOWNER_RACES says how many."""
    count = os.environ.get("PAGEOWNER_RACES", "150")
    done = subprocess.run(["unshare", "--mount", sys.executable, SAFETY / "races.py", count],
                          capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "no file of root's changed" in done.stdout
