"""``pageowner diff`` finds on this machine what a program took since a snapshot was saved."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done

PIPES = 200
HOLD = f"""
import fcntl, os, sys
for _ in range({PIPES}):
    into = os.pipe()[1]
    fcntl.fcntl(into, 1031, 1 << 16)  # F_SETPIPE_SZ
    os.write(into, b"x" * (1 << 16))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("tracking")
def test_pipes_filled_since_are_found(tmp_path: Path, cli: Callable[..., Done]) -> None:
    before, after = tmp_path / "before.parquet", tmp_path / "after.parquet"
    assert cli("save", before).status == 0
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdin
        assert holder.stdout.readline() == b"held\n"
        done = cli("diff", before, "--by", "pid,subsystem", "--json", "--fail-over", "10MiB")
        assert cli("save", after).status == 0
        holder.stdin.close()
    held = PIPES * 16
    found = {(one["pid"], one["subsystem"]): one for one in json.loads(done.out)["changes"]}
    one = found[holder.pid, "pipes"]
    assert held <= one["gained"] <= held + 64
    assert one["became"] == "new"
    assert done.status == 3  # 12.5 MiB
    # and gone again, as two snapshots tell it
    assert cli("save", before).status == 0
    said = json.loads(cli("diff", after, before, "--by", "pid,subsystem", "--json").out)
    (gone,) = [one for one in said["changes"]
               if (one["pid"], one["subsystem"]) == (holder.pid, "pipes")]
    assert (gone["became"], gone["gained"]) == ("gone", 0)
    assert gone["lost"] == one["gained"]
