"""``pageowner map`` of a made-up machine of 1 TiB, and of the real dump beside the kernel's
page_owner_sort."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from common import BIN, beside_peer, folder, run, unpacked
from pageowner.model.pfn_runs import pack
from pageowner.model.snapshot import Metadata, Snapshot

FRAMES = 1 << 28  # 1 TiB
BLOCK = 512


def main() -> None:
    with folder() as place:
        dump = unpacked(place)
        beside_peer([["map", dump], ["map", dump, "--png", f"{place}/map.png"],
                     ["map", dump, "--html", f"{place}/map.html"]], dump, place)
        made = tebibyte()
        path = f"{place}/tebibyte.parquet"
        made.save(path)
        print(f"\n1 TiB: {FRAMES:,} frames, {made.table.num_rows:,} allocations")
        print("| command | s | peak MiB | file, MiB |")
        print("| --- | --- | --- | --- |")
        # report reads the same, and draws nothing
        for words in (["report", "--by", "comm"], ["map"], ["map", "--order", "hilbert"],
                      ["map", "--by", "age"], ["map", "--png", "map.png"],
                      ["map", "--png", "map.png", "--order", "hilbert"],
                      ["map", "--html", "map.html"]):
            files = [f"{place}/{word}" for word in words if "." in word]
            took = run([str(BIN / "pageowner"), words[0], path,
                        *(f"{place}/{word}" if "." in word else word for word in words[1:])])
            size = f"{os.path.getsize(files[0]) / 2**20:.1f}" if files else ""
            print(f"| `pageowner {' '.join(words)}` | {took.wall:.1f} |"
                  f" {took.peak / 2**20:.0f} | {size} |")


def tebibyte(seed: int = 1) -> Snapshot:
    """Four nodes; pageblocks that are one huge page, cut into smaller allocations with holes
    between, or free."""
    rng = np.random.default_rng(seed)
    blocks = FRAMES // BLOCK
    orders = rng.choice(np.array([9, 0, 1, 2, 3, 4, 255], np.uint8), blocks,
                        p=[.50, .015, .01, .01, .04, .06, .365])
    first, order = [], []
    for one in (9, 0, 1, 2, 3, 4):
        heads = np.flatnonzero(orders == one) * BLOCK
        inside = (heads[:, None] + np.arange(0, BLOCK, 1 << one)).reshape(-1)
        inside = inside[(rng.random(len(inside)) < .8) & (inside >= BLOCK)]
        first.append(inside)
        order.append(np.full(len(inside), one, np.uint8))
    pfn, size = np.concatenate(first), np.concatenate(order)
    by_pfn = np.argsort(pfn)
    pfn, size = pfn[by_pfn], size[by_pfn]
    rows = len(pfn)
    tasks = [f"task-{number}" for number in range(200)]
    # neighbours are often of one task
    task = (pfn // (BLOCK * 64) * 7919 + rng.integers(0, 3, rows)) % len(tasks)
    stacks = [f"alloc_pages+0x1/0x2\n{function}+0x3/0x4" for function in
              ("do_anonymous_page", "shmem_alloc_folio", "filemap_alloc_folio", "pte_alloc_one",
               "alloc_skb_with_frags", "dup_task_struct", "kvmalloc_node", "zram_write_page")]

    def words(codes: np.ndarray, labels: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(labels))

    node = FRAMES // 4
    meta = Metadata(kind="tracker", source="made up", host="tebibyte", pageblock_order=9,
                    clock_ns=10**15, zones=[
                        {"node": number, "name": "Normal", "start_pfn": number * node,
                         "spanned": node, "present": node, "managed": node}
                        for number in range(4)])
    meta.extra = {"memory": {"held": pack(np.array([[0, BLOCK]])), "free": []}}
    return Snapshot.from_columns({
        "pfn": pfn.astype(np.uint64), "order": size, "comm": words(task, tasks),
        "tgid": task.astype(np.int32), "pid": task.astype(np.int32),
        "stack": words(task % len(stacks), stacks),
        "migratetype": words(task % 3, ["Movable", "Unmovable", "Reclaimable"]),
        "state": words(np.zeros(rows), ["owned"]), "node": (pfn // node).astype(np.int16),
        "zone": words(np.zeros(rows), ["Normal"]),
        "ts_ns": (10**15 - rng.exponential(3e12, rows)).clip(0).astype(np.uint64),
    }, meta)


if __name__ == "__main__":
    main()
