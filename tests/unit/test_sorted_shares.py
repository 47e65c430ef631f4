"""Groups of page_owner_sort that are read together, and by several processes, are what they are one
by one."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from damage import damaged
from outcomes import agreed, in_pieces, outcome

from pageowner.model.snapshot import Snapshot
from pageowner.page_owner_sort.command import main as sort
from pageowner.sources import page_owner_sorted
from pageowner.sources.page_owner_sorted_groups import SortedGroups

SAMPLE = Path(__file__).parents[1] / "data/6.1-sample/page_owner.txt.xz"


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """With many tasks for each stack."""
    made = tmp_path_factory.mktemp("sorted") / "sorted.txt"
    assert sort([str(SAMPLE), str(made)]) == 0
    text = made.read_bytes()[:30_000].rpartition(b"\n\n")[0] + b"\n\n"
    return text + re.sub(rb"(?<=, pid )\d+(?=, tgid \d)", b"77", text)


def same(path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch) -> Snapshot | str:
    """What the text is one by one, if it is the same in each other way."""
    path.write_bytes(text)
    found: list[Snapshot | str] = []
    with monkeypatch.context() as changed:
        changed.setattr(SortedGroups, "take_known", lambda _, pieces, start: start)
        found.append(outcome(page_owner_sorted.read, path))
    return agreed(found + in_pieces(page_owner_sorted, "_CHUNK", path, monkeypatch))


FIRST = b"Page allocated via order 0, mask 0x0(), pid 1, tgid 1 (%s), ts %s ns\n f+0x1/0x2\n\n"


@pytest.mark.parametrize("among", [
    b"", b"\n", b"x\n\n", FIRST % (b"a", b"5"), b"7 times, 6 pages, allocated by OTHERS :\n",
    *(b"7 times, 7 pages, allocated by %s :\n" % kind + FIRST % (name, ts) for kind, name, ts in (
        (b"SLAB", b"a", b""), (b"OTHERS", b"a) b", b"5"), (b"CMA VMALLOC", b"1 times, 2", b"6"),
        (b"OTHERS", b"a\n\nb", b""), (b"OTHERS", b"sixteen bytes 16", b""),
        (b"OTHERS", b"\xff", b""),
        (b"OTHERS", b"", b"1234567890123456789012"), (b"other", b"a", b""))),
    b"0 times, 0 pages, allocated by OTHERS :\n" + FIRST % (b"a", b""),
    b"1 times, 4503599627370490 pages, allocated by OTHERS :\n" + FIRST % (b"a", b""),
    b"2 times, 2 pages, allocated by OTHERS :\n" + (FIRST % (b"a", b"")).replace(b"1,", b"-1,")])
def test_what_is_irregular_is_read_in_its_place(groups: bytes, tmp_path: Path, among: bytes,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    at = groups.index(b"\n\n", 15_000) + 2
    same(tmp_path / "sorted", groups[:at] + among * 2 + groups[at:], monkeypatch)
    same(tmp_path / "sorted", groups + among.rstrip(b"\n"), monkeypatch)


def test_damage_is_counted_where_it_is(groups: bytes, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    chance, lost = random.Random(3), 0
    for _ in range(20):
        found = same(tmp_path / "sorted", damaged(groups, chance, b"\n :0 times"), monkeypatch)
        lost += isinstance(found, Snapshot) and found.meta.counters["damaged"]
    assert lost
