"""`doctor` tries everything and leaves nothing."""

from __future__ import annotations

import errno
import time

import pytest

from pageowner.kernel.symbol_text import Lines
from pageowner.model.hook_table import LOST
from pageowner.report.status_view import draw_findings
from pageowner.report.terminal import Paper
from pageowner.tracker import control, doctor
from pageowner.tracker.load.hooks import attach_optional
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.load.loading import Sizes, Tracker


def test_doctor_tries_each_thing_and_leaves_nothing(bpf: Libbpf) -> None:
    was_on = control.is_on()
    programs = bpf.loaded_names().count("on_alloc")
    found = {finding.name: finding for finding in doctor.doctor()}
    assert found["raw tracepoints"].ok
    assert found["struct page to pfn"].ok
    assert found["root"].ok
    for name in LOST:
        if name in found:
            assert found[name].ok == (found[name].follows == "")
    # The kernel frees programs a moment after their last user is gone, others' too.
    deadline = time.monotonic() + 10
    while bpf.loaded_names().count("on_alloc") > programs and time.monotonic() < deadline:
        time.sleep(0.1)
    assert bpf.loaded_names().count("on_alloc") <= programs
    assert control.is_on() == was_on


def test_a_file_that_tracking_does_not_need_makes_no_gap(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel without memory cgroups has no /proc/kpagecgroup."""
    def read(path: str) -> str:
        if path == "/proc/kpagecgroup":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return "readable"

    monkeypatch.setattr(doctor, "_read", read)
    found = [finding for finding in doctor._reading() if finding.name.startswith("/proc")]
    draw_findings(found, Paper())
    said = capsys.readouterr().out
    assert "Errno" not in said
    assert "memory cgroups are not shown" in said
    assert said.rstrip().endswith("without gaps.")


def test_trying_whether_functions_can_be_traced_finds_what_loading_finds(
        bpf: Libbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> dict[str, str]:
        with Tracker(bpf, Sizes(4, 16, 64, 64), 16, {"direct_map": 1}) as tracker:
            tracker.load("look")
            return attach_optional(tracker, None, Lines.read())

    tried = states()
    monkeypatch.setattr(Libbpf, "try_tracing", lambda *_: None)
    assert states() == tried
