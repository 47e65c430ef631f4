"""Types of pages: what a word says in kernels of each kind, and hugetlb before there were types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pageowner.kernel_memory.access import Member
from pageowner.kernel_memory.page_types import PageTypes, hugetlb_of_second

PAGE = 64


def types(enums: dict[tuple[str, str], int], members: dict[tuple[str, str], tuple[int, int]]
          | None = None) -> Any:
    return SimpleNamespace(
        size=lambda name: PAGE if name == "page" else None,
        member=lambda *place: Member(*members[place]) if members and place in members else None,
        enumerator=lambda *place: enums.get(place))


OF_6_1 = types({})
OF_6_11 = types({("pagetype", name): value for name, value in (
    ("PG_buddy", 0x40000000), ("PG_offline", 0x20000000), ("PG_table", 0x10000000),
    ("PG_hugetlb", 0x04000000), ("PG_slab", 0x02000000), ("PAGE_TYPE_BASE", 0x80000000))})
OF_6_12 = types({("pagetype", name): value for name, value in (
    ("PGTY_buddy", 0xF0), ("PGTY_offline", 0xF1), ("PGTY_table", 0xF2), ("PGTY_hugetlb", 0xF4),
    ("PGTY_slab", 0xF5))})
IN_6_10 = {"PAGE_BUDDY_MAPCOUNT_VALUE": ~0x80, "PAGE_OFFLINE_MAPCOUNT_VALUE": ~0x100,
           "PAGE_HUGETLB_MAPCOUNT_VALUE": ~0x800, "PAGE_SLAB_MAPCOUNT_VALUE": ~0x1000}
NO_TYPE = 0xFFFFFFFF


@pytest.mark.parametrize(("release", "of", "numbers", "words"), [
    ((5, 10), OF_6_1, {}, {"buddy": NO_TYPE ^ 0x80, "offline": NO_TYPE ^ 0x100,
                           "pgtable": NO_TYPE ^ 0x400}),
    ((6, 1), OF_6_1, {}, {"buddy": NO_TYPE ^ 0x80, "offline": NO_TYPE ^ 0x100,
                          "pgtable": NO_TYPE ^ 0x200}),
    ((6, 10), OF_6_1, IN_6_10, {"buddy": NO_TYPE ^ 0x80, "offline": NO_TYPE ^ 0x100,
                       "pgtable": NO_TYPE ^ 0x200, "huge": NO_TYPE ^ 0x800,
                       "slab": NO_TYPE ^ 0x1000}),
    ((6, 11), OF_6_11, IN_6_10, {"buddy": 0xBFFFFFFF, "offline": 0xDFFFFFFF, "pgtable": 0xEFFFFFFF,
                        "huge": 0xFBFFFFFF, "slab": 0xFDFFFFFF}),
    ((6, 12), OF_6_12, {}, {"buddy": 0xF0FFFFFF, "offline": 0xF1FFFFFF, "pgtable": 0xF2FFFFFF,
                   "huge": 0xF4000001, "slab": 0xF5000020})])
def test_a_word_says_what_the_page_is(release: tuple[int, int], of: Any, numbers: dict[str, int],
                                      words: dict[str, int]) -> None:
    found = PageTypes(of, release, numbers)
    assert found.has == words.keys()
    kind = np.array([*words.values(), NO_TYPE, 0, 5], np.uint32)  # no type, mapped once, six times
    for place, name in enumerate(words):
        assert np.flatnonzero(found.are(name, kind)).tolist() == [place]


@pytest.mark.parametrize("of", [
    types({("compound_dtor_id", "HUGETLB_PAGE_DTOR"): 2}, {("page", "compound_dtor"): (16, 1)}),
    types({("compound_dtor_id", "HUGETLB_PAGE_DTOR"): 2},
          {("folio", "_folio_dtor"): (PAGE + 16, 1)}),
    types({("pageflags", "PG_hugetlb"): 1}, {("page", "flags"): (16, 8)})])
def test_hugetlb_is_told_by_the_second_page(of: Any) -> None:
    second = np.zeros((3, PAGE), np.uint8)
    second[:, 16] = 1, 2, 0  # that of other compound pages, of hugetlb, none
    is_hugetlb = hugetlb_of_second(of)
    assert is_hugetlb is not None
    assert is_hugetlb(second).tolist() == [False, True, False]


def test_vmcoreinfo_tells_the_destructor_where_the_types_do_not() -> None:
    of = types({}, {("page", "compound_dtor"): (16, 1)})
    assert hugetlb_of_second(of) is None
    is_hugetlb = hugetlb_of_second(of, {"HUGETLB_PAGE_DTOR": 2})
    second = np.zeros((3, PAGE), np.uint8)
    second[:, 16] = 1, 2, 0
    assert is_hugetlb is not None
    assert is_hugetlb(second).tolist() == [False, True, False]


def test_newer_kernels_do_not_tell_it_there() -> None:
    assert hugetlb_of_second(OF_6_12) is None
