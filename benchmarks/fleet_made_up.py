"""A fleet that never was, out of real captures: thousands of machines, days, planted leaks.

    fleet_made_up.py STORE [MACHINES [DAYS]]

The owners are those of the real dumps in tests/data. Each machine has most of them, larger or
smaller; each breathes through the day and at random; some machines restart. ``LEAKING`` machines
lose 1 MiB an hour beneath an owner that breathes by 100 MiB, and 5 % of the machines have driver
2.1, which keeps 64 MiB more than 2.0. Written as compaction writes it, one file an hour.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

import pageowner
from common import ROOT
from pageowner.fleet import layout
from pageowner.fleet.arrow import OWNERS_SCHEMA, as_parquet
from pageowner.fleet.capture import Machine, capture_of
from pageowner.fleet.columns import AGES, age_column, age_ns
from pageowner.fleet.compaction import hour_file, stacks_file
from pageowner.fleet.store import Store

MACHINES, DAYS, LEAKING = 2000, 7, 20
START = 1_795_132_800.0  # 2026-11-20, 00:00 UTC
LEAK_PAGES = 256  # an hour
BREATH_PAGES = 25_600
DRIVER_PAGES = 16_384
LEAKS_THROUGH, DRIVER = "anon_pipe_write", "nicdrv_alloc_rx"
KERNELS = ("6.12.95", "6.12.107")


@dataclass
class Fleet:
    """What is planted: the hosts that leak, those with the bad driver, and the stacks' ids."""

    leaking: list[str]
    bad: list[str]
    leak_stack: int
    driver_stack: int
    captures: int


def real_dumps() -> list[pageowner.Snapshot]:
    """Those whose owners the machines have."""
    return [pageowner.read(ROOT / f"tests/data/{kernel}/page_owner.txt.xz")
            for kernel in ("6.12-fragmented", "6.1-sample")]


def templates(dumps: Iterable[pageowner.Snapshot]) -> tuple[pa.Table, pa.Table]:
    """The owners of the real dumps and their stacks."""
    owners, stacks = [], []
    for snapshot in dumps:
        found = capture_of(snapshot, Machine(host="x", taken=START), 1 << 16)
        owners.append(found.owners)
        stacks.append(found.stacks)
    return pa.concat_tables(owners), pa.concat_tables(stacks)


class Maker:
    """Makes the captures of each hour."""

    def __init__(self, machines: int, days: int, seed: int = 1,
                 dumps: Iterable[pageowner.Snapshot] | None = None) -> None:
        self.random = np.random.default_rng(seed)
        self.machines, self.hours = machines, days * 24
        owners, self.stacks = templates(real_dumps() if dumps is None else dumps)
        rows = owners.to_pylist()
        rest = next(row for row in rows if row["stack_id"] == 0)
        rows = [row for row in rows if row["stack_id"] and row["pages"] < 20_000]
        text = dict(zip(*(self.stacks[name].to_pylist() for name in ("stack_id", "stack")),
                        strict=True))
        self.driver = self._driver_row(rows[0])
        self.rows = [*rows, self.driver, rest]
        self.leak_row = next(place for place, row in enumerate(self.rows)
                             if (text.get(row["stack_id"]) or "").startswith(LEAKS_THROUGH)
                             or place == len(self.rows) - 3)
        of_owner = np.array([max(row["pages"], 16) for row in self.rows], float)
        self.base = of_owner * self.random.lognormal(0, 0.5, (machines, len(self.rows)))
        self.base[self.random.random(self.base.shape) < 0.1] = 0
        self.base[:, -1] = of_owner[-1] + 16  # the row of small owners is always there
        self.phase = self.random.uniform(0, 2 * np.pi, machines)
        self.old = self.random.choice([0.0, 0.2, 0.9], len(self.rows), p=[0.4, 0.3, 0.3])
        # hours of uptime at the start; one in ten restarts in the time
        self.uptime = self.random.uniform(1, 2000, machines)
        self.restart = np.where(self.random.random(machines) < 0.1,
                                self.random.integers(1, self.hours, machines), self.hours + 1)
        self.leaking = self.random.choice(machines, min(LEAKING, machines), replace=False)
        self.restart[self.leaking] = self.hours + 1
        self.bad = np.zeros(machines, bool)
        self.bad[self.random.choice(machines, machines // 20, replace=False)] = True
        self.base[:, -2] = np.where(self.bad, DRIVER_PAGES, 256) * self.random.lognormal(
            0, 0.3, machines)
        self.base[self.leaking, self.leak_row] = BREATH_PAGES
        self.wander = np.zeros(self.base.shape)
        self.skew = self.random.uniform(0, 3600, machines)
        self.host = [f"host{number:05}" for number in range(machines)]
        self.machine_at = pa.array(np.tile(np.arange(machines), len(self.rows)))
        self.constant = self._constant()

    def _of_machine(self, values: Any) -> pa.Array:
        """For each owner of each machine, what its machine has."""
        return pa.array(values).take(self.machine_at)

    def _constant(self) -> dict[str, pa.Array]:
        """Columns that are the same in every hour."""
        owner_at = pa.array(np.repeat(np.arange(len(self.rows)), self.machines))
        of_owner = {field.name: pa.array([row[field.name] for row in self.rows], field.type)
                    .take(owner_at) for field in OWNERS_SCHEMA if field.name in self.rows[0]}
        return of_owner | {
            "host": self._of_machine(self.host),
            "machine": self._of_machine([f"{place:016x}" for place in range(self.machines)]),
            "kernel": self._of_machine([KERNELS[place % 3 == 0] for place in range(self.machines)]),
            "labels": self._of_machine([
                json.dumps({"driver": "2.1" if bad else "2.0", "rack": str(place % 40)})
                for place, bad in enumerate(self.bad)]),
            "clock_ahead_s": self._of_machine(np.zeros(self.machines)),
            "page_size": self._of_machine(np.full(self.machines, 4096, np.int32))}

    def _driver_row(self, like: dict[str, Any]) -> dict[str, Any]:
        stack = f"{DRIVER} [nicdrv]\nnapi_poll [nicdrv]\nnet_rx_action"
        number = -4_242_424_242_424_242_424
        self.stacks = pa.concat_tables([self.stacks, pa.Table.from_pylist([{
            "stack_id": number, "stack": stack, "module": "nicdrv", "frame": f"{DRIVER} [nicdrv]",
            "allocator": "pages"}], self.stacks.schema)])
        return {**like, "stack_id": number, "comm": "ksoftirqd/0", "subsystem": "network buffers",
                "memcg": None, "container": None, "block_order": 0, "migratetype": "Unmovable",
                "state": "owned"}

    def hour(self, hour: int) -> pa.Table:
        """The captures of all machines in one hour."""
        random, machines = self.random, self.machines
        self.wander = 0.9 * self.wander + random.normal(0, 0.03, self.base.shape)
        day = np.sin(2 * np.pi * hour / 24 + self.phase)[:, None]
        noise = random.normal(0, 0.1, self.base.shape)
        young = self.base * (1 - self.old) * (1 + 0.5 * day + noise)
        settled = self.base * self.old * np.clip(1 + self.wander, 0.2, 3)
        up = np.where(hour >= self.restart, hour - self.restart + 0.5, self.uptime + hour)[:, None]
        pages = np.maximum(young + settled, 0).astype(np.int64)
        leaked = np.zeros(machines)
        leaked[self.leaking] = LEAK_PAGES * hour
        pages[:, self.leak_row] += leaked.astype(np.int64)
        pages[:, -1] = np.maximum(pages[:, -1], 1)
        columns: dict[str, Any] = {}
        for age in AGES:
            hours = age_ns(age) / 3.6e12
            old = np.where(up >= hours, settled, 0) + young * np.exp(-hours / 2)
            left = np.zeros(machines)
            left[self.leaking] = LEAK_PAGES * max(hour - hours, 0)
            old[:, self.leak_row] += left
            columns[age_column(age)] = np.clip(old, 0, pages).astype(np.int64).T.ravel()
        here = (pages > 0).T.ravel()
        taken = START + hour * 3600 + self.skew
        clock = (up[:, 0] * 3600 + self.skew).astype(float)
        boot = (hour >= self.restart).astype(np.int64)
        series = np.arange(machines, dtype=np.int64) * 2 + boot + (7 << 40)
        capture = (np.arange(machines, dtype=np.int64) * 100_003 + hour) * 6_364_136_223 + 1
        boots = [f"{number * 2 + again:08x}-boot" for number, again in enumerate(boot.tolist())]
        whole = {**self.constant, "capture": self._of_machine(capture),
                 "series": self._of_machine(series), "boot_id": self._of_machine(boots),
                 "taken": self._of_machine(np.round(taken * 1e6).astype(np.int64)),
                 "clock_s": self._of_machine(clock),
                 "pages": pages.T.ravel(), "blocks": pages.T.ravel(), **columns}
        arrays = [pa.array(whole[field.name]).cast(field.type) for field in OWNERS_SCHEMA]
        return pa.table(arrays, schema=OWNERS_SCHEMA).filter(pa.array(here))

    def planted(self) -> Fleet:
        return Fleet([self.host[one] for one in sorted(self.leaking.tolist())],
                     [self.host[one] for one in np.flatnonzero(self.bad).tolist()],
                     self.rows[self.leak_row]["stack_id"], self.driver["stack_id"],
                     self.machines * self.hours)


def write(store: Store, machines: int = MACHINES, days: int = DAYS, compacted: bool = True,
          seed: int = 1, dumps: Iterable[pageowner.Snapshot] | None = None) -> Fleet:
    """Write a fleet; ``compacted``: a file an hour, else one a capture, as machines push them;
    ``dumps``: the real dumps, if they have been read."""
    maker = Maker(machines, days, seed, dumps)
    store.put(layout.STACKS_FILE, stacks_file(maker.stacks))

    def put(hour: int, table: pa.Table) -> None:
        moment = START + hour * 3600
        if compacted:
            store.put(layout.hour_of(moment).compacted, hour_file(table))
            return
        for number in table.filter(pa.compute.equal(table["stack_id"], 0))["capture"].to_pylist():
            one = table.filter(pa.compute.equal(table["capture"], number))
            store.put(layout.incoming(number, moment), as_parquet(one))

    with ThreadPoolExecutor(2) as pool:
        waiting = []
        for hour in range(maker.hours):
            waiting.append(pool.submit(put, hour, maker.hour(hour)))
            if len(waiting) > 2:
                waiting.pop(0).result()
        for one in waiting:
            one.result()
    return maker.planted()


def main() -> None:
    place, *numbers = sys.argv[1:]
    began = time.time()
    planted = write(Store(place), *map(int, numbers))
    size = sum(path.stat().st_size for path in Path(place).rglob("*.parquet"))
    print(f"{planted.captures:,} captures, {size / 1e6:,.0f} MB, {time.time() - began:.0f} s;"
          f" leaking: {', '.join(planted.leaking)}")


if __name__ == "__main__":
    main()
