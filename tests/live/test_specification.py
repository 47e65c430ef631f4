"""The in-kernel half does to its store what the page owner in plain Python does."""

from __future__ import annotations

import ctypes
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.load.loading import HOOK_NUMBERS, Sizes, Tracker
from pageowner.tracker.read.layout import SPARES
from pageowner.tracker.read.maps import (
    EARLY,
    EARLY_WORD,
    FILTERED,
    OWNED,
    TASK_SLOT,
    Store,
    hot,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))

from page_owner_spec import Block, PageOwner

FIRST, PAGES = 1 << 16, 1 << 14
VMEMMAP = 0xFFFFEA0000000000
DIRECT_MAP = 0xFFFF888000000000
COMPOUND = 1 << 18
EVENTS = 100_000
COMMS = [b"one", b"two), pid 1, t", b"three\nlines", b"", b"a name as long"]
USER = 1 << 3 | 1 << 20
PR_SET_NAME, PR_GET_NAME = 15, 16
PROGRAMS = ("on_alloc", "on_free", "on_nested_alloc", "on_nested_free", "made_up")


class Pair:
    """The same events to both: the programs through BPF_PROG_TEST_RUN, and the specification."""

    def __init__(self, tracker: Tracker, size: int, min_order: int = 0, user: int = 0) -> None:
        assert tracker.main is not None
        self.bpf, self.main, self.size = tracker.bpf, tracker.main, size
        self.spec = PageOwner()
        self.min_order, self.user = min_order, user
        self.fd = {name: tracker.main.program_fd(name)
                   for name in PROGRAMS}
        self.comm = b""
        self.serial = self.nested = self.freed_pages = 0
        self.libc = ctypes.CDLL(None)

    def run(self, program: str, *arguments: int) -> None:
        self.bpf.run(self.fd[program], *arguments)

    def page(self, pfn: int) -> int:
        return VMEMMAP + pfn * self.size

    def owner(self, user: bool) -> tuple[int, bytes]:
        """A gfp mask that no other event has, and the task's name now."""
        self.serial += 1
        mask = (self.serial & 7 | self.serial >> 3 << 4) & 0xFFFFF | self.serial >> 16 << 21
        return (mask | (USER if user else 0)) & 0xFFFFFFFF, self.comm

    def rename(self, comm: bytes) -> None:
        self.libc.prctl(PR_SET_NAME, comm, 0, 0, 0)
        self.comm = comm[:15]

    def filtered(self, order: int, mask: int) -> bool:
        return order < self.min_order or bool(self.user and mask & self.user == self.user)

    def alloc(self, pfn: int, order: int, user: bool) -> None:
        mask, comm = self.owner(user)
        self.event("alloc", True, self.page(pfn), order, mask, 0)
        self.spec.alloc(pfn, order, (mask, comm), self.filtered(order, mask))

    def free(self, pfn: int, order: int) -> None:
        # Whether a part was freed is not to be seen at its own record.
        self.freed_pages += 1 << order
        self.event("free", pfn in self.spec.blocks or pfn in self.spec.early, self.page(pfn), order)
        self.spec.free(pfn, order)

    def event(self, kind: str, known: bool, *arguments: int) -> None:
        """As the kernel runs the two programs: the first one is refused at times, and after it
        the second one has nothing to do."""
        self.serial += 1
        refused = known and self.serial % 7 == 0
        if not refused:
            self.run(f"on_{kind}", *arguments)
        self.run(f"on_nested_{kind}", *arguments)
        self.nested += refused

    def made_up(self, hook: str, *arguments: int) -> None:
        others = {"isolate": 0, "exact": 2, "around": 3}
        number = HOOK_NUMBERS[hook] if hook in HOOK_NUMBERS else len(HOOK_NUMBERS) + others[hook]
        self.run("made_up", *[number, *arguments, 0, 0, 0][:5])


def _aligned(rng: random.Random, order: int) -> int:
    return FIRST + (rng.randrange(PAGES >> order) << order)


def _some_block(rng: random.Random, spec: PageOwner) -> tuple[int, Block] | None:
    """Any block is as likely as any other; a list of all for each event would take the most time
    of all here."""
    for _ in range(1000):
        pfn = FIRST + rng.randrange(PAGES)
        if pfn in spec.blocks:
            return pfn, spec.blocks[pfn]
    return None


def _event(rng: random.Random, pair: Pair) -> None:
    spec = pair.spec
    order = rng.choice((0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 8, 9, 10))
    pfn = _aligned(rng, order)
    live = _some_block(rng, spec) if rng.random() < 0.9 else None
    what = rng.random()
    if what < 0.36:
        pair.alloc(pfn, order, rng.random() < 0.5)
    elif what < 0.60:  # most frees are of what was allocated
        if live:
            pfn, order = live[0], live[1].order
        pair.free(pfn, order)
    elif what < 0.70:  # of a part, as __free_pages() does when others hold the first page
        if live:
            pfn, order = live[0], rng.randrange(live[1].order + 1)
            pfn += rng.randrange(1 << (live[1].order - order)) << order
        pair.free(pfn, order)
    elif what < 0.73:  # alloc_pages_exact(): the pages at the end are back already
        pages = rng.randrange((1 << order) // 2 + 1, (1 << order) + 1)
        pair.alloc(pfn, order, False)
        if rng.random() < 0.8:  # or those events were lost
            for page in range(pfn + pages, pfn + (1 << order)):
                pair.free(page, 0)
        size = (pages << 12) - rng.randrange(4096)
        pair.made_up("exact", size, DIRECT_MAP + (pfn << 12))
        spec.exact(pfn, pages)
    elif what < 0.80:
        if live:
            pfn, order = live[0], live[1].order
        to = rng.randrange(order + 1)
        pair.made_up("split", pfn, order, to)
        spec.split(pfn, order, to)
    elif what < 0.84:  # the folio is split towards one page
        if live:
            pfn = live[0] + rng.randrange(live[1].pages)
        to = rng.choice((0, 0, 2))
        pfn = pfn >> to << to
        pair.made_up("isolate", pfn, to)
        spec.isolate(pfn, to)
    elif what < 0.92:
        if live and rng.random() < 0.8:
            pfn, order = live[0], live[1].order
        target = _aligned(rng, order)
        if target != pfn:
            reason = rng.randrange(1, 10)
            pair.made_up("migrate", target, pfn, order, reason)
            spec.migrate(target, pfn, order, reason)
    elif what < 0.97:
        pfn = _aligned(rng, 0)
        mask, comm = pair.owner(False)
        if pfn not in spec.blocks and pfn not in spec.early and pair.filtered(0, mask):
            return
        pair.made_up("bulk", pfn, mask)
        spec.bulk(pfn, (mask, comm))
    else:
        start = _aligned(rng, 0)
        end = min(start + rng.choice((1, 2, 40, 700, 1500)), FIRST + PAGES)
        mask, comm = pair.owner(False)
        mask &= ~COMPOUND
        compound = rng.random() < 0.3
        if compound:
            start, end, mask = pfn, pfn + (1 << order), mask | COMPOUND
        if pair.filtered(order if compound else 0, mask):
            return
        # Seen from inside, from inside and from around, or (over what is not this task's) only so.
        owned = start in spec.blocks
        seen = ["contig", *rng.choice(([], ["around"]))] if owned else [rng.choice(
            ("contig", "around"))]
        for hook in seen:
            pair.made_up(hook, start, end, mask)
        spec.contig(start, end, (mask, comm), compound)


def _tracker(bpf: Libbpf, **values: int) -> Tracker:
    tracker = Tracker(bpf, Sizes(span_shift=12, spans=64, tasks=64, stacks=256, spares=SPARES), 16,
                      {"vmemmap": VMEMMAP, "direct_map": DIRECT_MAP,
                       "filters": int(bool(values)), **values})
    tracker.load(*PROGRAMS)
    tracker.cover([(FIRST, FIRST + PAGES)])
    return tracker


@pytest.mark.parametrize("filters", [
    {"user_gfp": 1 << 20}, {"only_tgid": 1}, {"only_cgroup": 1}, {"sample": 8}, {"min_order": 2},
    {"contig_gfp": 8}, {"only_tgid": 1, "user_gfp": 1 << 20, "contig_gfp": 8},
], ids=str)
def test_the_verifier_takes_the_hooks_with_each_filter(
        bpf: Libbpf, filters: dict[str, int]) -> None:
    """What the hooks on functions do, also where the kernel refuses those themselves."""
    with _tracker(bpf, **filters):
        pass


def _read(store: Store) -> tuple[dict[int, Block], set[int], list[Any]]:
    blocks, early, records = {}, set(), []
    tasks = store.tasks
    for span in store.spans:
        for i in np.flatnonzero(span.records["state"]):
            record = span.records[i]
            pfn = span.first + int(i)
            if record["state"] == EARLY:
                early.add(pfn)
                continue
            assert record["state"] in (OWNED, FILTERED), "left as being divided"
            owner = None
            if record["state"] == OWNED:
                task = tasks[record["task_id"] & TASK_SLOT]
                assert task["id"] == record["task_id"]
                assert store.stacks[record["stack_id"]]["n"] > 0
                owner = (int(record["gfp_mask"]), bytes(task["comm"]))
                records.append(record)
            blocks[pfn] = Block(int(record["order"]), owner, record["state"] == FILTERED,
                                int(record["moved"]) & 15, int(record["moved"]) >> 4)
    return blocks, early, records


@pytest.mark.parametrize("filters", [{}, {"min_order": 1}, {"user_gfp": USER}],
                         ids=["everything", "min_order", "kernel_only"])
def test_random_events_leave_the_same_store(bpf: Libbpf, filters: dict[str, int]) -> None:
    rng = random.Random(f"page owner {filters}")
    with _tracker(bpf, **filters) as tracker, tracker.store() as store:
        pair = Pair(tracker, bpf.type_size("page"), filters.get("min_order", 0),
                    filters.get("user_gfp", 0))
        for span in store._spans("spans", store.spans[0].records.dtype, write=True):
            for i in range(0, 1 << 12, 3):  # some pages were in use before
                span.records.view("u4").reshape(-1, 6)[i, 5] = EARLY_WORD
                pair.spec.early.add(span.first + i)
        for i in range(EVENTS if not filters else EVENTS // 4):
            if i % 50 == 0:
                pair.rename(rng.choice(COMMS))
            _event(rng, pair)
            if i % 5000 == 0:
                assert _read(store)[:2] == (pair.spec.blocks, pair.spec.early)
        pair.rename(b"python")
        blocks, early, records = _read(store)
        assert blocks == pair.spec.blocks
        assert early == pair.spec.early
        counters = store.counters()
        assert {name: counters[name] for name in pair.spec.counts} == pair.spec.counts
        assert counters["nested_allocs"] + counters["nested_frees"] == pair.nested > 0
        assert counters["freed_pages"] == pair.freed_pages > counters["frees"]
        holds = Counter(int(record["task_id"]) & TASK_SLOT for record in records)
        for at_hand in hot(bpf, store.fd("counters")).flat:
            for task, n in (("task_id", "held"), ("left_id", "left")):
                holds[int(at_hand[task]) & TASK_SLOT] += int(at_hand[n])
        refs = {slot: int(n) for slot, n in enumerate(store.tasks["refs"]) if n}
        assert refs == dict(+holds), "references of tasks are the records that name them"
        assert counters["tasks_full"] == counters["stacks_full"] == counters["out_of_range"] == 0
