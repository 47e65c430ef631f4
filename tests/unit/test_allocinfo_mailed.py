"""/proc/allocinfo in a mail, which wraps, quotes and encodes its lines."""

from __future__ import annotations

from pathlib import Path
from quopri import encodestring
from typing import TYPE_CHECKING

import pytest
from asking import pages_by as bytes_by
from asking import run

import pageowner
from pageowner.sources.allocinfo_restoring import restored

if TYPE_CHECKING:
    from collections.abc import Callable

OLD = Path(__file__).parents[1] / "data" / "texts" / "allocinfo-1.0.txt"
LONG = "     7340032     1792 drivers/net/ethernet/example/nic_rx_ring.c:681 [nic] func:nic_page\n"
LIST = "".join(line + "\n" for line in OLD.read_text().splitlines()[2:]) + LONG
ABOVE = "Subject: it grows\nX-Long: " + "x" * 60 + "\n\nHi,\n\n# sort -g /proc/allocinfo\n"
BELOW = "\nThe last one only grows = bad.\n"


def wrapped(text: str) -> str:
    return text.replace(" [nic] func:", "\n[nic] func:")


def wrapped_behind_the_module(text: str) -> str:
    return text.replace("[nic] func:", "[nic]\nfunc:").replace("func:__filemap", "\nfunc:__filemap")


def quoted(text: str) -> str:
    return "".join(f"> > {line}\n" for line in text.splitlines())


def encoded(text: str) -> str:
    lines = encodestring(text.encode()).decode()
    assert "=\n" in lines
    return lines


@pytest.mark.parametrize("ways", [
    [], [wrapped], [wrapped_behind_the_module], [quoted], [encoded], [wrapped, quoted],
    [wrapped, quoted, encoded], [quoted, encoded],
    [wrapped, lambda text: text.replace("\n", "\r\n")]])
def test_no_line_is_lost_and_none_misread(ways: list[Callable[[str], str]],
                                          tmp_path: Path) -> None:
    text = ABOVE + LIST + BELOW
    for way in ways:
        text = way(text)
    mail = tmp_path / "mail"
    mail.write_text(text, newline="")
    expected = bytes_by(OLD)
    expected["drivers/net/ethernet/example/nic_rx_ring.c:681 [nic]\nnic_page [nic]"] = 7340032
    assert bytes_by(mail) == expected
    undone = pageowner.read(mail).meta.extra.get("undone", [])
    assert len(undone) == len(ways)
    assert all(what in run("report", mail)[2] for what in undone)


def test_of_two_lists_the_quoted_one_is_not_added_to_the_other(tmp_path: Path) -> None:
    mail = tmp_path / "mail"
    mail.write_text(quoted("".join(LIST.splitlines(keepends=True)[:6])) + "\nToday:\n" + LIST)
    found = pageowner.read(mail)
    assert found.pages == sum(bytes_by(OLD).values()) + 7340032
    assert found.meta.counters["damaged"] == 7
    assert "damaged" in run("report", mail)[2]


def test_a_copy_is_left_as_it_is() -> None:
    text = OLD.read_bytes()
    assert restored(text) == (text, [])
