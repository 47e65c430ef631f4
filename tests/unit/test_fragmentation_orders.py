"""Kernels whose largest order is not 10: arm64 with pages of 16 KiB (11) and 64 KiB (13)."""

from __future__ import annotations

import numpy as np
import pytest

from pageowner.analysis import fragmentation
from pageowner.analysis.memory import memory
from pageowner.kernel import compaction, pageflags
from pageowner.model.metadata import Metadata
from pageowner.model.snapshot import Snapshot

BUDDY = int(pageflags.bit("buddy"))


def snapshot(page_size: int, order: int, free: list[int] | None) -> Snapshot:
    """Two movable folios of the order of a pageblock, and a small one."""
    size = 1 << order
    extra = {} if free is None else {"memory": {"held": [], "free": [[0, "Normal", free]]}}
    return Snapshot.from_columns({
        "pfn": [0, size, 2 * size], "order": [order, 0, order - 1],
        "migratetype": ["Movable"] * 3, "gfp_flags": ["GFP_HIGHUSER_MOVABLE"] * 3,
        "page_flags": [int(pageflags.bit("lru"))] * 3},
        Metadata(kind="tracker" if free else "page_owner", page_size=page_size,
                 pageblock_order=order, extra=extra,
                 zones=[{"node": 0, "name": "Normal", "start_pfn": 0, "spanned": 4 * size,
                         "present": 4 * size, "managed": 4 * size}]))


@pytest.mark.parametrize(("page_size", "order"), [(16384, 11), (65536, 13)])
@pytest.mark.parametrize("told", [True, False])
def test_the_largest_order_is_the_kernels(page_size: int, order: int, told: bool) -> None:
    seen = memory(snapshot(page_size, order, [0] * (order + 1) if told else None))
    assert seen.max_order == order
    # who wants a block of that order moves what is smaller, and no folio as large
    moves = compaction.at_order(seen.moves, seen.order, order, seen.pageblock_order,
                                seen.max_order)
    assert moves.tolist() == [compaction.CANNOT, compaction.CAN, compaction.CAN]


@pytest.mark.parametrize(("kernel", "dump_format", "moves_large", "noted"), [
    (None, {}, True, True), (None, {"free_ts": True}, False, False),
    (None, {"decimal_pfn": True}, False, False), ("6.1.0-28-amd64", {}, False, False),
    ("6.12.1", {}, True, False)])
def test_whether_large_folios_are_moved_is_by_the_kernel_or_it_is_said(
        kernel: str | None, dump_format: dict[str, bool], moves_large: bool, noted: bool) -> None:
    made = snapshot(4096, 9, None)
    made.meta.kernel, made.meta.dump_format = kernel, dump_format
    assert memory(made).moves_large is moves_large
    notes = fragmentation.huge(made, 9)["notes"]
    assert any("before 6.9" in note for note in notes) is noted
    assert not any("before 6.9" in note for note in fragmentation.huge(made, 18)["notes"])


def test_free_blocks_have_all_orders() -> None:
    order = 13
    flags = np.zeros(4 << order, np.uint64)
    flags[2 << order:] = BUDDY  # two blocks of the largest order, which do not merge further
    found = fragmentation.fragmentation(snapshot(65536, order, None), flags=flags)
    assert [zone["blocks"] for zone in found["free"]] == [[0] * order + [2]]
