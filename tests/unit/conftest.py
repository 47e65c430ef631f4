"""Real kernels' words, read once."""

from __future__ import annotations

import lzma
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner import Snapshot

HERE = Path(__file__).parent
DATA = HERE.parent / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is opened is closed. Such a warning comes while an object is freed, where nothing can
    raise."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings(
                "error::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def few(some_records: Path) -> Snapshot:
    """Records from all over the big dump."""
    import pageowner

    return pageowner.read(some_records)


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Snapshot, str], Path]:
    """Saves a snapshot under a name, and tells where."""
    def in_folder(snapshot: Snapshot, name: str) -> Path:
        path = tmp_path_factory.mktemp("saved") / f"{name}.parquet"
        snapshot.save(path)
        return path

    return in_folder


@pytest.fixture(scope="session")
def few_saved(few: Snapshot, save: Callable[[Snapshot, str], Path]) -> Path:
    """The same as a saved snapshot."""
    return save(few, "few")


@pytest.fixture(scope="session")
def data() -> Path:
    """Where the words of real kernels are."""
    return DATA


@pytest.fixture(scope="session")
def dump_stacks() -> dict[str, Counter[str]]:
    """Base pages by stack of each dump, counted with nothing of the package."""
    found = {}
    for kernel in ("6.12-fragmented", "6.1-sample"):
        bodies: Counter[str] = Counter()
        with lzma.open(DATA / kernel / "page_owner.txt.xz", "rt", errors="surrogateescape") as file:
            text = file.read()
        for record in text.split("\n\n"):
            order = re.match(r"Page allocated via order (\d+),", record)
            if order:  # the dump may end inside a record
                bodies[record[record.find("\n ") + 1:]] += 1 << int(order[1])
        pages: Counter[str] = Counter()
        for body, count in bodies.items():
            lines = [line[1:] for line in body.split("\n") if line.startswith(" ")]
            pages["\n".join(lines)] += count
        found[kernel] = pages
    return found


@pytest.fixture(scope="session")
def real_stacks(dump_stacks: dict[str, Counter[str]]) -> dict[str, int]:
    """Base pages by stack of all the kernels at hand."""
    found: Counter[str] = Counter()
    for pages in dump_stacks.values():
        found.update(pages)
    with lzma.open(DATA / "stacks/6.18.txt.xz", "rt") as file:
        for record in file.read().split("\n\n"):
            if record:
                *lines, pages_line = record.splitlines()
                found["\n".join(line[1:] for line in lines)] += int(pages_line.split(": ")[1])
    return dict(found)
