"""Tests against this machine's kernel; each skips with the reason where it does not let us."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pageowner.errors import PageownerError
from pageowner.tracker.load import requirements
from pageowner.tracker.load.libbpf import BpfError, Libbpf
from pageowner.tracker.load.loading import Sizes, Tracker


@pytest.fixture(scope="session")
def bpf() -> Libbpf:
    """libbpf, on a kernel that lets this process load our programs."""
    if os.geteuid() != 0:
        pytest.skip("needs root to load BPF programs")
    try:
        loaded = requirements.require()
        with Tracker(loaded, Sizes(4, 16, 64, 64), 16, {}) as tracker:
            tracker.load("look")
    except (PageownerError, BpfError) as error:
        pytest.skip(f"this kernel does not load our programs: {error}")
    return loaded


@pytest.fixture(scope="module")
def tracking(bpf: Libbpf) -> Iterator[None]:
    """Tracking is on for the tests of a module, and off afterwards."""
    from pageowner.tracker import control

    if control.is_on():
        pytest.skip("tracking is on on this machine; a test would have to turn it off")
    control.on()
    yield
    control.off()


@pytest.fixture
def off(bpf: Libbpf) -> Iterator[None]:
    """Tracking is off before and after; one that somebody else started is left alone."""
    from pageowner.tracker import control

    if control.is_on():
        pytest.skip("tracking is on on this machine; a test would have to turn it off")
    yield
    control.off()
