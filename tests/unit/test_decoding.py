"""Stacks and tasks of the tracker's tables as texts, on a made-up machine."""

from pathlib import Path

import numpy as np
import pytest

from far_apart import COMM, FarApart
from pageowner.kernel.kallsyms import Kallsyms, RunningKallsyms
from pageowner.tracker.read.decoding import StackTexts, Task, stacks, tasks

_TASK = (1 << 20) + 1
SYMBOLS = b"ffffffff81000000 T one\nffffffff81000100 T two\nffffffff81000200 T end\n"


@pytest.fixture
def machine(tmp_path: Path) -> FarApart:
    return FarApart(tmp_path, 1 << 22, 0)


@pytest.fixture
def symbols() -> Kallsyms:
    return Kallsyms(SYMBOLS)


def test_a_stack_that_is_not_there_has_no_text(machine: FarApart, symbols: Kallsyms) -> None:
    machine.stacks["frames"][1] = 0xFFFFFFFF81000110
    assert stacks(machine, symbols, np.array([1, 0, 2, 1 << 31], np.uint32)) == [
        "two+0x10/0x100", None, None, None]


def test_a_stack_that_is_being_written_is_asked_for_again(machine: FarApart,
                                                          tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_bytes(SYMBOLS)
    texts = StackTexts(machine, RunningKallsyms(tmp_path / "kallsyms"))
    machine.stacks["n"][1] = 0
    assert texts.of([1, 0]) == [None, None]
    machine.stacks["n"][1], machine.stacks["frames"][1] = 1, 0xFFFFFFFF81000110
    assert texts.of([1, 0]) == ["two+0x10/0x100", None]


def test_modules_that_came_later_have_names_though_others_had_their_addresses(
        machine: FarApart, tmp_path: Path) -> None:
    module, listed = 0xFFFFFFFFC0000000, tmp_path / "modules"

    def loaded(name: str, uses: int = 0) -> None:
        (tmp_path / "kallsyms").write_bytes(SYMBOLS + f"{module:x} t {name}_init\t[{name}]\n"
                                            .encode() * bool(name))
        listed.write_text(f"{name} 16384 {uses} - Live {module:#x} (OE)\n" * bool(name))

    machine.__dict__["stacks"] = np.zeros(5, machine.stacks.dtype)
    machine.stacks["n"] = 1
    machine.stacks["frames"] = module + 0x10
    loaded("")
    running = RunningKallsyms(tmp_path / "kallsyms", str(listed))
    texts = StackTexts(machine, running)
    assert texts.of([1]) == ["0xffffffffc0000010"]
    loaded("old")
    assert texts.of([1, 2]) == ["0xffffffffc0000010", "old_init+0x10/0x1000 [old]"]
    loaded("new")
    assert texts.of([2, 3]) == ["old_init+0x10/0x1000 [old]", "new_init+0x10/0x1000 [new]"]
    loaded("new", 1)  # in use, but the same
    before = running.symbols
    assert texts.of([4]) == ["new_init+0x10/0x1000 [new]"]
    assert running.symbols is before
    (tmp_path / "kallsyms").write_text("0000000000000000 T one\n")  # hidden since, and so are these
    listed.write_text("new 16384 0 - Live 0x0 (OE)\n")
    running.renew()
    assert running.symbols is before


def test_a_task_whose_place_another_has_is_not_known(machine: FarApart) -> None:
    ids = np.array([_TASK, 0, _TASK + (1 << 20)], np.uint32)
    assert tasks(machine, ids) == [Task(COMM.decode(), 7, 7), None, None]
