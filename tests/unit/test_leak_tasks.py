"""`leaks` names the tasks that leak through a stack, by what they allocated since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from test_leaks import LEAK, START, S

from pageowner.model.snapshot import Metadata, Snapshot


def shared(tmp_path: Path, replaced: int = 0) -> list[Path]:
    """Two programs that leak through one stack, three quarters and a quarter, beside pages of a
    third that were there before, so many of which it gives back and takes again."""
    who = {"mostly\x1b[31m": 7, "partly": 8}
    paths = []
    for second in range(0, 60, 10):
        rows = [("old", 9, -500.0)] * (500 - replaced) + [("old", 9, second - 1.0)] * replaced + [
            ("partly" if place % 4 == 3 else "mostly\x1b[31m", 0, at)
            for place, at in enumerate(np.arange(-19.95, second, 0.1).tolist())]
        paths.append(tmp_path / f"{second:02}.parquet")
        Snapshot.from_columns({
            "pfn": np.arange(len(rows)), "order": np.zeros(len(rows), np.uint8),
            "stack": [LEAK] * len(rows), "comm": [comm for comm, _, _ in rows],
            "tgid": [who.get(comm, 9) for comm, _, _ in rows],
            "pid": [who.get(comm, 9) for comm, _, _ in rows],
            "ts_ns": np.array([START + at * S for _, _, at in rows], np.uint64)},
            Metadata(kind="tracker", boot_id="b", clock_ns=START + second * S)).save(paths[-1])
    return paths


def test_who_leaks_through_a_stack_is_named_by_what_came_since(
        cli: Callable[..., tuple[int, bytes, bytes]], tmp_path: Path) -> None:
    status, out, _ = cli("leaks", *shared(tmp_path))
    assert status == 0
    below = out.decode().split("\n\n")[2].split("\n")
    assert below[0].endswith(" an hour, pipes")
    assert below[1].strip() == (
        "by mostly\\x1b[31m (pid 7) 75 %, partly (pid 8) 25 %")
    assert below[2].strip() == "anon_pipe_write ← vfs_write"


def test_shares_are_of_all_that_came_since(cli: Callable[..., tuple[int, bytes, bytes]],
                                           tmp_path: Path) -> None:
    paths = shared(tmp_path, replaced=500)
    text = cli("leaks", *paths)[1].decode()
    assert "by old (pid 9) 50 %, mostly\\x1b[31m (pid 7) 38 %, partly (pid 8) 12 %" in text
    leak, = json.loads(cli("leaks", *paths, "--json")[1])["owners"]
    assert leak["came"] == sum(one["pages"] for one in leak["tasks"]) > leak["gained"]


def test_json_names_who_leaks(cli: Callable[..., tuple[int, bytes, bytes]],
                              tmp_path: Path) -> None:
    leak, = json.loads(cli("leaks", *shared(tmp_path), "--json")[1])["owners"]
    assert [(one["comm"], one["tgid"]) for one in leak["tasks"]] == [
        ("mostly\x1b[31m", 7), ("partly", 8)]
    assert sum(one["pages"] for one in leak["tasks"]) == leak["gained"]
