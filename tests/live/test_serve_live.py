"""`serve` and `record --on` of this machine's tracker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from served import Server, serving

import pageowner
from pageowner.storage import witnessed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("bpf", "tracking")

LEAKING = Path(__file__).parents[2] / "benchmarks/leaking.py"


@pytest.fixture(scope="module")
def server(bpf: object, tracking: None) -> Iterator[Server]:
    with serving("--every", "1s", "--window", "8s") as found:
        found.figures()
        yield found


def samples(server: Server) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in server.get("/metrics").body.decode().splitlines()
            if line and not line.startswith("#")}


def test_metrics_of_the_tracker_are_there_and_add_up(server: Server) -> None:
    found = samples(server)
    assert found["pageowner_tracking"] == 1
    assert found["pageowner_memo_differences_total"] == 0
    assert found["pageowner_tracker_memory_bytes"] > 1 << 20
    assert found["pageowner_allocations_total"] > 0
    owned = found['pageowner_memory_bytes{state="owned"}']
    for name in ("stack", "subsystem", "cgroup"):
        total = sum(value for key, value in found.items()
                    if key.startswith(f"pageowner_{name}_bytes"))
        assert total == owned, name
    assert sum(value for key, value in found.items() if key.startswith("pageowner_balance_bytes")
               ) == found["pageowner_total_bytes"]


def test_owners_now_are_those_of_report(server: Server) -> None:
    """Others take and free memory between the two: of several pairs one is of a quiet moment."""
    for _ in range(10):
        now = server.get("/api/owners?by=subsystem").json()["bytes"]
        report = os.sysconf("SC_PAGE_SIZE") * sum(
            row["pages"] for row in pageowner.owners(None, "subsystem").table.to_pylist())
        if now == pytest.approx(report, rel=0.05):
            break
        time.sleep(1)  # until it looks again
    assert now == pytest.approx(report, rel=0.05)


def test_a_leak_is_in_the_metrics_and_not_without_it(server: Server) -> None:
    with subprocess.Popen([sys.executable, LEAKING, "pipes", str(8 << 20)],
                          stdin=subprocess.PIPE) as program:
        deadline = time.monotonic() + 60
        while not [key for key in samples(server) if "pageowner_leak_bytes" in key
                   and "pipe" in key]:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        program.communicate()
    deadline = time.monotonic() + 60
    while [key for key in samples(server) if "pageowner_leak_bytes" in key and "pipe" in key]:
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_a_capture_of_an_event_names_who_has_the_memory(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    with subprocess.Popen([sys.executable, LEAKING, "pipes", str(64 << 20)],
                          stdin=subprocess.PIPE) as program:
        time.sleep(3)
        process = subprocess.Popen(
            [sys.executable, "-m", "pageowner", "record", str(folder), "--every", "1h", "--on",
             "low=99.9999%,growth=100MiB/10s"], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        # What else takes as much meanwhile is told too; the next event of growth comes soon.
        while not {"low", "growth of pipes"} <= {
                "growth of pipes" if re.search(r"pipe[^;]* more\b", event.text) else event.event
                for event in witnessed.events(folder)}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.terminate()
        process.communicate(timeout=30)
        program.communicate()
    done = subprocess.run([sys.executable, "-m", "pageowner", "report", str(folder), "--at", "low",
                           "--by", "subsystem", "--json"], capture_output=True, check=True)
    rows = {row["subsystem"]: row["bytes"] for row in json.loads(done.stdout)["owners"]}
    assert rows["pipes"] > 100 << 20
    assert witnessed.capture_of(folder, "growth")[0].stat().st_size


def test_serve_captures_events_where_nobody_records(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    with serving("--history", folder, "--on", "low=99.9999%"):
        deadline = time.monotonic() + 60
        while not witnessed.events(folder):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        busy = subprocess.run([sys.executable, "-m", "pageowner", "record", str(folder)],
                              capture_output=True, text=True)
        assert (busy.returncode, busy.stderr.count("\n")) == (1, 1)
        assert "another process already records to it" in busy.stderr
    path, text = witnessed.capture_of(folder, "low")
    assert "available" in text
    assert pageowner.read(path).pages > 0
