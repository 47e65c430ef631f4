"""Fleets to ask: machines by hand, and the made-up one of benchmarks/."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pageowner import Snapshot
from pageowner.fleet.capture import Capture, Machine, capture_of
from pageowner.fleet.pushing import push
from pageowner.fleet.spool import Spool
from pageowner.fleet.store import Store

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

START = 1_795_132_800.0  # 2026-11-20, 00:00 UTC
WHEN = {"since": "2026-11-20T00:00+00:00", "until": "2026-12-20T00:00+00:00"}


def capture(snapshot: Snapshot, host: str, *, hour: float = 0, share: float = 1.0,
            boot: str = "one", clock_h: float | None = None, seed: int = 0,
            least: int = 1 << 16, since: int | None = None, **about: Any) -> Capture:
    """A share of a snapshot's rows, as a machine's capture."""
    rows = np.random.default_rng(seed).random(snapshot.table.num_rows) < share
    clock = (snapshot.meta.clock_ns or 0) + round((hour if clock_h is None else clock_h) * 3.6e12)
    part = Snapshot(snapshot.table.filter(rows), replace(
        snapshot.meta, boot_id=f"{host}-{boot}", clock_ns=clock,
        extra=snapshot.meta.extra | {"since_ns": since}))
    return capture_of(part, Machine(host=host, taken=START + hour * 3600, **about), least)


def pushed(folder: Path, captures: Iterable[Capture]) -> Path:
    """A store with these captures."""
    store = Store(str(folder / "store"))
    for one in captures:
        push(one, store, Spool(folder / "spool", store.place, 1 << 30))
    return folder / "store"
