"""A filter that nothing can match is refused with the nearest word that is known."""

from __future__ import annotations

import pytest
from machines import machine

from pageowner import Snapshot, UsageError
from pageowner.kernel import gfp


@pytest.fixture(scope="module")
def capture() -> Snapshot:
    return machine(3).snapshot()


@pytest.mark.parametrize(("words", "message"), [
    ({"zone": "Norml"}, "no zone 'Norml'; did you mean Normal[?]"),
    ({"migratetype": "moveable"}, "no migratetype 'moveable'; did you mean Movable[?]"),
    ({"migratetype": ("Movable", "xyz")}, "'xyz'; there are Unmovable, Movable,"),
    ({"state": "ownd"}, "no state 'ownd'; did you mean owned[?]"),
])
def test_a_word_that_no_kernel_has_is_refused(capture: Snapshot, words: dict[str, str],
                                              message: str) -> None:
    with pytest.raises(UsageError, match=message):
        capture.select(**words)


@pytest.mark.parametrize("words", [
    {"zone": "normal"}, {"zone": "HighMem"}, {"zone": "D*"}, {"migratetype": "UNMOVABLE"},
    {"migratetype": "*movable"}, {"state": "early"}])
def test_a_word_that_some_kernel_has_is_understood(capture: Snapshot, words: dict[str, str]
                                                   ) -> None:
    capture.select(**words)


def test_a_flag_that_no_kernel_has_is_refused(big: Snapshot) -> None:
    for word, near in (("ZEROO", "__GFP_ZERO"), ("GFP_KERNAL", "GFP_KERNEL"),
                       ("KERNEL|__GFP_ZERRO", "__GFP_ZERO")):
        with pytest.raises(UsageError, match=f"did you mean {near}[?]"):
            big.select(gfp=word)
    for word in ("zero", "__GFP_NOLOCKDEP", "KERNEL,ZERO", "0xcc0", "GFP_TEMPORARY"):
        big.select(gfp=word)


def test_what_the_source_itself_holds_is_a_name_whatever_it_is(big: Snapshot) -> None:
    import pyarrow as pa

    def with_names(column: str, name: str) -> Snapshot:
        names = pa.array([name] * 10, pa.string()).dictionary_encode()
        place = big.table.column_names.index(column)
        return Snapshot(big.table.slice(0, 10).set_column(place, column, names), big.meta)

    assert with_names("migratetype", "Vendor").select(migratetype="vendor").table.num_rows == 10
    assert with_names("zone", "Odd").select(zone="odd").table.num_rows == 10
    flags = with_names("gfp_flags", "GFP_KERNEL|__GFP_VENDOR")
    assert flags.select(gfp="vendor").table.num_rows == 10


def test_a_dump_tells_zones_by_number(big: Snapshot) -> None:
    assert big.select(zone="0").table.num_rows == big.table.num_rows
    assert big.select(zone="1").table.num_rows == 0
    for word in ("Normal", "9"):
        with pytest.raises(UsageError, match=f"zones by number; it has 0, not '{word}'"):
            big.select(zone=word)


def test_every_name_of_every_layout_is_known() -> None:
    for release in ("3.19", "4.4", "4.8", "4.13", "5.15", "6.12"):
        assert {name for _, name in gfp.for_release(release).table} <= gfp.known_names()
