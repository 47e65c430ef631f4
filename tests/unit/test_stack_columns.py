"""Stacks read together, and by several processes, are what they are block by block."""

from __future__ import annotations

import lzma
import random
from pathlib import Path

import pytest
from damage import damaged
from outcomes import agreed, in_pieces, outcome

from pageowner.model.snapshot import Snapshot
from pageowner.sources import page_owner_stack_blocks, page_owner_stack_lists

WHOLE = lzma.decompress(
    (Path(__file__).parents[1] / "data/6.12-fragmented/show_stacks.txt.xz").read_bytes())
SOME = WHOLE[:WHOLE.index(b"\n\n", 20_000) + 2]
EARLY = b" save_stack+0x1/0x2\n init_pages_in_zone+0x1/0x2\nnr_base_pages: 7\n\n"


def same(path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch) -> Snapshot | str:
    """What the text is block by block, if it is the same in each other way."""
    path.write_bytes(text)
    found: list[Snapshot | str] = []
    with monkeypatch.context() as changed:
        changed.setattr(page_owner_stack_blocks, "regular", lambda *_: None)
        found.append(outcome(page_owner_stack_lists.read, path))
    return agreed(found + in_pieces(page_owner_stack_lists, "_PIECE", path, monkeypatch))


def test_early_pages_and_numbers_of_every_length(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    text = EARLY + b"".join(b" f%d+0x1/0x2 [m]\n g+0x1/0x2\nnr_base_pages: %d\n\n" % (
        number, 10**(number % 13) - number % 2) for number in range(200))
    found = same(tmp_path / "list", text, monkeypatch)
    assert not isinstance(found, str)
    assert found.table["state"].to_pylist().count("early") == 1
    assert found.table.num_rows == 201 - 8  # without those of no page


@pytest.mark.parametrize("among", [
    b" a\nb+0x1/0x2\nnr_base_pages: 4\n\n", b" a\nnr_base_pages: 04\n\n",
    b" a  b\nnr_base_pages: 4\n\n",
    b"\n a\nnr_base_pages: 4\n\n\n\n", b" a\n\nnr_base_pages: 4\n\n", b"nr_base_pages: 4\n\n",
    b" a\nnr_base_pages: 9999999999999999999\n\n", b" a\nnr_base_pages: 4503599627370490\n\n" * 2,
    b" \xc3\xa9\\x41\xff\nnr_base_pages: 4\n\n", b" a\nnr_base_pages: 4x\n\n", b" a\n b \n\n",
    b" a\nstack_count: 5\n\n", b" a\nstack_count: 5 curr_nr_base_pages: 9\n\n",
    b"handle: 7\nnr_base_pages: 4\n\n", b" a\nhandle: 7\n\n",
    b" a\nhandle: 7\nnr_base_pages: 4\n\n",
    b"           0        0 mm/a.c:5 func:f \n", b" a\n nr_base_pages: 4\n\n", SOME])
def test_what_is_irregular_is_read_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                among: bytes) -> None:
    at = SOME.index(b"\n\n", 10_000) + 2
    same(tmp_path / "list", SOME[:at] + among + SOME[at:], monkeypatch)
    same(tmp_path / "list", SOME + among.rstrip(b"\n"), monkeypatch)


def test_damage_is_counted_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = 0
    chance = random.Random(3)
    for _ in range(20):
        found = same(tmp_path / "list", damaged(SOME, chance, b"\n :0nr_base"), monkeypatch)
        lost += isinstance(found, Snapshot) and found.meta.counters["damaged"]
    assert lost
