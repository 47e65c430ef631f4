"""Stacks as they stand in texts that people post: with what took them, with their end marks,
without blanks, with lines of source, and more than one in a record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner.analysis.coded import OF_STACKS, of_stacks
from pageowner.analysis.subsystems import OF_STACK
from pageowner.kernel.early_pages import is_early
from pageowner.kernel.frames import Frame, frames, parse_frame
from pageowner.sources.page_owner_body import parse_body

if TYPE_CHECKING:
    from pageowner import Snapshot

TEXTS = Path(__file__).parents[1] / "data" / "texts"
SAMPLE = TEXTS.parent / "6.1-sample" / "page_owner.txt.xz"


def pages_by(snapshot: Snapshot, *keys: str) -> dict[object, int]:
    rows = snapshot.report(by=keys).to_pylist()
    return {row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys): row["pages"]
            for row in rows}


def test_a_frame_of_the_unwinder_in_front_changes_no_label_and_no_early_page() -> None:
    other = TEXTS / "6.1-sample-unwinder-in-front.txt.xz"
    without, within = map(pageowner.read, (SAMPLE, other))
    for key in ("subsystem", "module", "frame", "state"):
        assert pages_by(within, key) == pages_by(without, key), key
    assert len(pages_by(within, "subsystem")) == 27
    assert pages_by(within, "state")["early"] == 320
    assert pageowner.diff(SAMPLE, other).changes.num_rows == 0


@pytest.mark.parametrize("in_front", [
    ("save_stack_trace+0x16/0x20",),
    ("__save_stack_trace+0x73/0xd0", "save_stack_trace+0x16/0x20"),
    ("dump_trace+0x10/0x20", "save_stack_trace_tsk+0xa4/0xc0", "save_stack_trace+0x20/0x30"),
    ("walk_stackframe+0x0/0x90", "arch_stack_walk+0x1c/0x30", "stack_trace_save+0x4c/0x70"),
    ("[<ffffff8008089b34>] save_stack_trace+0x24/0x30",)])
def test_whatever_took_the_stack_is_not_a_part_of_it(in_front: tuple[str, ...]) -> None:
    import pyarrow as pa

    own = "\n".join(("post_alloc_hook+0x1/0x2", "__alloc_pages+0x1/0x2", "ext4_readpage+0x1/0x2"))
    stack = "\n".join((*in_front, own))
    assert frames(stack) == frames(own)
    both = pa.array([stack, own, "\n".join(in_front)])
    for key, ask in OF_STACK.items():
        answers = of_stacks(OF_STACKS[key], both).to_pylist()
        assert answers == list(map(ask, both.to_pylist())), key
        assert answers[0] == answers[1], key


def test_the_search_for_early_pages_is_told_behind_the_unwinder_and_in_old_kernels() -> None:
    snapshot = pageowner.read(TEXTS / "early-s390-arm64.txt")
    assert pages_by(snapshot, "state", "subsystem") == {
        ("early", "early boot"): 2, ("owned", "slab: dentries"): 4}
    snapshot = pageowner.read(TEXTS / "4.2-swap-exhaustion.txt")
    assert pages_by(snapshot, "state") == {"early": 5, "owned": 22}


@pytest.mark.parametrize(("stack", "mask", "early"), [
    ("page_ext_init+0x1f/0x2\nstart_kernel+0x1/0x2", 0, True),
    ("page_ext_init+0x1f/0x2\nstart_kernel+0x1/0x2", 0xd0, False),
    ("__alloc_pages_nodemask+0x1/0x2\npage_ext_init+0x1f/0x2", 0, False),
    ("save_stack_trace+0x1/0x2\nsave_stack+0x1/0x2\n__set_page_owner+0x1/0x2\n"
     "init_page_owner+0x1/0x2", 0, True),
    ("init_pages_in_zone.constprop.0+0x1/0x2", 0, True),
    ("register_dummy_stack+0x1/0x2\ninit_page_owner+0x1/0x2", 0, False),
    ("register_early_stackful+0x1/0x2", 0, False),
    ("save_stack_trace+0x1/0x2", 0, False),
    ("", 0, False)])
def test_an_early_page_is_told_by_who_searched_for_it(stack: str, mask: int, early: bool) -> None:
    assert is_early(stack, mask) is early


@pytest.mark.parametrize("mark", [
    "0xffffffffffffffff", "[<ffffffffffffffff>] 0xffffffffffffffff", "0xffffffff",
    "[<ffffffff>] 0xffffffff", "0x0", "[<0000000000000000>] 0x0", "(null)",
    "[<          (null)>]           (null)"])
def test_the_mark_that_ends_a_stack_is_no_function(mark: str) -> None:
    body = parse_body(f" [<ffffffff8114a5e7>] pipe_write+0x1/0x2\n {mark}\n".encode())
    assert body.stack is not None
    assert frames(body.stack) == [Frame("pipe_write", None)]
    assert frames(mark) == []
    # An address that no symbol covers is one.
    assert frames("0xffffffffc0a1b2c3") == [Frame("0xffffffffc0a1b2c3", None)]


def test_end_marks_are_nobodys_label_or_frame() -> None:
    snapshot = pageowner.read(TEXTS / "4.2-swap-exhaustion.txt")
    assert not [frame for frame in pages_by(snapshot, "frame") if "0xffff" in str(frame)]
    assert pages_by(snapshot, "subsystem")["DMA buffers"] == 4


@pytest.mark.parametrize(("file", "labels"), [
    ("4.9-arm64-no-indent.txt", {"DMA buffers": 1}),
    ("trimmed.txt", {"netfilter": 512, "page cache": 1})])
def test_stack_lines_without_a_blank_in_front_are_a_stack(
        file: str, labels: dict[str, int]) -> None:
    snapshot = pageowner.read(TEXTS / file)
    assert pages_by(snapshot, "subsystem") == labels
    assert snapshot.meta.counters["unknown_lines"] == snapshot.meta.counters["damaged"] == 0
    assert str(snapshot.table["stack"][0]).startswith("post_alloc_hook+")


@pytest.mark.parametrize("line", [
    "post_alloc_hook+0x228/0x230", "[<ffffff9b64989c14>] post_alloc_hook+0x70/0x80",
    "dhd_prot_init+0x100/0x200 [bcmdhd]", "? pipe_write+0x1/0x2", "0xffffffffc0a1b2c3",
    "get_page_from_freelist+0x33e", "pipe_write (fs/pipe.c:540 (discriminator 3))",
    "dhd_prot_init (drivers/dhd/dhd.c:40) dhd", "pipe_write+0x1/0x2 fs/pipe.c:540"])
def test_every_form_of_a_frame_is_one_without_its_blank(line: str) -> None:
    body = parse_body(f"{line}\nCharged to memcg a+0x1/0x2\n".encode())
    assert body.stack in (line, line.partition("] ")[2])
    assert body.said("memcg") == "a+0x1/0x2"
    assert body.unknown == 0


@pytest.mark.parametrize(("line", "unknown"), [
    ("SLAB_PAGE slab_name:kmalloc-32", 0), ("PID 7", 0),
    ("FILE_PAGE dev 253:0 ino:1954 index:0xc1 mapcount:1 refcount:2 0x4c2000 - 0x4c3000", 0),
    ("[  123.456789] usb 1-1: new high-speed USB device", 1), ("PID x", 1)])
def test_other_lines_are_notes_and_counted_if_their_meaning_is_not_known(
        line: str, unknown: int) -> None:
    body = parse_body(f" pipe_write+0x1/0x2\n{line}\n vfs_write+0x1/0x2\n".encode())
    assert body.stack == "pipe_write+0x1/0x2\nvfs_write+0x1/0x2"
    assert (body.notes, body.unknown) == (line, unknown)


@pytest.mark.parametrize("heading", [
    "[free]", "page last free stack trace:", "page last free pid 9 tgid 9 stack trace:",
    "Page has been freed, stack:", "Freed by task 12:"])
def test_the_stack_of_a_free_is_not_that_of_the_allocation(heading: str) -> None:
    body = parse_body(b" pipe_write+0x1/0x2\n%s\n free_unref_page+0x1/0x2\n  exit_mmap+0xa5\n"
                      b"Charged to memcg /a\n" % heading.encode())
    assert body.stack == "pipe_write+0x1/0x2"
    assert body.notes == (
        f"{heading}\n free_unref_page+0x1/0x2\n exit_mmap+0xa5\nCharged to memcg /a")
    assert (body.said("memcg"), body.unknown) == ("/a", 0)
    # and where it stands alone
    body = parse_body(b"%s\n free_unref_page+0x1/0x2\n" % heading.encode())
    assert (body.stack, body.unknown) == (None, 0)


def test_another_stack_under_a_heading_that_is_not_known_is_counted() -> None:
    body = parse_body(b"[alloc]\n pipe_write+0x1/0x2\n[pinned]\n gup+0x1/0x2\n")
    assert (body.stack, body.notes, body.unknown) == ("pipe_write+0x1/0x2",
                                                      "[pinned]\n gup+0x1/0x2", 1)


@pytest.mark.parametrize(("line", "name", "module"), [
    ("post_alloc_hook (./include/linux/page_owner.h:32 mm/page_alloc.c:1858)", "post_alloc_hook",
     None),
    ("pipe_write (fs/pipe.c:540 (discriminator 3) fs/pipe.c:9) ", "pipe_write", None),
    ("ext4_readpage.part.0 (fs/ext4/inode.c:3) ext4", "ext4_readpage", "ext4"),
    ("nv_alloc_pages (/build/nv-vm.c:7) [nvidia]", "nv_alloc_pages", "nvidia"),
    ("? folio_alloc_noprof (mm/mempolicy.c:2 (discriminator 1))", "folio_alloc", None),
    ("allocate_slab+0x24/0x3d mm/slub.c:2024", "allocate_slab", None),
    ("alloc_slab_page mm/slub.c:1861 [inline]", "alloc_slab_page", None),
    ("xfs_buf_get+0x1/0x2 fs/xfs/xfs_buf.c:1:2 [xfs]", "xfs_buf_get", "xfs"),
    ("xfs_buf_get (??:?) xfs", "xfs_buf_get", "xfs"),
    ("pipe_writev+574", "pipe_writev", None)])
def test_a_line_of_source_hides_neither_function_nor_module(
        line: str, name: str, module: str | None) -> None:
    assert parse_frame(line) == Frame(name, module)


def test_stacks_with_lines_of_source_meet_those_without() -> None:
    decoded = "post_alloc_hook (mm/page_alloc.c:1) \npipe_write (fs/pipe.c:540) \nf (a.c:1) m "
    plain = "post_alloc_hook+0x1/0x2\npipe_write+0x1/0x2\nf+0x1/0x2 [m]"
    assert frames(decoded) == frames(plain)
    assert Counter(ask(decoded) == ask(plain) for ask in OF_STACK.values()) == {True: len(OF_STACK)}
