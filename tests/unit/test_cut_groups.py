"""Texts of groups that end in the middle of one: nothing is read of it without being said."""

from __future__ import annotations

from pathlib import Path

import pytest

import pageowner
from pageowner.errors import PageownerError

TEXTS = Path(__file__).parents[1] / "data" / "texts"
# How the last line of a group begins, and what ends the group.
ENDS = {"sorted-old-times.txt": (b" ", b"\n\n"), "sorted-before.txt": (b" ", b"\n\n"),
        "sorted-culled.txt": (b" ", b"\n\n"), "sorted-2005.txt": (b"[", b"\n\n"),
        "show-stacks.txt": (b"nr_base_pages: ", b"\n"),
        "show-handles.txt": (b"nr_base_pages: ", b"\n"),
        "allocinfo-1.0.txt": (b"", b"\n"), "allocinfo-2.0.txt": (b"", b"\n")}


def counters(path: Path, text: bytes) -> dict[str, int] | None:
    """What is counted of such a text; None if it is refused."""
    path.write_bytes(text)
    try:
        return pageowner.read(path).meta.counters
    except PageownerError:
        return None


def places(text: bytes) -> list[int]:
    """Where to cut: around each end of a line everywhere, between them at each fifth byte."""
    return [place for place in range(1, len(text))
            if place % 5 == 0 or b"\n" in text[max(place - 4, 0):place + 4]]


@pytest.mark.parametrize("name", ENDS)
def test_a_text_that_is_cut_says_so_wherever_that_is(tmp_path: Path, name: str) -> None:
    whole, (begins, ends) = (TEXTS / name).read_bytes()[:1500], ENDS[name]
    made, cuts = tmp_path / "cut.txt", 0
    for end in places(whole):
        text = whole[:end]
        last = text.rstrip(b" \n")
        is_whole = (last.rpartition(b"\n")[2].startswith(begins)
                    and text[len(last):].lstrip(b" ").startswith(ends))
        if is_whole or (found := counters(made, text)) is None:
            continue
        assert found.get("unterminated", 0) + found["damaged"], text[-40:]
        cuts += 1
    assert cuts > 20


@pytest.mark.parametrize("name", ENDS)
def test_a_whole_text_is_not_called_cut(tmp_path: Path, name: str) -> None:
    whole = (TEXTS / name).read_bytes()
    found = counters(tmp_path / "whole.txt", whole)
    assert found is not None
    assert not found.get("unterminated")


def test_titles_without_stacks_need_no_empty_line(tmp_path: Path) -> None:
    made, text = tmp_path / "culled.txt", b"3 times, 4 pages, PID 12\n2 times, 8 pages, PID 13\n"
    assert not (counters(made, text) or {"unterminated": 1}).get("unterminated")
    assert (counters(made, text[:-2]) or {}).get("unterminated") == 1
