"""gfp names must be those that the kernel of the dump prints."""

from __future__ import annotations

import lzma
import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import gfp

if TYPE_CHECKING:
    from pathlib import Path

HEADER = re.compile(
    r"^Page allocated via order \d+, mask 0x([0-9a-f]+)\(([^)]*)\).*\nPFN \S+ type (\w+) Block",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def table_612(data: Path) -> gfp.GfpFlags:
    return gfp.from_format((data / "6.12-fragmented/mm_page_alloc.format").read_text())


def printed(data: Path, kernel: str) -> set[tuple[int, str, str]]:
    """(mask, names, migratetype) as the kernel printed them in its dump."""
    with lzma.open(data / kernel / "page_owner.txt.xz", "rt", errors="replace") as file:
        text = file.read()
    return {(int(mask, 16), names, kind) for mask, names, kind in set(HEADER.findall(text))}


@pytest.mark.parametrize("kernel", ["6.12-fragmented", "6.1-sample"])
def test_every_mask_of_a_dump_decodes_to_what_the_kernel_printed(
    kernel: str, data: Path, table_612: gfp.GfpFlags
) -> None:
    table = table_612 if kernel == "6.12-fragmented" else gfp.for_release("6.1.192")
    seen = printed(data, kernel)
    assert len(seen) > 5
    for mask, names, kind in seen:
        assert table.decode(mask) == names
        assert table.mask(names) == mask
        assert gfp.MIGRATETYPES[table.migratetype(np.array([mask], np.uint32))[0]] == kind


def test_the_layout_by_version_is_the_table_of_the_format_file(table_612: gfp.GfpFlags) -> None:
    by_version = gfp.for_release("6.12.117")
    assert by_version.bits == table_612.bits
    rng = np.random.default_rng(1)
    for mask in rng.integers(0, 1 << 24, 20_000).tolist():
        mask &= ~0x200  # bit 9 has no name in 6.12
        assert by_version.decode(mask) == table_612.decode(mask)


def test_bits_that_the_format_names_are_those_of_the_enum(
        data: Path, table_612: gfp.GfpFlags) -> None:
    bits = gfp._BITS[6, 3].split()
    text = (data / "6.12-fragmented/mm_page_alloc.format").read_text()
    text = re.sub(r"<< \((\d+)\)", lambda bit: f"<< (___GFP_{bits[int(bit[1])]}_BIT)", text)
    assert "___GFP_DIRECT_RECLAIM_BIT" in text
    assert gfp.from_format(text).table == table_612.table
    kasan = text.replace('"GFP_DMA"}', '"GFP_DMA"}, {( unsigned long)(( gfp_t)((((1UL))) <<'
                         ' (___GFP_SKIP_KASAN_BIT))), "__GFP_SKIP_KASAN"}')
    assert gfp.from_format(kasan).bits["__GFP_SKIP_KASAN"] == 1 << 25


def test_a_format_with_unknown_names_leaves_the_version(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '__print_flags(REC->gfp_flags, "|", {(1UL << ___GFP_NEW_BIT), "__GFP_NEW"})'
    with pytest.raises(PageownerError, match="cannot read the gfp mask"):
        gfp.from_format(text)
    (tmp_path / "format").write_text(text)
    monkeypatch.setattr(gfp, "FORMAT_FILES", (str(tmp_path / "format"),))
    assert gfp.running() == gfp.for_release(os.uname().release)


@pytest.mark.skipif(not any(os.access(p, os.R_OK) for p in gfp.FORMAT_FILES),
                    reason="tracefs is not readable here")
def test_the_running_kernel_names_its_bits() -> None:
    table = gfp.running()
    assert table.origin in gfp.FORMAT_FILES
    assert table.decode(table.mask("GFP_KERNEL")) == "GFP_KERNEL"
    assert len(table.bits) > 20


def test_unknown_bits_are_printed_in_hex(table_612: gfp.GfpFlags) -> None:
    assert table_612.decode(0) == ""
    assert table_612.decode(0x4000_0000) == "0x40000000"
    assert table_612.decode(0xcc0 | 0x4000_0000) == "GFP_KERNEL|0x40000000"


def test_names_split_into_single_flags(table_612: gfp.GfpFlags) -> None:
    assert table_612.atomic("GFP_NOFS") == {
        "__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM", "__GFP_IO"}
    assert table_612.atomic("kernel|zero") == table_612.atomic("GFP_KERNEL|__GFP_ZERO")
    assert table_612.atomic("dma32") == {"__GFP_DMA32"}
    assert table_612.atomic("") == frozenset()
    assert table_612.atomic("0xcc0") == table_612.atomic("GFP_KERNEL")


def test_a_misspelled_flag_is_refused_with_the_known_ones(table_612: gfp.GfpFlags) -> None:
    with pytest.raises(PageownerError, match=r"'KERNAL' is unknown; .*GFP_KERNEL"):
        table_612.mask("KERNAL")


@pytest.mark.parametrize(
    ("release", "mask", "names"),
    [
        ("3.19.8", 0xd0, "GFP_KERNEL"),
        ("3.19.8", 0x200da, "GFP_HIGHUSER_MOVABLE"),
        ("3.19.8", 0x20, "GFP_ATOMIC"),
        ("4.5", 0x24000c0, "GFP_KERNEL"),
        ("4.5", 0x24200ca, "GFP_HIGHUSER_MOVABLE"),
        ("4.5", 0x2080020, "GFP_ATOMIC"),
        ("4.4", 0x500000, "__GFP_NOACCOUNT|__GFP_DIRECT_RECLAIM"),
        ("4.7", 0x352ca, "GFP_TRANSHUGE"),
        ("4.9", 0x25000c0, "GFP_KERNEL_ACCOUNT"),
        ("4.9", 0x4742ca, "GFP_TRANSHUGE|__GFP_THISNODE"),
        ("4.12", 0x14002d0, "GFP_TEMPORARY|__GFP_NOWARN"),
        ("4.17", 0x14000c0, "GFP_KERNEL"),
        ("4.18", 0x6000c0, "GFP_KERNEL"),
        ("4.19", 0x480020, "GFP_ATOMIC"),
        ("5.10", 0x100cca, "GFP_HIGHUSER_MOVABLE"),
        ("5.15", 0x1100cca, "GFP_HIGHUSER_MOVABLE"),
        ("5.15", 0x1000cc0, "GFP_KERNEL|__GFP_SKIP_KASAN_POISON"),
        ("5.16", 0x13c24ca, "GFP_TRANSHUGE|__GFP_THISNODE"),
        ("5.18", 0x100cca, "GFP_HIGHUSER_MOVABLE"),
        ("6.1", 0xa20, "GFP_ATOMIC"),
        ("6.7", 0x800, "GFP_NOWAIT"),
        ("6.8", 0x2800, "GFP_NOWAIT"),
        ("6.12", 0x820, "GFP_ATOMIC"),
        ("6.18.44-fc-v595", 0xcc0, "GFP_KERNEL"),
        ("no version", 0xcc0, "GFP_KERNEL"),
    ],
)
def test_old_kernels_have_their_own_bits(release: str, mask: int, names: str) -> None:
    assert gfp.for_release(release).decode(mask) == names


@pytest.mark.parametrize(("release", "compound"), [
    ("4.17", 0x4000), ("5.0", 0x4000), ("5.1", 0x40000), ("5.14", 0x40000)])
def test_compound_pages_are_told_by_the_bit_of_their_kernel(release: str, compound: int) -> None:
    assert gfp.for_release(release).bits["__GFP_COMP"] == compound


def test_migratetype_follows_the_mobility_bits() -> None:
    masks = np.array([0xcc0, 0x8, 0x10, 0x18, 0x1100ca], np.uint32)
    kinds = gfp.for_release("6.12").migratetype(masks)
    assert [gfp.MIGRATETYPES[k] for k in kinds] == [
        "Unmovable", "Movable", "Reclaimable", "HighAtomic", "Movable"]
    old = gfp.for_release("3.19").migratetype(np.array([0x10, 0x80000], np.uint32))
    assert [gfp.MIGRATETYPES[k] for k in old] == ["Unmovable", "Reclaimable"]


def test_columns_decode_each_mask_once(table_612: gfp.GfpFlags) -> None:
    index, names = table_612.decode_all(np.array([0xcc0, 0, 0xcc0], np.uint32))
    assert [names[i] for i in index] == ["GFP_KERNEL", "", "GFP_KERNEL"]
    assert len(names) == 2


@pytest.mark.parametrize("text", ["", "print fmt: \"\"", "__print_flags(REC->gfp_flags, \"|\", )"])
def test_a_format_without_a_table_is_an_error(text: str) -> None:
    with pytest.raises(PageownerError, match="no table of gfp flags"):
        gfp.from_format(text, "/x")


def test_a_format_runs_no_code() -> None:
    text = '__print_flags(REC->gfp_flags, "|", {__import__(0), "GFP_KERNEL"})'
    with pytest.raises(PageownerError, match="cannot read the gfp mask"):
        gfp.from_format(text, "/x")


@pytest.mark.parametrize(("release", "compound", "mask"), [
    ("5.15.0-91-generic", 0, 0x8),
    ("6.1.0-56-amd64", 0, 0x8),
    ("6.12.77-amd64", 0x40000, 0x8),
    ("6.12.78", 0x40000, 0),
    ("6.12.117+deb12-amd64", 0x40000, 0),
    ("6.13.12", 0x40000, 0x8),
    ("6.14", 0x40000, 0),
    ("6.18.0-rc1", 0x40000, 0),
])
def test_masks_of_contiguous_ranges_are_those_of_the_kernel(
        release: str, compound: int, mask: int) -> None:
    names = gfp.for_release(release)
    assert gfp.contiguous(release, names) == gfp.Contiguous(compound, mask)
