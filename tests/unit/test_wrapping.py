"""Lines of ours are broken between words at a terminal, and never in a pipe."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kept_paper import KeptPaper
from machines import machine

from pageowner.cli import main
from pageowner.errors import UsageError
from pageowner.report import page_view, status_view
from pageowner.report.terminal import PIPE_WIDTH, Paper
from pageowner.report.wrapping import entry, prose
from pageowner.tracker import control, filters
from pageowner.tracker.control import Options, Status
from pageowner.tracker.doctor import Finding
from pageowner.tracker.filters import began, has_ended
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.load.memo import MEMO_COUNTERS
from pageowner.tracker.read.maps import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = "refused: the kernel does not let BPF trace alloc_contig_range_noprof"
STATUS = Status(
    on=True, options=Options(tgid=12, free_side=True, memo_check=0.25, cgroup="/a b"),
    hooks={"mm_page_alloc": "active", "alloc_contig_range": REFUSED, "split_page": REFUSED},
    pages={"owned": 12345678, "early": 987654321, "filtered": 5},
    counters=dict.fromkeys(COUNTERS, 12345678), memo="on",
    memo_counters=dict.fromkeys(MEMO_COUNTERS, 12345678), memory_bytes=1 << 30, frames=1 << 28,
    facts={"early_pages": 987654321})
FINDINGS = [
    Finding("root", True, True, "user id 0"),
    Finding("alloc_contig_range", False, False, REFUSED,
            follows="pages of CMA and gigantic huge pages are untracked, as are some others")]


def row_of_a_page() -> dict[str, object]:
    rows = machine(3).snapshot().table.to_pylist()
    return {**rows[0], "gfp_mask": 0x140DCA, "pid": 1, "comm": "a task of many words",
            "gfp_flags": "|".join(["GFP_HIGHUSER_MOVABLE", *["__GFP_ZERO"] * 9])}


@pytest.mark.parametrize("draw", [
    lambda paper: status_view.draw_status(STATUS, paper),
    lambda paper: status_view.draw_start(replace(STATUS, already_on=True), paper),
    lambda paper: status_view.draw_findings(FINDINGS, paper),
    lambda paper: page_view.draw(1, [row_of_a_page()], machine(3).snapshot().meta, 0, paper)])
def test_lines_fit_a_terminal_and_stay_whole_in_a_pipe(draw: Callable[[Paper], None]) -> None:
    narrow, piped = KeptPaper(80), KeptPaper(PIPE_WIDTH)
    draw(narrow)
    draw(piped)
    # one word may be longer than a line
    assert max(len(line) for line in narrow.lines if line.count(" ") > 20 or "|" not in line) <= 80
    assert max(map(len, piped.lines)) > 80
    assert len(narrow.lines) > len(piped.lines)
    assert "".join(narrow.lines).replace(" ", "") == "".join(piped.lines).replace(" ", "")


def test_a_line_longer_than_any_terminal_stays_whole_in_a_pipe(
        capsys: pytest.CaptureFixture[str]) -> None:
    words = "word " * PIPE_WIDTH
    prose(Paper(), words)
    entry(Paper(), "title ", words)
    assert capsys.readouterr().out == f"{words}\ntitle {words}\n"


def test_what_follows_stands_below_the_words_not_the_title() -> None:
    paper = KeptPaper(30)
    entry(paper, "title     ", "one two three four five six seven")
    assert paper.lines == ["title     one two three four", "          five six seven"]


def test_a_title_without_words_is_one_line() -> None:
    for width in (30, PIPE_WIDTH):
        paper = KeptPaper(width)
        entry(paper, "title     ", "")
        assert paper.lines == ["title"]


def test_options_are_named_as_on_the_command_line() -> None:
    assert STATUS.options.words() == [
        "--free", "--pid 12", "--cgroup /a b", "--check 0.25"]
    assert Options().words() == []
    paper = KeptPaper(PIPE_WIDTH)
    status_view.draw_status(STATUS, paper)
    assert "options   --free --pid 12 --cgroup /a b --check 0.25" in paper.lines


@pytest.mark.parametrize(("untracked", "said"), [
    (2, "25.0 % of the pages in use; 9 pages"),
    (None, "50.0 % of the pages in use, without untracked ones; 9 pages")])
def test_untracked_pages_are_in_use_too(untracked: int | None, said: str) -> None:
    paper = KeptPaper(PIPE_WIDTH)
    status_view.draw_status(replace(STATUS, pages={"owned": 1, "early": 1}, untracked=untracked,
                                    facts={"early_pages": 9}), paper)
    assert f"early     {said} when tracking began" in paper.lines


def test_what_bpf_refuses_is_no_failure_to_write(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise BpfError(errno.EPERM, "open the map tasks")

    monkeypatch.setattr(control, "status", refused)
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "pageowner: open the map tasks: Operation not permitted\n"


def test_only_a_process_that_is_there_can_be_chosen() -> None:
    assert control._filters(Options(tgid=os.getpid()))["only_tgid"] == os.getpid()
    with pytest.raises(UsageError, match=f"no process {1 << 30} to track"):
        control._filters(Options(tgid=1 << 30))
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    for end in "\r", "\x0b", "\x1c":  # a thread may call itself a process
        with open(f"/proc/self/task/{thread.native_id}/comm", "w", newline="") as comm:
            comm.write(f"{end}Tgid:\t{thread.native_id}")
        with pytest.raises(UsageError, match=f"a thread, .* use --pid {os.getpid()}"):
            control._filters(Options(tgid=thread.native_id or 0))
    done.set()
    thread.join()


def test_a_process_that_ended_is_not_taken_for_the_next_with_its_number(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(filters, "is_first_pid_namespace", lambda: True)
    program = tmp_path / ") 1 2 (x"  # which the process is then called
    program.symlink_to(shutil.which("cat") or "")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, executable=program) as child:
        start = began(child.pid)
        assert start is not None
        assert not has_ended(child.pid, start)
        assert has_ended(child.pid, start - 1)
    assert has_ended(child.pid, start)
    assert not has_ended(0, None)
    monkeypatch.setattr(filters, "is_first_pid_namespace", lambda: False)
    assert not has_ended(child.pid, start)
    paper = KeptPaper(PIPE_WIDTH)
    status_view.draw_status(replace(STATUS, process_ended=True), paper)
    assert f"process {STATUS.options.tgid} has ended" in " ".join(paper.lines)
