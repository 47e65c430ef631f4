"""A cgroup id must become the path that people know, also when it is gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pageowner.kernel import cgroups

if TYPE_CHECKING:
    from pathlib import Path


def mountinfo(top: Path, kind: str, options: str) -> str:
    escaped = str(top).replace(" ", r"\040")
    return f"36 31 0:33 / {escaped} rw,relatime shared:9 - {kind} cgroup {options}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Directories like a hierarchy: a cgroup is a directory, its id the inode."""
    top = tmp_path / "with blank"
    (top / "system.slice/ssh.service").mkdir(parents=True)
    (top / "user.slice").mkdir()
    (top / "cgroup.procs").write_text("")
    os.mkdir(os.fsencode(top) + b"/odd\xff")
    return top


def test_ids_are_the_inodes_of_directories(tree: Path) -> None:
    found = cgroups.memory(mountinfo(tree, "cgroup2", "rw"))
    assert found.origin == str(tree)
    assert found.path((tree / "system.slice/ssh.service").stat().st_ino) == (
        "/system.slice/ssh.service")
    assert found.path(tree.stat().st_ino) == "/"
    assert found.path((tree / "cgroup.procs").stat().st_ino).endswith("(gone)")
    assert "/odd\\xff" in found.known.values()


def test_version_1s_memory_controller_comes_first(tree: Path, tmp_path: Path) -> None:
    text = (mountinfo(tmp_path, "cgroup2", "rw") + mountinfo(tmp_path / "cpu", "cgroup", "rw,cpu")
            + mountinfo(tree, "cgroup", "rw,memory"))
    assert cgroups.memory(text).origin == str(tree)
    assert cgroups.unified(text).origin == str(tmp_path)


def test_a_cgroup_that_is_gone_says_so(tree: Path) -> None:
    found = cgroups.memory(mountinfo(tree, "cgroup2", "rw"))
    assert found.path(4242424242) == "cgroup 4242424242 (gone)"
    assert found.path(0) is None


def test_columns_hold_each_path_once(tree: Path) -> None:
    found = cgroups.memory(mountinfo(tree, "cgroup2", "rw"))
    user = (tree / "user.slice").stat().st_ino
    codes, values = found.column(np.array([user, 0, user, 77], np.uint64))
    assert [None if c < 0 else values[c] for c in codes] == [
        "/user.slice", None, "/user.slice", "cgroup 77 (gone)"]
    assert len(values) == 2


def test_a_machine_without_cgroups_has_none(tmp_path: Path) -> None:
    assert cgroups.memory("").known == {}
    assert cgroups.memory(mountinfo(tmp_path / "none", "cgroup2", "rw")).known == {}
    assert cgroups.unified("").path(7) == "cgroup 7 (gone)"


@pytest.mark.skipif(not cgroups.memory().origin, reason="no cgroups are mounted here")
def test_this_process_is_in_a_cgroup_that_is_known() -> None:
    found = cgroups.memory()
    assert found.path(os.stat(found.origin).st_ino) == "/"
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    mine = {path for _, controllers, path in lines
            if "memory" in controllers.split(",") or not controllers}
    assert mine & set(found.known.values())
