"""What a vmlinux tells of a vmcore's kernel: a small one, made here and read by drgn as any."""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_vmcore import TEXT, elf, note

import pageowner
from pageowner.errors import PageownerError
from pageowner.kernel.frames import frames
from pageowner.vmcore import debug_info
from pageowner.vmcore.debug_info import DebugInfo, SymbolsWithLines, installed

SOURCE = """\
struct inner { int a; union { long b; unsigned char c; }; };
struct outer { char x; unsigned flag : 3; unsigned more : 5; struct inner in; int many[4]; };
typedef struct outer outer_t;
struct holder { outer_t of; void *nothing; };
enum kind { FIRST, SECOND = 7, THIRD = -2 };
struct holder held; enum kind kinds;
__asm__(".text\\n.globl labelled\\nlabelled:\\nnop\\n\\"$x\\":\\nnop\\n");
static inline __attribute__((always_inline)) long inlined(long v)
{ __asm__ volatile("nop" : "+r"(v)); return v * 3; }
__attribute__((noinline)) long callee(long v) { __asm__ volatile("" : "+r"(v)); return v + 1; }
__attribute__((noinline)) long caller(long v) {
\tv = callee(v);
\treturn inlined(v) + callee(v);
}
long _start(long v) { held.of.x = kinds; return caller(v); }
"""
BUILD_ID, MOVED, LINKED = "00112233445566778899aabbccddeeff00112233", 0x3000000, 0xffffffff81000000


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None or platform.machine() != "x86_64":
        pytest.skip("there is no gcc for x86-64 to make a vmlinux with")
    folder = tmp_path_factory.mktemp("made")
    (folder / "made.c").write_text(SOURCE)
    subprocess.run(
        ["gcc", "-g", "-O2", "-ffreestanding", "-nostdlib", "-static", "-mcmodel=kernel",
         "-fno-pic", "-no-pie", f"-Wl,-Ttext={LINKED:#x}", f"-Wl,--build-id=0x{BUILD_ID}",
         "-o", "vmlinux", "made.c"], cwd=folder, check=True)
    return folder / "vmlinux"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("core") / "vmcore"
    path.write_bytes(elf(notes=note(f"{TEXT}BUILD-ID={BUILD_ID}\nKERNELOFFSET={MOVED:x}\n")))
    return path


@pytest.fixture(scope="module")
def debug(vmlinux: Path, core: Path) -> DebugInfo:
    drgn = pytest.importorskip("drgn")
    program = drgn.Program()
    program.set_core_dump(core)
    return DebugInfo(program, str(vmlinux))


@pytest.fixture(scope="module")
def places(debug: DebugInfo) -> dict[bytes, int]:
    addresses, names = debug.symbols()
    assert np.all(np.diff(addresses.astype(np.int64)) >= 0)
    return dict(zip(names, addresses.tolist(), strict=True))


def test_symbols_are_where_the_kernel_was_moved_to(places: dict[bytes, int]) -> None:
    assert LINKED + MOVED <= places[b"tcallee"] < places[b"tcaller"] < places[b"dheld"]
    assert b"tlabelled" in places  # as entry code is, which is no function by its type
    assert not any(b"made.c" in name for name in places)


@pytest.mark.parametrize(("struct", "path", "place"), [
    ("outer", "x", (0, 1, 0, 0)), ("outer", "flag", (1, 4, 8, 3)), ("outer", "more", (1, 4, 11, 5)),
    ("outer", "in.a", (8, 4, 0, 0)), ("outer", "in.c", (16, 1, 0, 0)),
    ("outer", "many", (24, 16, 0, 0)), ("holder", "of.more", (1, 4, 11, 5)),
    ("holder", "nothing", (40, 8, 0, 0)), ("outer", "in.none", None), ("outer", "x.none", None),
    ("none", "x", None)])
def test_members_are_as_btf_has_them(debug: DebugInfo, struct: str, path: str, place: Any) -> None:
    assert debug.types().member(struct, path) == place


def test_sizes_and_enums(debug: DebugInfo) -> None:
    types = debug.types()
    assert [types.size(name) for name in ("outer", "holder", "none")] == [40, 48, None]
    assert [types.enumerator("kind", name) for name in ("SECOND", "THIRD", "NONE")] == [7, -2, None]
    assert types.enumerator("none", "FIRST") is None


def test_frames_have_the_line_of_their_call(debug: DebugInfo, places: dict[bytes, int]) -> None:
    begin, end = places[b"tcaller"], places[b"t_start"]
    lines = {debug.lines_of(address).replace(f"{Path(__file__).parent}/", "")
             for address in range(begin + 1, end)}
    numbers = [[place.rpartition(":")[2] for place in line.split()] for line in lines if line]
    assert ["12"] in numbers  # the call of callee()
    assert ["9", "13"] in numbers  # what was put in line, and where
    assert debug.lines_of(0x1234) == ""


def test_lines_stand_between_a_frame_and_its_module() -> None:
    text = b"ffffffff81000000 T f\nffffffff81000100 T _etext\nffffffffc0000000 t g\t[m]\n"
    lines = {0xffffffff81000010: "mm/a.c:3 mm/b.c:4", 0xffffffffc0000008: "d/g.c:9",
             0xffffffff81000000: "mm/before.c:1"}
    symbols = SymbolsWithLines(text, "symbols", lambda address: lines.get(address, ""))
    rows = np.array([[0xffffffff81000010, 0xffffffffc0000008, 0],
                     [0xffffffff81000020, 0xffffffff81000000, 0]], np.uint64)
    first, second = symbols.stacks(rows)
    assert first.split("\n") == ["f+0x10/0x100 (mm/a.c:3 mm/b.c:4)", "g+0x8/0x1000 (d/g.c:9) [m]"]
    assert second == "f+0x20/0x100\nf+0x0/0x100"  # to where no call returns
    assert [str(frame) for frame in frames(first)] == ["f", "g [m]"]


@pytest.mark.parametrize("content", [b"", b"no ELF file", None])
def test_a_file_that_is_none_is_said_in_one_line(
        core: Path, tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("drgn")
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PageownerError) as error:
        pageowner.read(core, vmlinux=path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_another_kernels_vmlinux_is_refused(vmlinux: Path, tmp_path: Path) -> None:
    pytest.importorskip("drgn")
    other = tmp_path / "vmcore"
    other.write_bytes(elf(notes=note(f"{TEXT}BUILD-ID={BUILD_ID[::-1]}\n")))
    with pytest.raises(PageownerError, match="is not the vmlinux of this kernel"):
        pageowner.read(other, vmlinux=vmlinux)


def test_a_pipe_is_not_waited_for(core: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PageownerError, match="no regular file"):
        pageowner.read(core, vmlinux=tmp_path / "pipe")


def test_damaged_information_is_said_in_one_line(vmlinux: Path, core: Path, tmp_path: Path) -> None:
    """A byte of it changed at a time: right, or told."""
    drgn = pytest.importorskip("drgn")
    whole, damaged = vmlinux.read_bytes(), tmp_path / "vmlinux"
    chance, told = random.Random(3), []
    begin = whole.index(b"\x7fELF")
    for _ in range(150):
        place = chance.randrange(begin + 0x1000, len(whole))
        damaged.write_bytes(whole[:place] + bytes([chance.randrange(256)]) + whole[place + 1:])
        program = drgn.Program()
        program.set_core_dump(core)
        try:
            debug = DebugInfo(program, str(damaged))
            debug.symbols()
            types = debug.types()
            for name in ("outer", "holder"):
                types.size(name)
                types.member(name, "of.in.c")
            types.enumerator("kind", "SECOND")
            debug.lines_of(LINKED + MOVED + 0x20)
        except PageownerError as error:
            told.append(str(error))
    assert told
    assert not any("\n" in text for text in told)


def test_a_symbol_whose_name_is_no_text_is_damage(vmlinux: Path, core: Path, tmp_path: Path,
                                                  places: dict[bytes, int]) -> None:
    drgn = pytest.importorskip("drgn")
    whole, damaged = vmlinux.read_bytes(), tmp_path / "vmlinux"
    name = max(places)[1:]
    damaged.write_bytes(whole.replace(b"\0" + name + b"\0", b"\0\xbd" + name[1:] + b"\0"))
    program = drgn.Program()
    program.set_core_dump(core)
    with pytest.raises(PageownerError, match="its debugging information is damaged"):
        DebugInfo(program, str(damaged)).symbols()


def test_names_that_the_kernel_leaves_out_are_left_out(places: dict[bytes, int]) -> None:
    assert b"t.Llocal" not in places
    assert b"t$x" not in places


def test_what_has_no_use_for_it_is_logged(
        some_records: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "vmlinux").touch()
    with caplog.at_level("WARNING", "pageowner"):
        assert pageowner.read(some_records, vmlinux=tmp_path / "vmlinux").pages
    assert "vmlinux was not used" in caplog.text


def test_what_is_installed_is_found_by_the_release(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_info, "_INSTALLED", (f"{tmp_path}/a-{{}}", f"{tmp_path}/{{}}/b"))
    (tmp_path / "6.1").mkdir()
    (tmp_path / "6.1/b").touch()
    (tmp_path / "a-6.1").mkdir()
    assert list(installed("6.1")) == [f"{tmp_path}/6.1/b"]
    for release in ("", "../6.1", "6.2"):
        assert list(installed(release)) == []
