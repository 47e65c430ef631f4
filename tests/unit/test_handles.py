"""Records with a handle for their stack, joined with the kernel's list of stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pageowner.sources import kernel_page_owner
from pageowner.sources.kernel_page_owner import TRIES, on_nodes, read, with_stacks
from pageowner.sources.page_owner_parser import Parser, Raw

TEXTS = Path(__file__).parents[1] / "data" / "texts"
EARLY = "register_early_stack+0x10/0x20\ninit_page_owner+0x30/0x40"


def raw_of(*handles: int) -> Raw:
    parser = Parser()
    parser.feed(b"".join(
        b"Page allocated via order 0, mask 0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP),"
        b" pid 900, tgid 900 (worker), ts %d ns\n"
        b"PFN 0x%x type Movable Block 9 type Movable Flags 0xfffffc0000000(node=0|zone=1)\n"
        b"handle: %d\n\n" % (5000 + place, 0x1200 + place, handle)
        for place, handle in enumerate(handles)))
    return parser.close(final=True)


def stack_of(raw: Raw, place: int) -> str | None:
    return raw.bodies[raw.kinds[raw.kind[place]][2]].stack


def test_each_record_gets_the_frames_of_its_handle() -> None:
    raw = raw_of(7, 8, 7)
    assert with_stacks(raw, {7: "f+0x1/0x2", 8: "g+0x1/0x2"}, lambda pfn, handle: None) == []
    assert [stack_of(raw, place) for place in range(3)] == ["f+0x1/0x2", "g+0x1/0x2", "f+0x1/0x2"]
    # as if it had been read with stacks: `dump` writes what the kernel prints
    assert {body.handle for body in raw.bodies} == {None}


def test_what_the_list_lacks_is_asked_of_a_page_that_has_it() -> None:
    raw = raw_of(7, 9, 9)
    asked = []

    def ask(pfn: int, handle: int) -> str | None:
        asked.append((pfn, handle))
        return EARLY if pfn == 0x1202 else None  # the first has been freed since

    assert with_stacks(raw, {7: "f+0x1/0x2"}, ask) == []
    assert asked == [(0x1201, 9), (0x1202, 9)]
    assert stack_of(raw, 2) == EARLY


def test_what_cannot_be_had_is_named_and_the_asking_has_an_end(
        monkeypatch: pytest.MonkeyPatch) -> None:
    most = 50
    monkeypatch.setattr(kernel_page_owner, "ASKED", most)
    raw = raw_of(*[9] * (TRIES + 5), *range(100, 100 + 2 * most))
    asked = []

    def ask(pfn: int, handle: int) -> str | None:
        asked.append(handle)
        return None

    assert with_stacks(raw, {}, ask) == [9, *range(100, 100 + 2 * most)]
    assert asked.count(9) == TRIES
    assert len(asked) == TRIES + most - 1
    assert stack_of(raw, 0) is None


def test_the_kernel_is_told_which_nodes_to_print(tmp_path: Path) -> None:
    """A file that holds what the kernel would print behind the words that are written to it."""
    words = b"mode=handle nid=0,2"
    dump = tmp_path / "page_owner"
    dump.write_bytes(b" " * len(words) + (TEXTS / "handles.txt").read_bytes())
    (tmp_path / "page_owner_stacks").mkdir()
    (tmp_path / "page_owner_stacks" / "show_stacks_handles").write_bytes(
        (TEXTS / "show-stacks-handles.txt").read_bytes())
    with on_nodes((0, 2)):
        found = read(str(dump))
    assert found is not None
    assert found.pages == 5
    # What is written to ask for single records, to another open file, is shorter.
    assert dump.read_bytes()[17:].startswith(words[17:] + b"Page allocated")
    assert all("filemap_fault" in stack for stack in found.table["stack"].to_pylist())
    assert found.meta.counters["unknown_handles"] == 0
