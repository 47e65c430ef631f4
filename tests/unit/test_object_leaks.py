"""Leaks of objects and of pages are one answer: each leak once, by what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pageowner.analysis.object_leaks import leaks_of_objects, with_pages
from pageowner.analysis.reclaimable import is_reclaimable
from pageowner.kernel import dentries
from pageowner.model.snapshot import Metadata, Snapshot

CALL = "__x64_sys_linkat+0x1/0x2\ndo_syscall_64+0x1/0x2\nentry_SYSCALL_64_after_hwframe+0x1/0x2"
DENTRY = f"kmem_cache_alloc_lru+0x1/0x2\n__d_alloc+0x1/0x2\ndo_linkat+0x1/0x2\n{CALL}"
BOOKS = ("__kmalloc_node+0x1/0x2\nalloc_slab_obj_exts+0x1/0x2\nallocate_slab+0x1/0x2\n"
         f"___slab_alloc+0x1/0x2\n{DENTRY}")
TASK = ("kmem_cache_alloc_node+0x1/0x2\ndup_task_struct+0x1/0x2\ncopy_process+0x1/0x2\n"
        f"__x64_sys_clone3+0x1/0x2\n{CALL.split(chr(10), 1)[1]}")
TABLES = TASK.replace("kmem_cache_alloc_node+", "alloc_pages+").replace("dup_task_struct", "dup_mm")
SLAB_PAGES = (f"allocate_slab+0x1/0x2\n___slab_alloc+0x1/0x2\nkmem_cache_alloc+0x1/0x2\n"
              f"innocent+0x1/0x2\n{CALL}")
MIB = 1 << 20


def row(stack: str | None, gained: int, kind: str = "leak", tgid: int = 7) -> dict[str, Any]:
    return {"stack": stack, "note": None if stack else "untracked", "kind": kind, "pages": gained,
            "program": None, "gained": gained, "each": 256.0, "rate": float(gained),
            "rate_low": float(gained), "rate_high": float(gained),
            "settled": gained, "stayed": gained, "series": [0, gained // 2, gained],
            "settled_series": [0, 0, gained], "came": gained,
            "tasks": [{"comm": "leaker", "tgid": tgid, "pages": gained}]}


def table(*rows: dict[str, Any]) -> pa.Table:
    typed = [row("f+0x1/0x2", 1) | {"program": "p"}, row(None, 1), *rows]
    return pa.Table.from_pylist(typed).slice(2)


def kinds(found: pa.Table) -> dict[str, str]:
    return dict(zip(found["stack"].to_pylist(), found["kind"].to_pylist(), strict=True))


def test_dentries_that_are_in_use_leak() -> None:
    found = leaks_of_objects(table(row(DENTRY, 10 * MIB, "reclaimable")), 9 * MIB)
    assert kinds(found) == {DENTRY: "leak"}


@pytest.mark.parametrize("pinned", [None, -MIB, 0, 4 * MIB])
def test_dentries_that_the_kernel_can_take_back_are_no_leak(pinned: int | None) -> None:
    found = leaks_of_objects(table(row(DENTRY, 10 * MIB, "reclaimable")), pinned)
    assert kinds(found) == {DENTRY: "reclaimable"}


def test_nobody_is_blamed_for_dentries_where_nobody_has_most() -> None:
    stacks = [DENTRY.replace("do_linkat", f"do_{name}") for name in ("a", "b", "c")]
    found = leaks_of_objects(table(*(row(stack, MIB, "reclaimable") for stack in stacks)), 3 * MIB)
    assert set(kinds(found).values()) == {"reclaimable"}


def test_the_books_of_slabs_are_what_their_objects_are() -> None:
    given = table(row(BOOKS, MIB), row(DENTRY, 10 * MIB, "reclaimable"))
    assert set(kinds(leaks_of_objects(given, 0)).values()) == {"reclaimable"}
    in_use = with_pages(leaks_of_objects(given, 10 * MIB), table(), 4096).to_pylist()
    assert [(found["stack"], found["kind"], found["gained"]) for found in in_use] == [
        (DENTRY, "leak", 11 * MIB)]
    assert [part["stack"] for part in in_use[0]["with"]] == [BOOKS]


def test_the_books_of_slabs_whose_objects_come_and_go_are_no_leak() -> None:
    lazily = BOOKS.replace("allocate_slab", "__memcg_slab_post_alloc_hook")
    found = leaks_of_objects(table(row(lazily, MIB), row(DENTRY, 10 * MIB, "grows")), 0)
    assert kinds(found) == {DENTRY: "grows"}


def test_what_is_kept_of_cached_inodes_is_no_leak() -> None:
    made = f"alloc_inode+0x1/0x2\niget_locked+0x1/0x2\n{CALL}"
    inode = f"kmem_cache_alloc_lru+0x1/0x2\next4_alloc_inode+0x1/0x2\n{made}"
    data = ("kmem_cache_alloc+0x1/0x2\nsecurity_inode_alloc+0x1/0x2\ninode_init_always_gfp+0x1/0x2"
            f"\n{made}")
    for kind in ("reclaimable", "leak"):
        found = leaks_of_objects(table(row(data, MIB), row(inode, 10 * MIB, kind)), 0)
        assert kinds(found) == {inode: kind, data: kind}
    assert kinds(leaks_of_objects(table(row(data, MIB)), 0)) == {data: "leak"}


def test_the_books_alone_leak_if_their_objects_are_not_known_to_be_cache() -> None:
    assert kinds(leaks_of_objects(table(row(BOOKS, MIB)), 0)) == {BOOKS: "leak"}


def test_pages_and_objects_of_one_call_are_one_leak() -> None:
    found, = with_pages(table(row(TASK, MIB)), table(row(TABLES, 512)), 4096).to_pylist()
    assert found["stack"] == TASK
    assert found["gained"] == 3 * MIB
    assert found["series"] == [0, 3 * MIB // 2, 3 * MIB]
    assert found["settled_series"] == [0, 0, 3 * MIB]
    assert found["with"] == [{"stack": TABLES, "gained": 2 * MIB}]


def test_a_leak_is_not_called_by_what_many_of_its_objects_share() -> None:
    inode, dentry, nodes = (
        f"kmem_cache_alloc+0x1/0x2\n{within}{CALL}" for within in (
            "shmem_alloc_inode+0x1/0x2\nalloc_inode+0x1/0x2\nnew_inode+0x1/0x2\n",
            "__d_alloc+0x1/0x2\nd_alloc+0x1/0x2\n", "simple_offset_add+0x1/0x2\n"))
    leak = [row(inode, 64 * MIB) | {"each": 1024.0}, row(dentry, 12 * MIB) | {"each": 192.0}]
    for number, named in ((1 << 16, nodes), (1 << 12, dentry)):
        found, = with_pages(table(*leak, row(nodes, 256 * number)), table(), 4096).to_pylist()
        assert found["stack"] == named


def test_pages_of_slabs_are_left_to_the_objects_in_them() -> None:
    found = with_pages(table(row(TASK, MIB)), table(row(SLAB_PAGES, 300, tgid=8)), 4096)
    assert found["stack"].to_pylist() == [TASK]


def test_pages_of_slabs_whose_objects_are_not_seen_stay() -> None:
    found = with_pages(table(row(TASK, MIB)), table(row(SLAB_PAGES, 3000, tgid=8)), 4096)
    assert found["stack"].to_pylist() == [TASK, SLAB_PAGES]


def test_pages_stand_behind_objects_and_are_not_joined_with_each_other() -> None:
    other = TABLES.replace("dup_mm", "pte_alloc_one")
    pages = table(*(row(stack, gained, tgid=9)
                    for stack, gained in ((TABLES, 512), (other, 500), (None, 4000))))
    found = with_pages(table(row(TASK, MIB)), pages, 4096).to_pylist()
    assert [part["stack"] for part in found] == [TASK, TABLES, other]
    assert [part["gained"] for part in found] == [
        MIB, 512 * 4096, 500 * 4096]


def test_pages_are_judged_where_no_object_grew() -> None:
    nothing = pa.table({name: pa.array([], None if name == "stack" else column.type)
                        for name, column in zip(table().column_names, table().columns,
                                                strict=True)})
    found = with_pages(leaks_of_objects(nothing), table(row(TABLES, 512)), 4096).to_pylist()
    assert [(part["stack"], part["gained"]) for part in found] == [(TABLES, 2 * MIB)]


def test_what_programs_take_for_themselves_is_left_to_leaks_of_pages() -> None:
    own = row("do_anonymous_page+0x1/0x2\n__handle_mm_fault+0x1/0x2\nexc_page_fault+0x1/0x2", 512)
    found = with_pages(table(row(TASK, MIB)), table(own), 4096)
    assert found["stack"].to_pylist() == [TASK]


def test_the_workers_of_one_program_have_one_leak() -> None:
    def workers(comm: str, *tgids: int) -> dict[str, Any]:
        return {"tasks": [{"comm": comm, "tgid": tgid, "pages": 99} for tgid in tgids]}

    objects = table(row(TASK, MIB) | workers("a", 1, 2, 3))
    for others, number in ((workers("a", 4, 5, 6), 1), (workers("b", 4, 5, 6), 2),
                           (workers("a", 4), 2)):
        found = with_pages(objects, table(row(TABLES, 512) | others), 4096)
        assert len(found) == number


def test_a_look_at_pages_that_objects_had_not_is_left_out() -> None:
    pages = row(TABLES, 512) | {"series": [0, 1, 2, 3], "settled_series": [0, 0, 1, 2]}
    found, = with_pages(table(row(TASK, MIB)), table(pages), 4096).to_pylist()
    assert len(found["series"]) == len(found["settled_series"]) == 3


def test_dentries_in_use_are_those_that_are_not_on_the_list_of_unused_ones(tmp_path: Path) -> None:
    assert dentries.in_use(str(tmp_path)) is None
    (tmp_path / "sys/fs").mkdir(parents=True)
    (tmp_path / "sys/fs/dentry-state").write_text("465255\t453812\t45\t0\t84394\t0\n")
    assert dentries.in_use(str(tmp_path)) == 11443
    assert dentries.bytes_in_use(str(tmp_path)) is None
    (tmp_path / "slabinfo").write_text(
        "slabinfo - version: 2.1\n"
        "dentry 466000 467000 192 21 1 : tunables 0 0 0 : slabdata 22238 22238 0\n")
    assert dentries.bytes_in_use(str(tmp_path)) == 11443 * 192


def test_what_the_kernel_frees_many_at_a_time_is_no_leak() -> None:
    """Areas of vmalloc, such as those of kernel stacks, are kept for a while once they are freed.
    """
    caches = ["vmap_area", "filp", "vmap_area", None]
    objects = Snapshot.from_columns({
        "amount": [64] * 4, "stack": [TASK] * 4, "cache": caches}, Metadata(kind="objects"))
    assert is_reclaimable(objects, ["processes"]).tolist() == [True, False, True, False]
