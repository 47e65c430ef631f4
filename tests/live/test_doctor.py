"""`doctor` tries everything and leaves nothing."""

from __future__ import annotations

import time

from pageowner.tracker import doctor, lifecycle
from pageowner.tracker.hooks import LOST
from pageowner.tracker.libbpf import Libbpf


def test_doctor_tries_each_thing_and_leaves_nothing(bpf: Libbpf) -> None:
    was_on = lifecycle.is_on()
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
    assert lifecycle.is_on() == was_on
