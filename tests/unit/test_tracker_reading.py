"""Reading the tracker and the machine while they change, or where something is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pageowner.api import status
from pageowner.errors import PageownerError
from pageowner.kernel import kallsyms
from pageowner.model.page_users import PageUsers
from pageowner.tracker import control
from pageowner.tracker.control import Status
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.read import pinned
from pageowner.tracker.read.map_memory import map_memory
from pageowner.tracker.read.pinned import ENDED, Pinned
from pageowner.tracker.users.find import Surroundings, Users


def test_pages_that_off_left_without_records_are_not_called_untracked(
        monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    def check_on() -> None:
        if ended:
            raise PageownerError(ENDED)

    def untracked(_: object) -> tuple[int, list[object]]:
        ended.append(True)
        return 10 ** 6, []

    monkeypatch.setattr(control, "status", lambda: Status(on=True, frames=1))
    monkeypatch.setattr(status, "open_store", lambda: nullcontext(
        SimpleNamespace(check_on=check_on)))
    monkeypatch.setattr(status, "untracked", untracked)
    with pytest.raises(PageownerError, match="turned off while it was being read"):
        status.status()


def test_where_addresses_are_hidden_only_areas_of_vmalloc_have_no_users(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        kallsyms.Kallsyms(b"0000000000000000 T _text\n")

    monkeypatch.setattr(kallsyms, "load", hidden)
    found = PageUsers.of(1)
    users = SimpleNamespace(around=Surroundings(), found=found, symbols=None)
    Users._vmalloc(users, {})  # type: ignore[arg-type]
    (note,) = found.notes
    assert "vmalloc" in note
    assert "sysctl kernel.kptr_restrict=1" in note
    assert np.all(found.codes == -1)


def test_a_reader_that_is_stopped_does_not_hold_others_for_ever(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "_LOCK_SECONDS", 0)
    store = object.__new__(Pinned)
    store.directory = store.pins = str(tmp_path)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(PageownerError, match=f"may be stopped.*lsof {tmp_path}"), store.alone():
        pass
    os.close(other)
    with store.alone():
        pass


def test_the_memory_of_all_maps_is_counted_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[int, int] = {}

    def open_map(number: int) -> int:
        fd = os.open("/dev/null", os.O_RDONLY)
        opened[fd] = number
        return fd

    named = {"tasks": 1, "config": 2}
    programs = {7: (1, 10, 11), 8: (10, 12)}
    bpf = SimpleNamespace(
        map_info=lambda number: SimpleNamespace(id=number), map_by_id=open_map,
        program_by_id=open_map, program_info=lambda fd: SimpleNamespace(maps=programs[opened[fd]]))
    store = SimpleNamespace(bpf=bpf, fd=named.__getitem__, hooks=lambda: [
        SimpleNamespace(program_id=number) for number in programs])
    monkeypatch.setattr(Path, "read_text", lambda path: (
        f"pos:\t0\nmemlock:\t{1 << opened[int(path.name)]}\n"))
    assert map_memory(store, named, [3, 3]) == sum(  # type: ignore[arg-type]
        1 << number for number in (1, 2, 3, 10, 11, 12))


@pytest.mark.parametrize(("code", "kind", "said"), [
    (errno.ENOENT, PageownerError, ENDED), (errno.EPERM, BpfError, "open map 3")])
def test_maps_that_are_gone_were_turned_off(code: int, kind: type[Exception], said: str) -> None:
    def gone(number: int) -> int:
        raise BpfError(code, f"open map {number}")

    store = SimpleNamespace(bpf=SimpleNamespace(map_by_id=gone), hooks=list)
    with pytest.raises(kind, match=re.escape(said)):
        map_memory(store, [], [3])  # type: ignore[arg-type]
