"""Whose going frees blocks: checked by letting them go, and against every other choice."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from machines import Machine, Page, machine

from pageowner.analysis.blocks import BLOCKED, blocks
from pageowner.analysis.culprits import blockers, cheapest, hopeless, owners_of, pages_going
from pageowner.analysis.fragmentation import huge
from pageowner.analysis.memory import memory

if TYPE_CHECKING:
    from pageowner import Snapshot

ORDER = 4


def blocked_without(made: Machine, gone: set[str]) -> int:
    """Blocks that are blocked once tasks and all their pages are gone, from the start; page cache
    outlives them."""
    rest = replace(made, pages=[page for page in made.pages
                                if page.comm not in gone or page.what == "cache"])
    return int((blocks(memory(rest.snapshot()), ORDER).state == BLOCKED).sum())


def chosen_for(made: Machine, want: int) -> tuple[set[str], int, int]:
    snapshot = made.snapshot()
    seen = memory(snapshot)
    owners = owners_of(snapshot, ["comm"])
    chosen, unblocked = cheapest(owners, seen, blocks(seen, ORDER), want)
    return ({owners.labels[one]["comm"] for one in chosen}, unblocked,
            int(pages_going(owners, seen)[chosen].sum()))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("want", [1, 4, 9])
def test_when_those_named_go_as_many_blocks_are_unblocked_as_said(seed: int, want: int) -> None:
    made = machine(seed)
    gone, unblocked, pages = chosen_for(made, want)
    assert blocked_without(made, set()) - blocked_without(made, gone) == unblocked
    assert pages == sum(1 << page.order for page in made.pages
                        if page.comm in gone and page.what != "cache")
    everybody = {page.comm for page in made.pages}
    most = blocked_without(made, set()) - blocked_without(made, everybody)
    assert unblocked >= min(want, most)
    for one in gone:  # nobody goes for nothing
        fewer = blocked_without(made, set()) - blocked_without(made, gone - {one})
        assert fewer < min(want, unblocked)


@pytest.mark.parametrize("seed", range(8))
def test_the_greedy_choice_is_not_far_from_the_cheapest(seed: int) -> None:
    made = machine(seed, frames=512)
    names = sorted({page.comm for page in made.pages})
    price = {name: sum(1 << page.order for page in made.pages
                       if page.comm == name and page.what != "cache")
             for name in names}
    want = 3
    now = blocked_without(made, set())
    every = [(sum(price[name] for name in gone), gone)
             for number in range(len(names) + 1) for gone in combinations(names, number)]
    least = next(cost for cost, gone in sorted(every)
                 if now - blocked_without(made, set(gone)) >= want)
    _, unblocked, pages = chosen_for(made, want)
    assert unblocked >= want
    assert least <= pages <= 2 * least


def test_a_single_page_of_a_small_owner_is_chosen_over_a_large_one() -> None:
    made = machine(0)
    made.pages = [page for page in made.pages if page.pfn < 1]
    made.held = {0, *range(1019, 1024)}
    made.pages = [Page(pfn, 0, "buffer", "large") for pfn in range(256, 512, 2)]
    made.pages += [Page(600, 0, "slab", "small"), Page(700, 0, "anonymous", "other")]
    gone, unblocked, pages = chosen_for(made, 1)
    assert (gone, unblocked, pages) == ({"small"}, 1, 1)
    gone, unblocked, _ = chosen_for(made, 5)
    assert gone == {"large"}
    assert unblocked == 16
    gone, unblocked, _ = chosen_for(made, 100)
    assert gone == {"large", "small"}
    assert unblocked == 17  # all there are, which is less than was asked for


@pytest.mark.parametrize("seed", range(4))
def test_blockers_are_told_with_the_blocks_that_they_alone_block(seed: int) -> None:
    made = machine(seed, largest=3)
    snapshot = made.snapshot()
    seen = memory(snapshot)
    found = blocks(seen, ORDER)
    owners = owners_of(snapshot, ["comm"])
    listed = {owners.labels[one["owner"]]["comm"]: one for one in blockers(owners, seen, found)}
    held = {pfn >> ORDER for pfn in made.held}
    who: dict[int, set[str]] = {}
    pages: dict[int, int] = {}
    for page in made.pages:
        if page.what in ("slab", "buffer"):
            block = page.pfn >> ORDER
            who.setdefault(block, set()).add(page.comm)
            pages[block] = pages.get(block, 0) + (1 << page.order)
    for name, one in listed.items():
        mine = {block for block, names in who.items() if name in names}
        alone = {block for block in mine if who[block] == {name} and block not in held}
        assert one["blocks"] == len(mine)
        assert one["alone"] == len(alone)
        assert one["single"] == sum(pages[block] == 1 for block in alone)
    assert set(listed) == set().union(*who.values())


def test_memory_of_a_booting_kernel_is_not_said_to_go(big: Snapshot) -> None:
    found = huge(big, 9, "comm,pid", want=400)
    assert found["plan"]["gain"] < 400
    assert found["plan"]["owners"]
    assert all(one["pid"] > 1 for one in found["plan"]["owners"])  # 1 is init
    assert {0, 1} <= {one["pid"] for one in found["blockers"]}
    assert found["plan"]["hopeless"]["kernel"] > 0


def test_kernel_threads_and_ended_tasks_of_a_dump_are_not_said_to_go(big: Snapshot) -> None:
    found = huge(big, 9, "comm,pid", want=5000)
    own = big.select(subsystem=("anonymous memory", "huge pages (THP)"))
    alive = set(own.table["tgid"].to_pylist())
    named = {one["pid"] for one in found["plan"]["owners"]}
    assert {63, 75} <= named <= alive
    blocking = {one["comm"] for one in found["blockers"] if one["pid"] not in alive}
    assert {"kdevtmpfs", "kthreadd"} <= blocking
    assert found["plan"]["hopeless"]["ended"] > 0


def test_what_ended_tasks_left_is_not_said_to_go() -> None:
    made = machine(3)
    snapshot = made.snapshot()
    seen = memory(snapshot)
    found = blocks(seen, ORDER)
    assert cheapest(owners_of(snapshot, ["comm"]), seen, found, 3)[1] >= 3
    snapshot.meta.extra["memory"]["tasks"] = []
    assert cheapest(owners_of(snapshot, ["comm"]), seen, found, 3) == ([], 0)
    # what is asked by what memory is used for does not end with a task
    assert cheapest(owners_of(snapshot, ["migratetype"]), seen, found, 3)[1] >= 3


def test_why_blocks_stay_blocked_whoever_goes_is_told_by_reason() -> None:
    made = machine(0)
    made.held = {0, *range(1019, 1024), 5 << ORDER}
    made.pages = [Page(320, 0, "buffer", ""), Page(321, 0, "slab", ""),  # tgid 0
                  Page(323, 0, "slab", "ended"), Page(352, 0, "slab", "ended"),
                  Page(384, 4, "cache", "abc"), Page(416, 4, "anonymous", "abc"),
                  Page(448, 0, "slab", "abc"), Page((5 << ORDER) + 1, 0, "slab", "abc")]
    snapshot = made.snapshot()
    snapshot.meta.extra["memory"]["tasks"] = [3]
    seen = memory(snapshot)
    found = blocks(seen, ORDER)
    held = {pfn >> ORDER for pfn in made.held}
    assert hopeless(owners_of(snapshot, ["comm"]), seen, found) == {
        "held": len(held), "unsure": 0, "nameless": 0, "kernel": 1, "ended": 2, "cache": 1}
    assert cheapest(owners_of(snapshot, ["comm"]), seen, found, 100)[1] == 2
    # no page of it has a cgroup
    assert hopeless(owners_of(snapshot, ["memcg"]), seen, found) == {
        "held": len(held), "unsure": 0, "nameless": 6, "kernel": 0, "ended": 0, "cache": 0}


def test_a_block_across_two_zones_is_unblocked_by_nobody() -> None:
    made = machine(0)
    made.zones = [("DMA", 0, 328), ("Normal", 328, 1024)]
    made.held = set()
    made.pages = [Page(321, 0, "slab", "one"), Page(340, 0, "slab", "one")]
    assert chosen_for(made, 2) == ({"one"}, 1, 2)
    assert blocked_without(made, set()) - blocked_without(made, {"one"}) == 1


def test_less_than_was_asked_for_is_only_said_when_all_in_the_way_go() -> None:
    made = machine(7, frames=1 << 13, kinds=("slab", "anonymous", "buffer"))
    for number, page in enumerate(made.pages):
        page.comm = f"t{number % 400}"
    snapshot = made.snapshot()
    everybody = huge(snapshot, ORDER, "comm", want=1 << 20)["plan"]
    for want in (3, 40, 200):
        plan = huge(snapshot, ORDER, "comm", want=want)["plan"]
        assert plan["gain"] >= min(want, everybody["gain"]), want


def test_what_is_asked_for_is_what_can_be_had_then(big: Snapshot) -> None:
    found = huge(big, 9, "comm,pid", want=50)
    plan = found["plan"]
    assert plan["gain"] == (plan["states"]["free"] + plan["reachable"]["reclaim"]
                            - found["states"]["free"] - found["reachable"]["reclaim"])
    assert plan["gain"] >= 50
    assert [one["comm"] for one in plan["owners"]] == ["python3"]
    assert np.isclose(sum(one["pages"] for one in plan["owners"]), plan["pages"])


def test_owners_are_told_with_the_tasks_that_have_most_of_their_pages(big: Snapshot) -> None:
    found = huge(big, 9, "subsystem", top=5)
    named = {one["subsystem"]: one for one in found["blockers"]}
    table = big.table
    from pageowner.analysis.keys import key

    subsystems = key(big, "subsystem")
    labels = subsystems.labels.to_pylist()
    pages: dict[str, dict[str, int]] = {}
    for code, comm, order in zip(subsystems.codes.tolist(), table["comm"].to_pylist(),
                                 table["order"].to_pylist(), strict=True):
        tasks = pages.setdefault(labels[code], {})
        tasks[comm] = tasks.get(comm, 0) + (1 << order)
    assert len(named) == 5
    for name, one in named.items():
        most = sorted(pages[name].values(), reverse=True)
        assert [pages[name][task] for task in one["tasks"]] == most[:5]
        assert one["more_tasks"] == max(len(most) - 5, 0)
        assert one["cgroups"] == []
