"""Stacks of addresses alone get the names that the kernel's own symbols give them."""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter
from pathlib import Path

import pytest
from asking import run

import pageowner
from pageowner import PageownerError
from pageowner.sources import source
from pageowner.sources.given import with_system_map

DATA = Path(__file__).parents[1] / "data" / "6.12-fragmented"


@pytest.fixture(scope="module")
def symbols() -> bytes:
    with lzma.open(DATA / "kallsyms.txt.xz") as file:
        return file.read()


@pytest.fixture(scope="module")
def records() -> bytes:
    with lzma.open(DATA / "page_owner.txt.xz") as file:
        text = file.read(1 << 20)
    return text[:text.rindex(b"\n\n") + 2]


def addresses(records: bytes, symbols: bytes, moved: int) -> bytes:
    """The same records from a kernel without names, that runs elsewhere."""
    found = re.findall(rb"^([0-9a-f]+) [tTwW] ([^\s]+)$", symbols, re.MULTILINE)
    times = Counter(name for _, name in found)
    known = {name: int(address, 16) for address, name in found if times[name] == 1}

    def address(found: re.Match[bytes]) -> bytes:
        name, offset = found[1], int(found[2], 16)
        return b" 0x%x\n" % (known[name] + offset + moved) if name in known else found[0]

    return re.sub(rb"^ ([^\s+]+)\+0x([0-9a-f]+)/0x[0-9a-f]+\n", address, records,
                  flags=re.MULTILINE)


@pytest.mark.parametrize("moved", [0, 14 << 21, 0x1230000])
def test_addresses_of_a_real_dump_get_their_names_wherever_the_kernel_ran(
        tmp_path: Path, records: bytes, symbols: bytes, moved: int) -> None:
    (tmp_path / "System.map").write_bytes(symbols)
    (tmp_path / "named.txt").write_bytes(records)
    bare = addresses(records, symbols, moved)
    assert bare.count(b"\n 0x") > 9 * bare.count(b"+0x")
    (tmp_path / "bare.txt").write_bytes(bare)
    named = pageowner.read(tmp_path / "named.txt")
    found = pageowner.read(tmp_path / "bare.txt", system_map=tmp_path / "System.map")
    assert found.report(by="stack,state").equals(named.report(by="stack,state"))
    said = found.meta.extra["symbols"]
    assert f"moved by {moved:#x}" in said if moved else "moved" not in said
    assert found.table.num_rows == named.table.num_rows
    # also as sums, and without the file as addresses
    with with_system_map(tmp_path / "System.map"):
        counted = source.count(tmp_path / "bare.txt")
    assert counted.meta.extra["symbols"] == said
    assert set(counted.columns["stack"]) == set(  # type: ignore[union-attr]
        named.table["stack"].to_pylist())
    plain = pageowner.read(tmp_path / "bare.txt")
    assert "symbols" not in plain.meta.extra
    assert str(plain.table["stack"][0]).startswith("0x")


def test_symbols_of_32_bits_and_modules_are_read(tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text(
        "c0008000 T _stext\nc00a1000 T get_page_from_freelist\nc00a2000 T pipe_write\n"
        "c00a3000 T _etext\n")
    (tmp_path / "dump.txt").write_text(
        "Page allocated via order 0, mask 0x280da\nPFN 4096 Block 4 type 2          Flags    U\n"
        " [<c00a1b2c>] 0xc00a1b2c\n [<c00a2010>] 0xc00a2010\n [<bf001234>] 0xbf001234\n\n")
    found = pageowner.read(tmp_path / "dump.txt", system_map=tmp_path / "System.map")
    assert found.table["stack"].to_pylist() == [
        "get_page_from_freelist+0xb2c/0x1000\npipe_write+0x10/0x1000\n0xbf001234"]
    assert "2 of 3 addresses have names" in found.meta.extra["symbols"]


def test_a_file_of_another_kernel_or_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text("ffffffff81000000 T _stext\nffffffff81001000 T _etext\n")
    (tmp_path / "dump.txt").write_text(
        "Page allocated via order 0, mask 0x0()\n 0xffffffff91168000\n\n")
    with pytest.raises(PageownerError, match="names none of 1 addresses"):
        pageowner.read(tmp_path / "dump.txt", system_map=tmp_path / "System.map")
    with pytest.raises(PageownerError, match="cannot read symbols"):
        pageowner.read(tmp_path / "dump.txt", system_map=tmp_path / "none")
    (tmp_path / "junk").write_text("junk\n")
    with pytest.raises(PageownerError) as error:
        pageowner.read(tmp_path / "dump.txt", system_map=tmp_path / "junk")
    assert "\n" not in str(error.value)


def test_the_command_says_what_got_names(tmp_path: Path, records: bytes, symbols: bytes) -> None:
    (tmp_path / "System.map").write_bytes(symbols)
    (tmp_path / "bare.txt").write_bytes(addresses(records, symbols, 0))
    status, out, error = run("report", tmp_path / "bare.txt", "--by", "subsystem", "--json",
                             "--system-map", tmp_path / "System.map")
    assert status == 0
    assert " addresses have names\n" in error
    assert " addresses have names" in json.loads(out)["symbols"]
    labels = {owner["subsystem"] for owner in json.loads(out)["owners"]}
    assert labels - {"other", "no stack", "user memory"}
