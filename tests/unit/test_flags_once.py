"""Flags are read again only where it matters: an account of all flags twice says the same."""

from __future__ import annotations

import numpy as np
import pytest

from pageowner.kernel import pageflags
from pageowner.tracker.read.accounts import ABSENT, FREE, UNTRACKED, account, unsure
from pageowner.tracker.read.maps import DIVIDED, EARLY, FILTERED, NONE, OWNED, RECORD, WRITTEN

SIZE, COMP = 1 << 10, 0x40000
BUDDY, HEAD, TAIL, ANON, RESERVED = (
    pageflags.bit(name) for name in ("buddy", "compound_head", "compound_tail", "anon", "reserved"))


def flags_of(chance: np.random.Generator, records: np.ndarray) -> np.ndarray:
    """Flags as they may be while all this is at work: mostly as the records say."""
    flags = np.full(SIZE, BUDDY, np.uint64)
    for head in np.flatnonzero(records["state"] != NONE).tolist():
        stop = head + (1 << int(records["order"][head]))
        flags[head:stop] = ANON
        if records["gfp_mask"][head] & COMP and stop - head > 1:
            flags[head] |= HEAD
            flags[head + 1:stop] |= TAIL
            if chance.random() < 0.1:  # two halves
                flags[(head + stop) // 2] = ANON | HEAD
    for place in chance.integers(0, SIZE, 30).tolist():
        stop = place + int(chance.integers(1, 5))
        flags[place:stop] = chance.choice([BUDDY, ANON, np.uint64(0), ANON | HEAD, ANON | TAIL])
    return flags


@pytest.mark.parametrize("seed", range(100))
def test_once_is_as_good_as_twice(seed: int) -> None:
    chance = np.random.default_rng(seed)
    records = np.zeros(SIZE, RECORD)
    at = 0
    while at < SIZE:
        order = int(chance.choice([0, 0, 0, 1, 2, 5]))
        if at % (1 << order):
            order = 0
        if chance.random() < 0.7:
            state = int(chance.choice([OWNED] * 8 + [EARLY, EARLY, FILTERED, DIVIDED, WRITTEN]))
            state = WRITTEN if state == DIVIDED else state
            records[at] = (chance.integers(1, 99), 1, 1, chance.choice([0, COMP]),
                           0 if state == EARLY else order, state, 0, 0)
        at += 1 << order
    for place in chance.integers(0, SIZE, 3).tolist():  # a younger or an older one in another
        records[place] = (chance.integers(1, 99), 1, 1, 0, 0, OWNED, 0, 0)
    before, now = flags_of(chance, records), flags_of(chance, records)
    before[:8] = now[:8] = RESERVED
    after, reach = before.copy(), np.zeros(SIZE, bool)
    for place in unsure(records, before, COMP).tolist():
        reach[place:place + (1 << int(records["order"][place]))] = True
    after[reach] = now[reach]
    once, twice = (account(records, before, second, COMP) for second in (after, now))
    for name in ("place", "order", "record"):
        assert np.array_equal(getattr(once.blocks, name), getattr(twice.blocks, name))
    assert np.array_equal(np.unique(once.stale), np.unique(twice.stale))
    assert (once.split, once.beyond) == (twice.split, twice.beyond)
    differ = once.classes != twice.classes
    # Of what nobody speaks for, and was freed just then: it is looked at again anyway.
    assert (once.classes[differ] == UNTRACKED).all()
    assert (twice.classes[differ] == FREE).all()
    assert ((now[differ] & BUDDY) != 0).all()


def test_a_record_of_memory_that_was_taken_away_is_no_block() -> None:
    records = np.zeros(4, RECORD)
    records[0] = (1, 1, 1, COMP, 1, OWNED, 0, 0)
    records[2] = (1, 1, 1, 0, 1, OWNED, 0, 0)
    flags = np.full(4, pageflags.bit("nopage"), np.uint64)
    found = account(records, flags, flags, COMP)
    assert (found.classes == ABSENT).all()
    assert (len(found.blocks.place), len(found.stale), found.split) == (0, 0, 0)
