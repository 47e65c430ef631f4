"""Addresses must get the names, offsets and sizes that the kernel prints."""

from __future__ import annotations

import lzma
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import kallsyms, symbol_text

FRAME = re.compile(r"^ ((\S+)\+0x([0-9a-f]+)/0x[0-9a-f]+)$", re.MULTILINE)

SMALL = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 T __do_sys_vfork
ffffffff81000100 T __x64_sys_vfork
ffffffff81000140 t helper
ffffffff81000180 T _etext
ffffffff82000000 T _sinittext
ffffffff82000010 t start_kernel
ffffffff82000080 T _einittext
ffffffffc0000000 t f_open\t[foo]
ffffffffc0000000 t f_alias\t[foo]
ffffffffc0000040 t f_close\t[foo]
ffffffffc0010000 t b_open\t[bar]
ffffffffc0011000 d b_data\t[bar]
ffffffffc0020000 t bpf_prog_6deef7357e7b4530_count\t[bpf]
"""


def test_every_frame_of_a_real_dump_comes_back(data: Path) -> None:
    """Names, offsets and sizes that 6.12 printed, against its own symbols."""
    with lzma.open(data / "6.12-fragmented/kallsyms.txt.xz") as file:
        text = file.read()
    symbols = kallsyms.parse(text)
    addresses: dict[str, list[int]] = {}
    for line in text.decode().splitlines():
        address, _, name = line.split("\t")[0].split(" ")
        addresses.setdefault(name, []).append(int(address, 16))
    with lzma.open(data / "6.12-fragmented/show_stacks.txt.xz", "rt") as file:
        frames = set(FRAME.findall(file.read()))
    assert len(frames) > 500
    for frame, name, offset in frames:
        found = symbols.resolve([start + int(offset, 16) for start in addresses[name]])
        assert frame in found


@pytest.mark.parametrize(("address", "frame"), [
    # of aliases the first
    (0xffffffff81000105, "__do_sys_vfork+0x5/0x40"),
    (0xffffffff81000000, "_stext+0x0/0x100"),
    (0xffffffffc0000001, "f_open+0x1/0x40 [foo]"),
    # code ends with its section
    (0xffffffff8100017f, "helper+0x3f/0x40"),
    (0xffffffff81000180, "0xffffffff81000180"),
    (0xffffffff81800000, "0xffffffff81800000"),
    (0xffffffff8200007f, "start_kernel+0x6f/0x70"),
    (0xffffffff82000080, "0xffffffff82000080"),
    (0xffffffff80ffffff, "0xffffffff80ffffff"),
    # modules and BPF programs
    (0xffffffffc0000050, "f_close+0x10/0xfc0 [foo]"),
    (0xffffffffc0005000, "0xffffffffc0005000"),
    (0xffffffffc0010010, "b_open+0x10/0x1000 [bar]"),
    (0xffffffffc0011010, "b_data+0x10/0x1000 [bar]"),
    (0xffffffffc0020004, "bpf_prog_6deef7357e7b4530_count+0x4/0x1000"),
])
def test_an_address_is_named_as_the_kernel_does(address: int, frame: str) -> None:
    assert kallsyms.parse(SMALL).resolve([address]) == [frame]


def test_stacks_stop_at_their_zero() -> None:
    symbols = kallsyms.parse(SMALL)
    rows = np.array([[0xffffffff81000105, 0xffffffff81000141, 0],
                     [0, 0, 0],
                     [0xffffffff81000141] * 3], np.uint64)
    assert symbols.stacks(rows) == [
        "__do_sys_vfork+0x5/0x40\nhelper+0x1/0x40", "",
        "helper+0x1/0x40\nhelper+0x1/0x40\nhelper+0x1/0x40"]
    assert symbols.stacks(rows, skip=1)[0] == "helper+0x1/0x40"


def test_addresses_of_names() -> None:
    symbols = kallsyms.parse(SMALL)
    assert symbols.address_of("helper") == 0xffffffff81000140
    assert symbols.address_of("help") is None
    assert symbols.address_of("f_open") is None
    assert symbols.address_of("no_such") is None


def test_hidden_addresses_are_an_error_that_says_what_to_do() -> None:
    hidden = re.sub(rb"^[0-9a-f]{16}", b"0" * 16, SMALL, flags=re.MULTILINE)
    with pytest.raises(PageownerError, match=r"hidden; run as root.*CAP_SYSLOG.*restrict=1"):
        kallsyms.parse(hidden)


@pytest.mark.parametrize("text", [b"", b"\n", b"hello world\n", b"zzzzzzzzzzzzzzzz T f\n",
                                  SMALL + b"xfffffff81000000 T f\n", SMALL + b"ff\n"])
def test_what_is_no_list_of_symbols_is_refused(text: bytes) -> None:
    with pytest.raises(PageownerError, match=r"not a (list of )?kernel symbol"):
        kallsyms.parse(text)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PageownerError, match="cannot read symbols from"):
        kallsyms.load(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="symbols are hidden from all but root")
def test_the_running_kernel_is_read_quickly_and_rightly() -> None:
    with open(kallsyms.KALLSYMS, "rb") as file:
        text = file.read()
    begin = time.process_time()
    symbols = kallsyms.parse(text)
    assert time.process_time() - begin < 0.3 * max(1, len(symbols) / 200_000)
    own = [line.split(b" ") for line in text.splitlines() if b"\t" not in line]
    first: dict[int, str] = {}
    for address, _, name in own:
        first.setdefault(int(address, 16), name.decode())
    rng = np.random.default_rng(7)
    text_symbols = [s for s in own if s[1] in b"tT"]
    for number in rng.integers(0, len(text_symbols), 300).tolist():
        start = int(text_symbols[number][0], 16)
        if first[start] not in ("_etext", "_einittext"):
            assert symbols.resolve([start])[0].startswith(f"{first[start]}+0x0/0x")


def test_a_few_symbols_are_found_without_taking_the_text_apart() -> None:
    lines = symbol_text.Lines(SMALL)
    found = lines.named("helper", "b_open", "b_data", "open", "none", "_text")
    assert {name: (line.address, line.kind) for name, line in found.items()} == {
        "helper": (0xFFFFFFFF81000140, "t"), "_text": (0xFFFFFFFF81000000, "T"),
        "b_open": (0xFFFFFFFFC0010000, "t"), "b_data": (0xFFFFFFFFC0011000, "d")}
    assert [line.name for line in lines.starting("f_", "bpf_prog_")] == [
        "f_open", "f_alias", "f_close", "bpf_prog_6deef7357e7b4530_count"]
    last = next(lines.starting("bpf_prog_"))
    assert (last.address, last.following) == (0xFFFFFFFFC0020000, 0)
    assert next(lines.starting("f_close")).following == 0xFFFFFFFFC0010000
    assert lines.end_of(found["_text"]) == 0xFFFFFFFF81000100
    assert lines.end_of(last) == 0
    assert not list(symbol_text.Lines(b"").starting("a"))


@pytest.mark.skipif(os.geteuid() != 0, reason="symbols are hidden from all but root")
def test_functions_of_the_running_kernel_end_where_the_next_one_begins() -> None:
    lines = symbol_text.Lines.read()
    own = [line for line in lines.starting("mem", "alloc_", "do_s", "__alloc") if line.kind in "tT"]
    symbols = kallsyms.load()
    starts = np.unique(np.array([int(row.split()[0], 16) for row in Path(
        kallsyms.KALLSYMS).read_text().splitlines() if row.split()[1] in "tT"], np.uint64))
    for number in np.random.default_rng(7).integers(0, len(own), 100).tolist():
        line = own[number]
        if symbols.address_of(line.name) == line.address:
            after = starts[np.searchsorted(starts, np.uint64(line.address), "right")]
            assert lines.end_of(line) == int(after)
