"""Objects of slabs on this machine's kernel."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pageowner.analysis.live import Live, question
from pageowner.errors import PageownerError
from pageowner.kernel.pagemap import frame_of
from pageowner.kernel.slabs import parse_slabinfo
from pageowner.model.tracking import Options
from pageowner.tracker import control
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.read.capture_objects import capture_objects, capture_slab
from pageowner.tracker.read.live_objects import ObjectReader
from pageowner.tracker.read.maps import Store

NUMBER = 2000


@pytest.fixture(scope="module")
def store(bpf: Libbpf) -> Iterator[Store]:
    """A tracker of this process's own that follows all objects."""
    with control.tracking(Options(objects=1)) as tracker:
        yield tracker


def of_this(store: Store, cache: str, function: str) -> int:
    """How many objects of a cache this process has allocated through a function."""
    found = capture_objects(store).select(pid=os.getpid(), cache=cache, stack=function)
    return found.blocks


def direct(store: Store, function: str) -> int:
    """The same of objects for the function itself, not for what it calls, nor for the allocator
    (which keeps a vector for each slab)."""
    stacks = capture_objects(store).select(pid=os.getpid(), stack=function).table["stack"]
    return sum(stack.split("\n")[1].startswith(f"{function}+") for stack in stacks.to_pylist())


def settles(store: Store, cache: str, function: str, number: int) -> int:
    """The same, once it is this number; what is freed later (RCU) takes its time."""
    end = time.monotonic() + 10
    while (found := of_this(store, cache, function)) != number and time.monotonic() < end:
        time.sleep(0.2)
    return found


def test_objects_are_followed_from_birth_to_death(store: Store) -> None:
    before = of_this(store, "filp", "do_eventfd")
    files = [os.eventfd(0) for _ in range(NUMBER // 10)]
    # an eventfd is an object of kmalloc(), beside its file and dentry, and a larger table of files
    assert direct(store, "do_eventfd") == len(files)
    assert of_this(store, "filp", "do_eventfd") == before + len(files)
    for file in files:
        os.close(file)
    assert settles(store, "filp", "do_eventfd", before) == before


def test_sockets_are_theirs_who_made_them(store: Store) -> None:
    number, before = 100, direct(store, "sk_prot_alloc")
    pairs = [socket.socketpair() for _ in range(number)]
    # not by the name of their cache, which the kernel may have merged with another
    assert direct(store, "sk_prot_alloc") == before + 2 * number
    snapshot = capture_objects(store).select(pid=os.getpid(), stack="sk_prot_alloc")
    assert set(snapshot.table["comm"].to_pylist()) == {Path("/proc/self/comm").read_text().strip()}
    for pair in pairs:
        for one in pair:
            one.close()


def test_each_object_has_the_size_of_its_cache(store: Store) -> None:
    snapshot = capture_objects(store)
    sizes: dict[str, set[int]] = {}
    for cache, amount in zip(snapshot.table["cache"].to_pylist(),
                             snapshot.table["amount"].to_pylist(), strict=True):
        sizes.setdefault(cache, set()).add(amount)
    sizes.pop("percpu", None)
    assert sizes
    assert {cache: found for cache, found in sizes.items() if len(found) > 1} == {}


def test_no_address_is_followed_twice(store: Store) -> None:
    addresses = capture_objects(store).table["address"].to_pylist()
    assert len(addresses) == len(set(addresses))


def slots() -> dict[str, int]:
    """For how many objects each cache has room in its slabs."""
    return {cache.name: cache.objects for cache in parse_slabinfo(
        Path("/proc/slabinfo").read_text(errors="backslashreplace"))}


def test_objects_whose_free_nobody_tells_give_way_to_others(store: Store) -> None:
    """Nodes of an address space's tree are freed by kfree_rcu(), which no hook sees where BPF may
    not trace functions: they do not become more than there is room for, and none lies over another.
    """
    for _ in range(40):
        areas = [mmap.mmap(-1, mmap.PAGESIZE * (1 + place % 2)) for place in range(500)]
        for area in areas:
            area.close()
    before = slots()
    table = capture_objects(store).table
    after = slots()
    caches = table["cache"].to_pylist()
    found = {name: caches.count(name) for name in {"maple_node", "filp", "dentry"} & before.keys()}
    assert found
    assert {name: number for name, number in found.items()
            if number > max(before[name], after.get(name, 0))} == {}
    ends = sorted((row["address"], row["address"] + row["requested"])
                  for row in table.select(["address", "requested", "cache"]).to_pylist()
                  if row["cache"] != "percpu")
    assert [(one, other) for one, other in itertools.pairwise(ends) if one[1] > other[0]] == []


def an_eventfd(store: Store) -> tuple[int, dict[str, Any]]:
    """A new eventfd, and the row of its own object."""
    since = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    file = os.eventfd(0)
    rows = capture_objects(store).select(pid=os.getpid(), stack="do_eventfd").table.to_pylist()
    row, = (row for row in rows if row["ts_ns"] >= since
            and row["stack"].split("\n")[1].startswith("do_eventfd+"))
    return file, row


def test_an_object_and_its_slab_are_found_by_any_address_in_it(store: Store) -> None:
    file, row = an_eventfd(store)
    try:
        for address in (row["address"], row["address"] + row["amount"] - 1):
            slab = capture_slab(store, address)
            assert slab.first <= row["pfn"] < slab.first + slab.pages
            rows = slab.objects.table.to_pylist()
            assert [found["stack"] for found in rows if found["address"] == row["address"]] == [
                row["stack"]]
            assert {found["cache"] for found in rows} == {row["cache"]}
            assert {(found["address"] - slab.address) % row["amount"] for found in rows} == {0}
    finally:
        os.close(file)


def test_what_is_in_no_slab_is_said(store: Store) -> None:
    base = int(store.facts["direct_map"])
    for address in (base - 1, base + (1 << 46)):
        with pytest.raises(PageownerError, match="not an address of the kernel's direct map"):
            capture_slab(store, address)
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[0] = 1
    pfn = frame_of(os.getpid(), ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    with pytest.raises(PageownerError, match="not in a slab"):
        capture_slab(store, base + pfn * mmap.PAGESIZE)


def test_the_live_view_counts_what_a_capture_counts(store: Store) -> None:
    reader = ObjectReader(store)
    reader.counts(["cache"])
    files = [os.eventfd(0) for _ in range(NUMBER)]
    try:
        look = reader.counts(["cache", "zone"])
        live = Live("cache", question(f"pid={os.getpid()} stack=do_eventfd"))
        live.add(look)
        rows = {row.label: row for row in live.rows()[0]}
        assert rows["filp"].blocks == of_this(store, "filp", "do_eventfd")
        assert rows["filp"].pages % rows["filp"].blocks == 0
        codes, labels = look.fields["cache"]
        assert look.born[[labels[code] == "filp" for code in codes]].sum() >= NUMBER
        assert look.fields["zone"][1] == [None]
        assert reader.health.pages["owned"] <= reader.health.pages["slabs"]
    finally:
        for file in files:
            os.close(file)


def test_hooks_that_are_attached_have_seen_something(store: Store) -> None:
    files = [os.eventfd(0) for _ in range(10)]
    for file in files:
        os.close(file)
    hooks = capture_objects(store).meta.hooks
    for name in ("kfree", "kmem_cache_free", "kmalloc", "kmem_cache_alloc"):
        assert hooks[name] == "active"


def test_one_in_so_many_is_followed(bpf: Libbpf) -> None:
    with control.tracking(Options(objects=8)) as store:
        files = [os.eventfd(0) for _ in range(NUMBER)]
        try:
            found = capture_objects(store).select(pid=os.getpid(), cache="filp",
                                                  stack="do_eventfd")
        finally:
            for file in files:
                os.close(file)
        row, = found.report("cache").to_pylist()
        assert found.table.num_rows < NUMBER / 4
        # 95 % lie within the bounds, two deviations; four times as far nearly all do.
        assert abs(row["blocks"] - NUMBER) < 2 * (row["high"] - row["low"]) / row["pages"] * NUMBER
