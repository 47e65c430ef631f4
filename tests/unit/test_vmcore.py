"""Vmcores: which files are taken for one, what is said of those that cannot be read, and how what
is in them is found. A real one is read by the job ``crash`` in guests (tests/vm)."""

from __future__ import annotations

import io
import random
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from refusing import refused

import pageowner
from pageowner.errors import PageownerError
from pageowner.vmcore import bpf_maps, info, kernel_log, symbols
from pageowner.vmcore.notes import find_note, has_note

TEXT = """OSRELEASE=6.12.1
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffffb241f500
NUMBER(phys_base)=-1
NUMBER(SECTION_SIZE_BITS)=27
NUMBER(VMALLOC)=0x10
CRASHTIME=1763900000
SYMBOL(swapper_pg_dir)=ffffffffb2410000
"""


def note(text: str = TEXT) -> bytes:
    raw = text.encode()
    return struct.pack("<III", 11, len(raw), 0) + b"VMCOREINFO\0\0" + raw + bytes(-len(raw) % 4)


def elf(machine: int = 62, bits: int = 2, order: int = 1, notes: bytes = b"",
        memory: bytes = bytes(8192)) -> bytes:
    """An ELF core file of memory from address 0 on."""
    end = "<" if order == 1 else ">"
    ident = b"\x7fELF" + bytes((bits, order, 1)) + bytes(9)
    head = struct.pack(end + "16sHHIQQQIHHHHHH", ident, 4, machine, 1, 0, 64, 0, 0, 64, 56, 2,
                       0, 0, 0)
    at = 64 + 2 * 56
    segments = struct.pack(end + "IIQQQQQQ", 4, 0, at, 0, 0, len(notes), len(notes), 0)
    segments += struct.pack(end + "IIQQQQQQ", 1, 7, at + len(notes), 0, 0, len(memory),
                            len(memory), 0)
    return head + segments + notes + memory


@pytest.mark.parametrize(("content", "words"), [
    (elf(machine=22, order=2), "s390"),
    (elf(machine=3, bits=1), "i386"),
    (elf(machine=40, bits=1), "arm"),
    (elf(machine=8), "ELF machine 8"),
    (elf(), "no VMCOREINFO"),
    (elf()[:100], "vmcore"),
    (elf()[:-1], "cut short, at byte 8,367 of 8,368; copy it again"),
    (elf(notes=note()), "older than Linux 6.0"),
    (elf(notes=note("OSRELEASE=6.12.1\n")), "cannot be read as a vmcore"),
    (b"KDUMP   " + bytes(4096), "cannot be read as a vmcore"),
    (b"KDUMP   ", "cannot be read as a vmcore"),
    (b"DISKDUMP" + bytes(4096), "diskdump"),
    (b"makedumpfile\0\0\0\0" + bytes(4096), "cannot be read as a vmcore"),
], ids=lambda value: value if isinstance(value, str) else str(len(value)))
def test_what_is_no_vmcore_that_can_be_read_is_said_in_one_line(
        tmp_path: Path, content: bytes, words: str) -> None:
    pytest.importorskip("drgn")
    path = tmp_path / "vmcore"
    path.write_bytes(content)
    assert words in refused(path)


def test_without_drgn_it_is_said_what_to_install(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drgn", None)
    path = tmp_path / "vmcore"
    path.write_bytes(elf(notes=note()))
    assert "pip install 'pageowner[crash]'" in refused(path)


def test_a_compressed_vmcore_is_to_be_decompressed(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "vmcore.gz"
    path.write_bytes(gzip.compress(elf(notes=note())))
    assert "decompress it" in refused(path)


def test_explain_says_the_same_of_a_file_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    path = tmp_path / "vmcore"
    path.write_bytes(elf())
    with pytest.raises(PageownerError, match="no VMCOREINFO"):
        pageowner.explain(path)


def test_mutated_files_end_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    choose = random.Random(1)
    path = tmp_path / "vmcore"
    whole = elf(notes=note())
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(choose.choice((1, 2, 8))):
            content[choose.randrange(20, len(whole) - 8192)] = choose.choice(
                (0, 255, choose.randrange(256)))
        path.write_bytes(content[:choose.choice((len(content), choose.randrange(len(content))))]
                         .ljust(64, b"\0"))
        refused(path)


def test_the_kernels_own_note_is_found_where_the_file_has_none() -> None:
    memory = bytes(5000) + b"VMCOREINFO\0\0OSRELEASE=none" + bytes(50) + note() + bytes(100)
    without = io.BytesIO(elf(memory=memory))
    assert not has_note(without)
    assert find_note(without) == TEXT
    assert has_note(io.BytesIO(elf(notes=note())))
    assert find_note(io.BytesIO(elf())) is None
    across = bytes((1 << 22) - 64 - 112 - 20) + note()
    assert find_note(io.BytesIO(elf(memory=across))) == TEXT


def test_vmcoreinfo_is_read_line_by_line() -> None:
    found = info.parse(TEXT + "SYMBOL(x)=zz\nNUMBER(y)=\nno line\nSYMBOL(a b)=12\n")
    assert found.release == "6.12.1"
    assert found.page_size == 4096
    assert found.crash_time == 1763900000
    assert found.symbols == {"init_uts_ns": 0xffffffffb241f500,
                             "swapper_pg_dir": 0xffffffffb2410000}
    assert found.numbers == {"phys_base": -1, "SECTION_SIZE_BITS": 27, "VMALLOC": 16}
    assert info.parse("PAGESIZE=4095\n").page_size == 0


class Bytes:
    """Memory of a kernel, made of pieces by address."""

    def __init__(self, pieces: dict[int, bytes], types: Any = None, places: Any = None) -> None:
        self.pieces, self.types = pieces, types
        self.info = SimpleNamespace(symbols=places or {}, numbers={})

    def fill(self, address: int, size: int) -> tuple[np.ndarray, bool]:
        for start, piece in self.pieces.items():
            if start <= address < start + len(piece):
                part = piece[address - start:address - start + size]
                return np.frombuffer(part.ljust(size, b"\0"), np.uint8).copy(), len(part) == size
        return np.zeros(size, np.uint8), False

    def read(self, address: int, size: int) -> bytes:
        found, good = self.fill(address, size)
        if not good:
            raise PageownerError("not there")
        return found.tobytes()

    def symbol(self, name: str) -> int | None:
        return self.info.symbols.get(name)

    def copy(self, addresses: np.ndarray, size: int, out: Any = None) -> tuple[
            np.ndarray, np.ndarray]:
        found = [self.fill(address, size) for address in addresses.tolist()]
        return (np.array([part for part, _ in found]).reshape(-1, size),
                np.array([good for _, good in found], bool))


def kallsyms(names: list[bytes], offsets: list[int], base: int) -> Bytes:
    """A table with each letter as its own piece, and 128 as "ab"."""
    pieces = [bytes((byte,)) for byte in range(128)] + [b"ab"] * 128
    table, index = b"", []
    for piece in pieces:
        index.append(len(table))
        table += piece + b"\0"
    text = b""
    for name in names:
        packed = name.replace(b"ab", b"\x80")
        length = len(packed)
        text += bytes((length,)) if length < 128 else bytes((length & 127 | 128, length >> 7))
        text += packed
    return Bytes({0x1000: struct.pack("<I", len(names)), 0x2000: text, 0x10000: table + bytes(64),
                  0x20000: struct.pack("<256H", *index), 0x30000: struct.pack(
                      f"<{len(offsets)}i", *offsets), 0x40000: struct.pack("<Q", base)},
                 places={"kallsyms_num_syms": 0x1000, "kallsyms_names": 0x2000,
                         "kallsyms_token_table": 0x10000, "kallsyms_token_index": 0x20000,
                         "kallsyms_offsets": 0x30000, "kallsyms_relative_base": 0x40000})


def test_symbols_are_unpacked() -> None:
    long = b"t" + b"x" * 200
    memory: Any = kallsyms([b"Tabba", b"dcab", long], [0, 16, 256], 0xffffffff81000000)
    found = symbols.kernel_symbols(memory)
    assert found.text.splitlines() == [
        b"ffffffff81000000 T abba", b"ffffffff81000010 d cab",
        b"ffffffff81000100 t " + long[1:]]
    assert found.address_of("cab") == 0xffffffff81000010
    assert found.address_of("Tabba") is None


def test_symbols_of_cpus_stand_for_themselves_where_they_are_absolute() -> None:
    memory: Any = kallsyms([b"Aone", b"Ttwo", b"Tthree"], [32, -1, -257], 0xffffffff81000000)
    assert [line[:16] for line in symbols.kernel_symbols(memory).text.splitlines()] == [
        b"0000000000000020", b"ffffffff81000000", b"ffffffff81000100"]


def test_offsets_without_a_base_are_from_their_own_places() -> None:
    memory: Any = kallsyms([b"Tone", b"Ttwo"], [0x100, -0x24], 0)
    del memory.info.symbols["kallsyms_relative_base"]
    found = symbols.kernel_symbols(memory)
    assert (found.address_of("one"), found.address_of("two")) == (0x30100, 0x2ffe0)


def test_a_table_without_an_end_is_damaged() -> None:
    memory: Any = kallsyms([b"Tabba"], [0], 0)
    memory.pieces[0x1000] = struct.pack("<I", 2)
    memory.pieces[0x30000] = struct.pack("<2i", 0, 1)
    with pytest.raises(PageownerError, match="damaged"):
        symbols.kernel_symbols(memory)


@pytest.mark.parametrize(("begin", "end", "length", "text"), [
    (0, 16, 5, "hello"),
    (0, 16, 500, "hello\0\0\0"),  # what it says of its length is more than there is
    (48, 64, 5, "hello"),  # ends where the ring does
    (56, 64 + 16, 5, "hello"),  # begins anew
    (2**64 - 8, 16, 5, "hello"),  # at the first end of the ring, where positions begin anew too
    (2**64 - 16, 0, 5, "hello"),
    (1, 1, 5, ""),
    (16, 8, 5, None),
    (0, 1000, 5, None),
])
def test_a_line_of_the_log_is_found_in_its_ring(
        begin: int, end: int, length: int, text: str | None) -> None:
    ring = bytearray(64)
    at = 0 if begin % 64 == 56 else begin % 64 & ~1
    ring[at:at + 16] = struct.pack("<Q", 7) + b"hello\0\0\0"
    assert kernel_log._text(bytes(ring), 6, begin, end, length, 7) == text
    if text:
        assert kernel_log._text(bytes(ring), 6, begin, end, length, 8) is None


def test_a_hash_map_is_read_bucket_by_bucket() -> None:
    places = {("bpf_htab", "n_buckets"): (0, 4), ("bpf_htab", "buckets"): (8, 8),
              ("bucket", "head"): (0, 8), ("htab_elem", "key"): (16, 0)}

    def member(name: str, path: str) -> Any:
        from pageowner.kernel_memory.access import Member

        return Member(*places[name, path]) if (name, path) in places else None

    types = SimpleNamespace(member=member, size=lambda name: 16)

    def element(after: int, key: bytes, value: bytes) -> bytes:
        return struct.pack("<QQ", after, 0) + key.ljust(8, b"\0") + value

    memory: Any = Bytes({
        0x100: struct.pack("<IIQ", 2, 0, 0x200), 0x200: struct.pack("<QQQQ", 0x300, 0, 3, 0),
        0x300: element(0x400, b"abcd", b"1"), 0x400: element(1, b"efgh", b"2")}, types)
    of = bpf_maps.BpfMap(0x100, 4, 1, 10)
    assert sorted(bpf_maps.entries(memory, of)) == [b"abcd1", b"efgh2"]
    memory.pieces[0x400] = element(0x300, b"efgh", b"2")  # a circle
    with pytest.raises(PageownerError, match="damaged"):
        bpf_maps.entries(memory, of)
