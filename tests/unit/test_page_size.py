"""Dumps of kernels whose pages are not of 4 KiB: told by the text, or by whoever asks."""

from __future__ import annotations

import json
from pathlib import Path

import asking
import pytest

import pageowner
from pageowner import PageownerError, UsageError
from pageowner.sources import source
from pageowner.sources.page_size import ASSUMED

TEXTS = Path(__file__).parents[1] / "data" / "texts"
POWERPC = TEXTS / "ppc64le-64k-pages.txt"


def record(order: int, pfn: int, block_order: int, *functions: str) -> bytes:
    frames = "".join(f" {function}+0x10/0x20\n" for function in functions)
    return (f"Page allocated via order {order}, mask 0xcc0(GFP_KERNEL), pid 1, tgid 1 (a), ts 9 ns"
            f"\nPFN {pfn:#x} type Movable Block {pfn >> block_order} type Movable Flags 0x0()\n"
            f"{frames}\n").encode()


def huge(order: int, block_order: int, *more: str) -> bytes:
    return record(order, 3 << max(order, block_order), block_order, "__alloc_pages",
                  "do_huge_pmd_anonymous_page", "handle_mm_fault", *more)


@pytest.mark.parametrize(("text", "kib", "origin"), [
    (huge(9, 9), 4, "huge pages of order 9"),
    (huge(13, 13), 64, "huge pages of order 13"),
    (huge(11, 11), 16, "huge pages of order 11"),
    (huge(5, 5), 64, "huge pages of order 5"),
    # 2 MiB of 4 KiB where pageblocks are larger
    (huge(9, 10), 4, "huge pages of order 9"),
    (huge(8, 8, "do_hash_fault"), 64, "huge pages of order 8"),
    (huge(8, 8, "__do_pgm_check"), 4, ASSUMED),
    (record(0, 0x1234567, 13, "pipe_write"), 64, "pageblocks of order 13"),
    (record(0, 0x1234567, 11, "pipe_write"), 16, "pageblocks of order 11"),
    (record(0, 0x1234567, 9, "pipe_write"), 4, ASSUMED),
    (record(0, 0x1234567, 10, "pipe_write"), 4, ASSUMED),
    (record(0, 0x1234567, 8, "pipe_write", "system_call_common"), 64,
     "functions of powerpc and pageblocks of order 8"),
    (record(0, 0x1234567, 8, "pipe_write", "pgm_check_handler"), 4, ASSUMED),
    # small numbers fit any order
    (record(0, 7, 20, "pipe_write"), 4, ASSUMED), (record(0, 300, 20, "pipe_write"), 4, ASSUMED),
    # two sizes of huge pages contradict each other
    (huge(5, 9) + huge(9, 9), 4, ASSUMED),
    (b"Page allocated via order 0, mask 0xcc0(GFP_KERNEL)\n pipe_write+0x1/0x2\n\n", 4, ASSUMED)])
def test_the_page_size_is_what_the_text_tells(
        tmp_path: Path, text: bytes, kib: int, origin: str) -> None:
    (tmp_path / "dump.txt").write_bytes(text)
    for found in (pageowner.read(tmp_path / "dump.txt"), source.count(tmp_path / "dump.txt")):
        assert found.meta.page_size == kib << 10
        assert found.meta.extra["page_size_from"] == origin


def test_where_the_text_leaves_a_doubt_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "dump.txt").write_bytes(record(0, 0x1234567, 8, "pipe_write"))
    found = pageowner.read(tmp_path / "dump.txt")
    assert found.meta.page_size == 4096
    assert "64 KiB on powerpc" in found.meta.extra["page_size_from"]
    assert "64 KiB on powerpc" in run("report", str(tmp_path / "dump.txt"))[1]


def run(*words: str, status: int = 0) -> tuple[str, str]:
    ended, out, error = asking.run(*words)
    assert ended == status, error
    return out, error


def test_sizes_addresses_and_snapshots_are_of_that_page_size(tmp_path: Path) -> None:
    dump, saved = str(POWERPC), str(tmp_path / "saved.parquet")
    out, error = run("report", dump, "--json")
    report = json.loads(out)
    assert (report["pages"], report["bytes"]) == (34, 2_228_224)
    assert (report["page_size"], report["page_size_from"]) == (65536, "huge pages of order 5")
    assert error.startswith(f"pageowner: {dump}: pages of 64 KiB: derived from huge"
                            " pages of order 5;")
    assert "\n  page 2 of the block of order 5 at 0x3d5ec0: 32 pages, 2 MiB\n" in (
        run("who", "-s", dump, "0x3d5ec1")[0])
    assert run("who", "-s", dump, "--phys", "0x3d5ec1ffff")[0].startswith(
        "pfn 0x3d5ec1 (4021953), physical address 0x3d5ec10000\n")
    run("save", saved, dump)
    assert json.loads(run("report", saved, "--json")[0])["bytes"] == 2_228_224
    assert run("diff", dump, saved)[0].endswith("no owner has more or fewer pages, by stack\n")


def test_a_page_size_can_be_given_and_is_kept(tmp_path: Path) -> None:
    dump, saved = str(POWERPC), str(tmp_path / "saved.parquet")
    out, error = run("report", dump, "--page-size", "16KiB", "--json")
    assert (json.loads(out)["bytes"], json.loads(out)["page_size_from"]) == (34 << 14, "given")
    assert not error
    run("save", saved, dump, "--page-size", "4K")
    assert pageowner.read(saved).meta.page_size == 4096
    assert pageowner.read(saved, page_size=1 << 16).meta.page_size == 1 << 16
    assert pageowner.read(dump, page_size=1 << 14).meta.page_size == 1 << 14
    out, error = run("diff", dump, saved, status=1)
    assert "pages of 64 KiB cannot be compared with pages of 4 KiB" in error
    run("diff", dump, saved, "--page-size", "64K")


@pytest.mark.parametrize("size", ["0", "5000", "2MiB", "2K", "x"])
def test_what_is_no_page_size_is_refused_in_one_line(size: str) -> None:
    _, error = run("report", str(POWERPC), "--page-size", size, status=2)
    assert error.count("\n") <= 4
    assert "size" in error


def test_a_capture_knows_its_page_size() -> None:
    from pageowner.sources import page_size

    meta = pageowner.Metadata(kind="tracker", source="x", page_size=4096)
    with page_size.using(4096):
        page_size.apply(meta)
    with page_size.using(65536), pytest.raises(PageownerError, match="as its kernel reported"):
        page_size.apply(meta)
    page_size.apply(meta)
    with pytest.raises(UsageError, match="a power of two from 4 KiB"):
        page_size.check(4095)
