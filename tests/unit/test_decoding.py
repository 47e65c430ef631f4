"""Stacks and tasks of the tracker's tables as texts, on a made-up machine."""

from pathlib import Path

import numpy as np
import pytest

from far_apart import COMM, FarApart
from pageowner.kernel.kallsyms import Kallsyms
from pageowner.tracker.read.decoding import StackTexts, Task, stacks, tasks

_TASK = (1 << 20) + 1


@pytest.fixture
def machine(tmp_path: Path) -> FarApart:
    return FarApart(tmp_path, 1 << 22, 0)


@pytest.fixture
def symbols() -> Kallsyms:
    return Kallsyms(b"ffffffff81000000 T one\nffffffff81000100 T two\nffffffff81000200 T end\n")


def test_a_stack_that_is_not_there_has_no_text(machine: FarApart, symbols: Kallsyms) -> None:
    machine.stacks["frames"][1] = 0xFFFFFFFF81000110
    assert stacks(machine, symbols, np.array([1, 0, 2, 1 << 31], np.uint32)) == [
        "two+0x10/0x100", None, None, None]


def test_a_stack_that_is_being_written_is_asked_for_again(machine: FarApart,
                                                          symbols: Kallsyms) -> None:
    texts = StackTexts(machine, symbols)
    machine.stacks["n"][1] = 0
    assert texts.of([1, 0]) == [None, None]
    machine.stacks["n"][1], machine.stacks["frames"][1] = 1, 0xFFFFFFFF81000110
    assert texts.of([1, 0]) == ["two+0x10/0x100", None]


def test_a_task_whose_place_another_has_is_not_known(machine: FarApart) -> None:
    ids = np.array([_TASK, 0, _TASK + (1 << 20)], np.uint32)
    assert tasks(machine, ids) == [Task(COMM.decode(), 7, 7), None, None]
