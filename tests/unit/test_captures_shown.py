"""What is shown of captures alone: who freed a page, pages in use before tracking began."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pageowner

if TYPE_CHECKING:
    from collections.abc import Callable


    Cli = Callable[..., Any]


@pytest.mark.parametrize(("rows", "freed", "said"), [
    ([], 40, "last freed at 0.000040 s after boot, 10 µs ago, by pid 6, tid 7 (cc1)"),
    ([50], 40, "freed before that at 0.000040 s after boot, 10 µs ago, by pid 6, tid 7 (cc1)"),
    ([30], 45, "freed meanwhile at 0.000045 s after boot, 5 µs ago, by pid 6, tid 7 (cc1)"),
    ([30], 55, "freed meanwhile at 0.000055 s after boot, by pid 6, tid 7 (cc1)"),
])
def test_who_says_who_freed_the_page_last(
        capsys: pytest.CaptureFixture[str], rows: list[int], freed: int, said: str) -> None:
    from pageowner.report import page_view
    from pageowner.report.terminal import Paper
    from pageowner.tracker.read.last_free import LastFree

    snapshot = pageowner.Snapshot.from_columns(
        {"pfn": [5] * len(rows), "order": [0] * len(rows), "ts_ns": [1000 * ts for ts in rows]},
        pageowner.Metadata(kind="tracker"))
    page_view.draw(5, snapshot.table.to_pylist(), snapshot.meta, 50_000, Paper(),
              LastFree(1000 * freed, 7, 6, "cc1", "free_unref_page+0x1/0x2\nexit_mmap+0x1/0x2"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [f"  {said}", "    free_unref_page+0x1/0x2", "    exit_mmap+0x1/0x2"]
    assert rows or lines[0] == "pfn 0x5 (5): free"


def test_pages_before_tracking_are_no_owner_to_be_shown_in_full(cli: Cli, tmp_path: Path) -> None:
    stack = "alloc_pages+0x1/0x2\nunix_stream_sendmsg+0x1/0x2"
    snapshot = pageowner.Snapshot.from_columns({
        "pfn": [1, 2, 3, 4], "order": [0] * 4, "stack": [None, None, None, stack],
        "comm": [None, None, None, "dd"], "state": ["early", "early", "untracked", "owned"],
        "page_flags": [1 << 7, 1 << 7, 1 << 7, 0]}, pageowner.Metadata(kind="tracker"))
    path = tmp_path / "live.parquet"
    snapshot.save(path)
    for by in ("stack", "comm"):
        text = cli("report", path, "--full", "--top", "1", "--by", by).out.decode()
        head, nameless, owner = text.strip().split("\n\n")
        assert "16 KiB in 4 pages, 4 blocks; 2 owners by" in head
        assert nameless.startswith(
            "12 KiB (75.0 %) in 3 pages, 3 blocks have no stack: early")
        assert "--by subsystem" in nameless
        assert owner.splitlines()[0].startswith("4 KiB (25.0 %) in 1 page, 1 block")
        assert "unix_stream_sendmsg" in owner
    # whose page flags tell what it is
    assert b"\n  flags slab\n" in cli("who", "1", "-s", path).out
    # where something else is known of them it is shown
    text = cli("report", path, "--full", "--by", "subsystem").out.decode()
    assert (" (50.0 %) in 2 pages, 2 blocks, subsystem slab (early)\n"
            "  no stack: early, untracked, or lost") in text
    assert "have no stack" not in text


def test_pages_before_tracking_have_records_as_in_the_kernels_text(cli: Cli,
                                                                   tmp_path: Path) -> None:
    snapshot = pageowner.Snapshot.from_columns({
        "pfn": [16, 18, 19, 20], "order": [1, 0, 0, 0],
        "state": ["early", "early", "untracked", "owned"], "pid": [None, None, None, 7],
        "tgid": [None, None, None, 7], "comm": [None, None, None, "dd"],
        "stack": [None, None, None, "alloc_pages+0x1/0x2"], "gfp_mask": [None, None, None, 0xcc0],
        "memcg": [None, "/system.slice", None, None], "page_flags": [1 << 7, 0, 0, 0],
        "ts_ns": [None, None, None, 5]}, pageowner.Metadata(kind="tracker"))
    snapshot.save(live := tmp_path / "live.parquet")
    cli("dump", live, "-o", text := tmp_path / "page_owner.txt")
    records = text.read_text().split("\n\n")
    assert records[0] == ("Page allocated via order 1, mask 0x0\nPFN 0x10 type Unmovable Block 0 "
                          "type Unknown Flags 0x80(slab)\n register_early_stack")
    assert records[1].endswith("\n register_early_stack\nCharged to memcg /system.slice")
    assert len(records) == 4  # the last is empty: nobody is known to own page frame 19
    again = pageowner.read(text)
    assert again.table["pfn"].to_pylist() == [16, 18, 20]
    assert again.table["state"].to_pylist() == ["early", "early", "owned"]
    assert cli("dump", text).out == text.read_bytes()
    assert b"register_early" not in cli("dump", live, "--state", "owned").out


def test_a_capture_that_was_saved_is_not_called_live(
        few_saved: Path, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "capture.parquet"
    meta = pageowner.Metadata(kind="tracker", host="there", kernel="6.1",
                              taken_at="2026-11-24T10:33:00Z")
    pageowner.Snapshot(pageowner.read(few_saved).table, meta).save(path)
    for words in (["report"], ["report", "--full"]):
        first = cli(*words, path).out.decode().split(": ")[0]
        assert first == f"{path} (there, kernel 6.1, 2026-11-24T10:33:00Z)"
    # nor is this machine asked what a page of that one is
    said = cli("who", "0x7fffffff", "-s", path).out.decode()
    assert f"no owner known to {path}" in said
    assert cli("save", tmp_path / "again.parquet", path).status == 0
    assert pageowner.read(tmp_path / "again.parquet").meta.source == ""
