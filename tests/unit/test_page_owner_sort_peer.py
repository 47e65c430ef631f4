"""The same bytes as the kernel's tool, on random records with random options, where it is built."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
from functools import cache
from pathlib import Path

import pytest

from pageowner.page_owner_sort.command import main

DATA = Path(__file__).resolve().parent.parent / "data"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
PEER = CACHE / "pageowner/peers/page_owner_sort"

pytestmark = pytest.mark.skipif(
    not PEER.exists(), reason="the kernel's page_owner_sort is not built: run scripts/peers"
)

_spec = importlib.util.spec_from_file_location(
    "make_expected", DATA / "page_owner_sort" / "make.py")
assert _spec is not None
assert _spec.loader is not None
expected = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(expected)

# No empty line ends it, so that it counts for nothing; the kernel's tool takes no more blocks than
# a hundredth of the file's size.
TAIL = b" padding\n" * 12_000


@cache
def records(dump: str) -> list[bytes]:
    """Some records of a bundled dump: runs, so that there are equal ones, and single ones."""
    every = expected.records(dump)
    return every[:400] + every[::97] + every[-400:]


def compare(arguments: list[str], text: bytes, folder: Path) -> None:
    """Run both on a text."""
    source = folder / "in"
    source.write_bytes(text + TAIL)
    theirs, ours = folder / "theirs", folder / "ours"
    subprocess.run([PEER, *arguments, source, theirs], check=True, stdout=subprocess.DEVNULL)
    assert main([*arguments, str(source), str(ours)]) == 0
    assert ours.read_bytes() == theirs.read_bytes()


def some_arguments(rng: random.Random) -> list[str]:
    """Options in any number, form and order."""
    words = []
    if rng.random() < 0.7:
        words.append(rng.choice(["-a", "-m", "-n", "-p", "-P", "-s", "-t", "-mm", "-tt"]))
    if rng.random() < 0.6:
        keys = ["p", "pid", "tg", "tgid", "n", "name", "st", "stacktrace", "ator", "allocator"]
        words += [rng.choice(["--cull=", "--cul=", "--c="])
                  + ",".join(rng.choices(keys, k=rng.randint(1, 4)))]
    if rng.random() < 0.3:
        words += [rng.choice(["--pid", "--pi"]), rng.choice(["1", "0,2", " 64", "+59,1,62", "-1"])]
    if rng.random() < 0.3:
        words += ["--tgid=" + rng.choice(["1", "64,59", "2,2,2", "4294967297"])]
    if rng.random() < 0.3:
        words += ["--name", rng.choice(["dd", "init,dd", "swapper,", "", "x (y), pid 7, t"])]
    return words


def some_block(rng: random.Random) -> bytes:
    """A block in no format, or in that of an old kernel, or a record that lacks something."""
    record = rng.choice(records(rng.choice(["6.12", "6.1"])))
    first, pfn, rest = record.split(b"\n", 2)
    order = rng.randint(0, 9)
    old = b"Page allocated via order %d, mask 0x1(A|B)" % order
    return rng.choice([
        b"\n",
        b"\n\n\n",
        b"some text\nof two lines\n\n",
        b"PFN 5 slab\n\n",
        b"PFN 6 CMA\nPFN 7\n\n",
        b"order 5, pid 6,\ntgid 7 (it), ts\n8 ns\n\n",
        b"order  7, pid\t12, tgid 13 ((a) b), ts 009 ns ts 5 ns\n slab\n\n",
        old + b"\n" + pfn + b"\n [<ffffffff81>] f+0x1/0x2\n\n",
        old + b", pid 4, ts 18446744073709551617 ns\n" + pfn + b"\n" + rest,
        old + b", pid 4, ts 77 ns, free_ts 5 ns\n" + pfn + b"\n" + rest,
        first + b"\n" + pfn + b"\n\n",
        first + b"\n" + rest,
        pfn + b"\n" + rest,
        rest,
        first + b"\n" + pfn + b"\nSLAB_PAGE slab_name:x\nPFN 0x9 CMA\n" + rest,
        first.replace(b"order ", b"order") + b"\n" + pfn + b"\n" + rest,
        first.replace(b", ts ", b", ts  0") + b"\n" + pfn + b"\n" + rest,
        first.replace(b" ns", b"") + b"\n" + pfn + b"\n" + rest,
        first.replace(b"pid ", b"pid 99999999") + b"\n" + pfn + b"\n" + rest,
        first + b" \n" + pfn + b"\n" + rest,
        record.replace(b"PFN 0x", b"PFN "),
        record.replace(b"\n", b"\r\n", 1),
        record[:-1] + b"\n\n\n",
    ])


@pytest.mark.parametrize("seed", range(40))
def test_random_records_with_random_options(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    some = rng.choices(records(rng.choice(["6.12", "6.1"])), k=rng.randint(1, 300))
    if rng.random() < 0.2:
        some += rng.choices(records(rng.choice(["6.12", "6.1"])), k=100)
    if rng.random() < 0.2:
        some = [b"".join(line for line in record.splitlines(keepends=True)
                         if not line.startswith(b"PFN")) for record in some]
    compare(some_arguments(rng), b"".join(some), tmp_path)


@pytest.mark.parametrize("arguments", [[], ["-m"], ["-a"], ["--cull=st"]])
def test_records_with_and_without_a_release_time(arguments: list[str], tmp_path: Path) -> None:
    without = records("6.12")[:200]
    assert b"free_ts" not in b"".join(without)
    with_one = [record.replace(b" ns\n", b" ns, free_ts 1 ns\n", 1) for record in without]
    compare(arguments, b"".join(with_one + without), tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_random_blocks_of_other_formats(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pageowner.page_owner_sort import parts, workers

    rng = random.Random(1000 + seed)
    some = rng.choices(records(rng.choice(["6.12", "6.1"])), k=rng.randint(0, 60))
    for _ in range(rng.randint(1, 60)):
        some.insert(rng.randint(0, len(some)), some_block(rng))
    monkeypatch.setattr(parts, "CHUNK", rng.choice([300, 5000, 1 << 17]))
    monkeypatch.setattr(workers, "_PART", rng.choice([3000, 50_000, 1 << 30]))
    compare(some_arguments(rng), b"".join(some), tmp_path)
