"""A few addresses are called what taking all of /proc/kallsyms apart calls them."""

from __future__ import annotations

import lzma
import os
import re
from pathlib import Path

import numpy as np
import pytest
from test_kallsyms import SMALL

from pageowner.kernel import few_symbols, kallsyms

DATA = Path(__file__).parent.parent / "data/6.12-fragmented/kallsyms.txt.xz"

MODULES = b"".join(
    b"%016x %c m%d_%d\t[m%d]\n" % (0xffffffffc0000000 + start, kind, module, place, module)
    for module in (3, 1, 2) for place, (start, kind) in enumerate(
        [(module * 0x9000 + offset, kind) for offset, kind in (
            (0, b"t"), (0x40, b"T"), (0x40, b"t"), (0x900, b"w"), (0x2000, b"d"), (0x2010, b"b"),
            (0x1004, b"t"))]))


def same(text: bytes, addresses: list[int]) -> None:
    named = few_symbols.FewSymbols(text).names(addresses)
    assert list(named) == list(dict.fromkeys(addresses))
    for address, name in zip(named, kallsyms.parse(text).resolve(list(named)), strict=True):
        assert named[address] == name


def edges(text: bytes) -> list[int]:
    """Around where each symbol begins."""
    starts = {int(line[:16], 16) for line in text.splitlines()}
    return [start + off for start in starts for off in (-1, 0, 1, 0x800, 0x1001)
            if 0 <= start + off < 1 << 64]


@pytest.mark.parametrize("text", [
    SMALL, SMALL + MODULES, SMALL.partition(b"\t")[0].rpartition(b"\n")[0] + b"\n",
    re.sub(rb" t ", b" d ", SMALL), re.sub(rb" T ", b" D ", SMALL + MODULES)])
def test_every_edge_of_a_small_list(text: bytes) -> None:
    same(text, edges(text))


def test_a_real_list() -> None:
    text = lzma.decompress(DATA.read_bytes())
    same(text, edges(text))
    same(text + MODULES, edges(text + MODULES))


@pytest.mark.parametrize("text", [
    b"", b"\n", b"hello world\n", re.sub(rb"^[0-9a-f]{16}", b"0" * 16, SMALL, flags=re.M),
    SMALL + b"ffffffff81000000 T f\n", SMALL[:-1], b"81000000 T f\n"])
def test_what_is_not_as_expected_is_left_to_the_other(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(text)
    assert few_symbols.read(str(tmp_path / "k")) is None
    assert few_symbols.read(str(tmp_path / "none")) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="symbols are hidden from all but root")
def test_the_running_kernel() -> None:
    with open(kallsyms.KALLSYMS, "rb") as file:
        text = file.read()
    core = [int(line[:16], 16) for line in text.splitlines() if b"\t" not in line]
    chance = np.random.default_rng(5)
    symbols = kallsyms.parse(text)
    few = few_symbols.read()
    assert few is not None
    assert few.address_of("_stext") == symbols.address_of("_stext")
    assert few.address_of("no_such") is None
    for _ in range(20):
        some = [core[n] + int(off) for n, off in zip(
            chance.integers(0, len(core), 12), chance.integers(0, 300, 12), strict=True)]
        named = few.names(some)
        assert list(named.values()) == symbols.resolve(list(named))
