"""Files of /proc that several parts need, read in one place."""

from pathlib import Path

import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import mounts, procpages, ranges


@pytest.mark.parametrize(("text", "found"), [
    ("0-2,4\n", [0, 1, 2, 4]), ("7", [7]), ("0-1,8-9", [0, 1, 8, 9]), ("\n", [])])
def test_lists_of_numbers(text: str, found: list[int]) -> None:
    assert ranges.numbers(text) == found


def test_a_list_that_is_none_is_not_taken_for_one() -> None:
    with pytest.raises(ValueError, match="N"):
        ranges.numbers("N/A")


def test_mounts_with_odd_names_and_optional_fields() -> None:
    text = ("1 0 0:1 / / rw - 9p root rw\n"
            r"2 1 0:2 / /a\040b\012c rw shared:1 master:2 - cgroup cgroup rw,cpu,memory"
            "\n3 1 0:3 / /d\re\x0c\u2028f rw - tmpfs tmpfs rw\nno mount\n")
    assert mounts.parse(text) == [
        mounts.Mount("/", "9p", ("rw",), "0:1", number="1"),
        mounts.Mount("/a b\nc", "cgroup", ("rw", "cpu", "memory"), "0:2", number="2"),
        mounts.Mount("/d\re\x0c\u2028f", "tmpfs", ("rw",), "0:3", number="3")]


def test_where_memory_ends_words_end(tmp_path: Path) -> None:
    path = tmp_path / "kpageflags"
    path.write_bytes(b"".join(number.to_bytes(8, "little") for number in range(5)))
    assert procpages.words(str(path), 3, 4) == [3, 4]
    assert procpages.words(str(path), 5, 1) == []
    assert procpages.words(str(path), 0, 0) == []


def test_a_kernel_without_these_files_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(PageownerError, match="CONFIG_PROC_PAGE_MONITOR"):
        procpages.words(str(tmp_path / "kpageflags"), 0, 1)
