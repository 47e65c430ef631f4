"""Real kernels' dumps, unpacked and read once a session."""

from __future__ import annotations

import fcntl
import gc
import lzma
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pageowner import Snapshot

# A shell without job control has what it runs in the background ignore interrupts, and so would all
# that the tests start: those that are to end by one would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

# To compile the tests, with what each assertion tells, takes half of the time until they begin, so
# what is compiled is kept, also where PYTHONDONTWRITEBYTECODE is set.
sys.dont_write_bytecode = False

_DATA = Path(__file__).parent / "data"
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
_OWN = ("test_safety.py", "test_specification.py", "test_tearing.py")
"""Of those on the running kernel, files that load programs of their own and need no tracker. They
begin at once: others look later at which programs are loaded."""
_LONG = ("test_fleet_spark.py", "test_hostile_files.py", "test_serve_page.py")
"""Files that begin first where tests run side by side, so that no process waits for one at the end.
"""
_begun: list[Path] = []
"""The file that this process began with."""


def _unpacked(temporary: pytest.TempPathFactory, kernel: str) -> Path:
    """The text of a dump, which all that run side by side share."""
    base = temporary.getbasetemp()
    folder = base.parent if _WORKER else base
    path = folder / f"{kernel}.txt"
    with (folder / f"{kernel}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with lzma.open(_DATA / kernel / "page_owner.txt.xz") as packed:
                path.write_bytes(packed.read())
    return path


@pytest.fixture(scope="session")
def dump_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole dump of a 6.12 kernel: 179,605 records, 118 MB."""
    return _unpacked(tmp_path_factory, "6.12-fragmented")


@pytest.fixture(scope="session")
def text61(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 40th record of the dump of a 6.1 kernel."""
    return _unpacked(tmp_path_factory, "6.1-sample")


@pytest.fixture(scope="session")
def big(dump_text: Path) -> Snapshot:
    """The whole dump of 6.12, read."""
    import pageowner

    return pageowner.read(dump_text)


@pytest.fixture(scope="session")
def sample61(text61: Path) -> Snapshot:
    """The sample of 6.1, read."""
    import pageowner

    return pageowner.read(text61)


@pytest.fixture(scope="session")
def some_records(dump_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundredth of the 6.12 dump, from all over it: whole records of every kind."""
    records = dump_text.read_bytes().split(b"\n\n")[:-1]
    path = tmp_path_factory.mktemp("dump") / "some.txt"
    path.write_bytes(b"".join(record + b"\n\n" for record in records[::97]))
    return path


class _Backwards(pytest.Dir):  # type: ignore[misc]
    """A folder from its last file to its first."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return reversed(list(super().collect()))


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Two that run side by side begin to read the tests at either end, so that each finds compiled
    what the other has read."""
    if _WORKER[2:].isdecimal() and int(_WORKER[2:]) % 2:
        return _Backwards.from_parent(parent, path=path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _WORKER:
        items.sort(key=lambda item: (_turn(item.path), item.path))


def pytest_runtest_protocol(item: pytest.Item) -> None:
    """The row on the running kernel is the longest: a process that begins with another gives way
    to it."""
    if _WORKER and not _begun:
        _begun.append(item.path)
        if _turn(item.path):
            os.nice(5)


def _turn(path: Path) -> int:
    if path.name in _OWN:
        return 1
    return 0 if path.parent.name == "live" else 2 if path.name in _LONG else 3


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: a part of each row is waiting."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
               or len(os.sched_getaffinity(0)) + 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run side by side, those on the running kernel are one row, since there is one
    tracker, which begins first; of others each file is one, which shares what it has read.

    (Groups by mark, ``--dist loadgroup``, are none with pytest 9.2: xdist 3.8 adds their names to
    an attribute of tests that is no longer read.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Rows(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            own = file.endswith(_OWN)
            return "live" if file.startswith("tests/live/") and not own else file

    config.option.loadscopereorder = False
    return Rows(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-screens", action="store_true",
                     help="write what is drawn now to tests/data/screens instead of comparing")


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: bytes
    err: bytes


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """Runs ``pageowner WORDS…`` in this process, its output no terminal."""
    from pageowner.cli import main

    def run(*words: str | os.PathLike[str]) -> Done:
        capfdbinary.readouterr()
        threshold = gc.get_threshold()
        handlers = {number: signal.getsignal(number) for number in (
            signal.SIGTERM, signal.SIGHUP)}
        try:
            status = main([os.fspath(word) for word in words])
        finally:
            gc.set_threshold(*threshold)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        sys.stdout.flush()
        return Done(status, *capfdbinary.readouterr())

    return run
