"""Records that are rewritten while they are read: whole, or said to be in motion."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import tearing
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.read import reading

READS = 10_000_000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs that write at once")
    try:
        return tearing.build(Path(tmp_path_factory.mktemp("tearing")))
    except subprocess.CalledProcessError as error:
        if error.returncode != tearing.NO_COMPILER:
            raise AssertionError(error.stderr) from error
        pytest.skip(f"the compiler wheel cannot be installed here: {error.stderr[-200:]}")


@pytest.mark.parametrize("weak_order", [False, True], ids=["as here", "with barriers"])
def test_no_record_is_read_that_nobody_wrote(bpf: Libbpf, image: bytes, weak_order: bool) -> None:
    with tearing.rewritten(bpf, image, weak_order) as live:
        seen = tearing.read(live, reading.whole, READS if not weak_order else READS // 10)
    assert seen.owned > seen.reads / 2
    assert seen.torn == 0
    assert seen.moving < seen.reads / 1000


def test_single_records_are_whole_too(bpf: Libbpf, image: bytes) -> None:
    import numpy as np

    places = np.arange(0, tearing.FRAMES, 7)
    with tearing.rewritten(bpf, image) as live:
        seen = tearing.read(live, lambda all_: reading.whole_at(all_, places), READS // 2)
    assert seen.owned > 0
    assert seen.torn == 0


@pytest.mark.parametrize("reader", [tearing.copied_once, tearing.copied_by_column],
                         ids=lambda reader: reader.__name__)
def test_a_reader_that_copies_once_does_see_torn_records(
        bpf: Libbpf, image: bytes, reader) -> None:
    """Else the tests above would prove nothing."""
    with tearing.rewritten(bpf, image) as live:
        assert tearing.read(live, reader, READS // 5).torn > 0
