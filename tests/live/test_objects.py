"""Objects of slabs on this machine's kernel."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageowner.model.tracking import Options
from pageowner.tracker import control
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.read.capture_objects import capture_objects
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
        # 95 % lie within the bounds; four times as far nearly all do.
        assert abs(row["blocks"] - NUMBER) < 4 * (row["high"] - row["low"]) / row["pages"] * NUMBER
