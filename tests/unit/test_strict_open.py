"""What lies in a folder is opened without following links, with openat2() and without."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pageowner.system import strict_open


@pytest.fixture(params=[437, 1 << 20], ids=["openat2", "without"])
def folder(request: pytest.FixtureRequest, tmp_path: Path,
           monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(strict_open, "_OPENAT2", request.param)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "in/link").symlink_to("file")
    handle = os.open(tmp_path, os.O_PATH)
    yield handle
    os.close(handle)


@pytest.mark.parametrize("path", ["in/file", "in/../in/file"])
def test_files_are_opened(folder: int, path: str) -> None:
    handle = strict_open.open_strictly(folder, path, os.O_RDONLY)
    assert os.read(handle, 9) == b"text"
    os.close(handle)


@pytest.mark.parametrize(("path", "flags", "expected"), [
    ("link", os.O_RDONLY | os.O_DIRECTORY, (errno.ELOOP, errno.ENOTDIR)),
    ("link/file", os.O_RDONLY, (errno.ELOOP, errno.ENOTDIR)),
    ("in/link", os.O_RDONLY, (errno.ELOOP,)),
    ("in/file", os.O_PATH | os.O_DIRECTORY, (errno.ENOTDIR,)),
    ("none", os.O_RDONLY, (errno.ENOENT,)),
])
def test_links_are_not_followed(folder: int, path: str, flags: int,
                                expected: tuple[int, ...]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"\[Errno") as error:
        strict_open.open_strictly(folder, path, flags)
    assert error.value.errno in expected
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [437, 1 << 20])
def test_mounts_are_not_entered(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_open, "_OPENAT2", number)
    root = os.open("/", os.O_PATH)
    with pytest.raises(OSError, match="link") as error:
        strict_open.open_strictly(root, "proc/self", os.O_PATH)
    assert error.value.errno == errno.EXDEV
    os.close(root)
