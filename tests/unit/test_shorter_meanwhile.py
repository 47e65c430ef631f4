"""A large file that becomes shorter while it is read is read up to its new end."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from pageowner.sources import allocinfo, page_owner, page_owner_sorted, page_owner_stack_lists
from pageowner.sources.opening import open_source

STACK = b" f+0x1/0x2\n g+0x1/0x2\nnr_base_pages: 3\n\n"
GROUP = (b"1 times, 1 pages, allocated by SLAB :\nPage allocated via order 0, mask 0x0(), pid 1,"
         b" tgid 1 (a), ts 5 ns\n f+0x1/0x2\n\n")
LINE = b"        4096        1 mm/a.c:1 func:f\n"


@pytest.mark.parametrize(("reader", "text"), [
    (page_owner_stack_lists, STACK), (page_owner_sorted, GROUP), (allocinfo, LINE)])
def test_what_is_left_is_read(reader: ModuleType, text: bytes, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_bytes(text * 20 + text[:len(text) * 3 // 4])
    with open_source(path) as opened:
        alone = reader.read(opened)
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 8)
    with open_source(path) as opened:
        assert opened.size is not None
        opened.size += 4 * len(text)
        shared = reader.read(opened)
    assert shared.meta == alone.meta
    assert shared.table.to_pylist() == alone.table.to_pylist()
