"""The memo is set up by what this kernel is, or stays off and says why."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pageowner.errors import UsageError
from pageowner.kernel.symbol_text import Lines
from pageowner.tracker.control import Options
from pageowner.tracker.load import memo
from pageowner.tracker.load.libbpf import Libbpf

SYMBOLS = """ffffffff81000010 T __entry_text_start
ffffffff81000080 T entry_SYSCALL_64
ffffffff81001a87 T __entry_text_end
ffffffff81338150 t orc_find.part.0
ffffffff821ecbe0 T do_syscall_64
ffffffff821ece60 t __pfx___do_fast_syscall_32
ffffffff821ece70 t __do_fast_syscall_32
ffffffff821ed040 T do_int80_emulation
ffffffff821ed210 T do_fast_syscall_32
ffffffff81229000 T return_to_handler
"""


@pytest.fixture
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(memo, "stack_size", lambda bpf, measure: (16384, 0))


def plan(tmp_path: Path, symbols: str) -> memo.Plan:
    path = tmp_path / "kallsyms"
    path.write_text(symbols)
    nothing: Libbpf = None  # type: ignore[assignment]
    return memo.plan(nothing, object(), True, 16, 1 / 1024,  # type: ignore[arg-type]
                     Lines.read(path))


@pytest.mark.usefixtures("on_x86")
def test_what_the_programs_need_comes_from_the_symbols(tmp_path: Path) -> None:
    values = plan(tmp_path, SYMBOLS).values
    assert (values["entry_text"], values["entry_text_end"]) == (
        0xFFFFFFFF81000010, 0xFFFFFFFF81001A87)
    anchors = values["anchors"].to_bytes(64, "little")
    edges = [int.from_bytes(anchors[at : at + 8], "little") for at in range(0, 64, 8)]
    assert set(zip(edges[::2], edges[1::2], strict=True)) == {
        (0xFFFFFFFF821ECBE0, 0xFFFFFFFF821ECE60), (0xFFFFFFFF821ECE70, 0xFFFFFFFF821ED040),
        (0xFFFFFFFF821ED040, 0xFFFFFFFF821ED210), (0, 0)}
    assert values["trampolines"] == 0xFFFFFFFF81229000
    assert values["check_every"] == 1024
    assert (values["fred_text"], values["fred_text_end"], values["stack_padding"]) == (0, 0, 0)


@pytest.mark.usefixtures("on_x86")
def test_the_entries_of_fred_are_entry_code_too(tmp_path: Path) -> None:
    lines = """ffffffff82201000 T asm_fred_entrypoint_user
ffffffff82201048 T asm_fred_exit_user
ffffffff82201100 T asm_fred_entrypoint_kernel
ffffffff82201180 T asm_fred_entry_from_kvm
"""
    values = plan(tmp_path, SYMBOLS + lines).values
    assert (values["fred_text"], values["fred_text_end"]) == (0xFFFFFFFF82201000,
                                                              0xFFFFFFFF82201180)


def test_a_stack_leaves_two_words_above_the_registers_of_userspace_with_fred() -> None:
    assert memo.stack_of(0xFFFFC90000100000, 16384) == (16384, 0)
    assert memo.stack_of(0xFFFFC90000100000, 16384 - 16) == (16384, 16)
    assert memo.stack_of(0xFFFFC90000100000, 16384 - 24) == (0, 0)
    assert memo.stack_of(0xFFFFC90000100000, 12288) == (0, 0)
    assert memo.stack_of(0, 16384) == (0, 0)


@pytest.mark.usefixtures("on_x86")
@pytest.mark.parametrize(("line", "why"), [
    ("orc_find", "ORC"), ("__entry_text_end", "bounds of the entry code")])
def test_without_what_the_proof_needs_it_stays_off(tmp_path: Path, line: str, why: str) -> None:
    without = "".join(text + "\n" for text in SYMBOLS.splitlines() if line not in text)
    assert why in plan(tmp_path, without).why_not


@pytest.mark.parametrize(("machine", "why"), [
    ("aarch64", "on arm64 comparing"), ("riscv64", "not for riscv64")])
def test_on_another_architecture_it_stays_off(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, why: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert why in plan(tmp_path, SYMBOLS).why_not


@pytest.mark.parametrize("check", [-0.1, 1.5])
def test_a_fraction_that_is_none_is_refused(check: float) -> None:
    with pytest.raises(UsageError, match="fraction"):
        Options(memo_check=check).check()
