"""Why tracking is not possible is said in one line that tells what to do."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import kallsyms, memory_ranges, symbol_text
from pageowner.tracker import control
from pageowner.tracker.load import calibrate, libbpf, requirements
from pageowner.tracker.read import maps


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def refusal() -> str:
    with pytest.raises(PageownerError) as caught:
        requirements.require()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo" in refusal()
    with pytest.raises(PageownerError, match="sudo"):
        control.off()


@pytest.mark.usefixtures("root")
def test_no_type_information(monkeypatch: pytest.MonkeyPatch) -> None:
    there = os.path.exists
    monkeypatch.setattr(os.path, "exists",
                        lambda path: False if "btf" in str(path) else there(path))
    assert "CONFIG_DEBUG_INFO_BTF" in refusal()


@pytest.fixture
def good_kernel(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that comes before the file systems is as it should be."""
    there = os.path.exists
    monkeypatch.setattr(os.path, "exists",
                        lambda path: True if "btf" in str(path) else there(path))
    monkeypatch.setattr(requirements, "libbpf", lambda: None)
    monkeypatch.setattr(requirements, "too_old", lambda _: None)


@pytest.mark.parametrize(("number", "said"), [
    (errno.EINVAL, "5.10.0-28-amd64 is too old.*since 5.12"),
    (errno.EPERM, None)])
def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch, number: int, said: str | None) -> None:
    """A kernel that refuses all BPF is not called old. (tests/vm shows it on a 5.10 itself.)"""
    monkeypatch.setattr(platform, "release", lambda: "5.10.0-28-amd64")

    class Refusing:
        def load_program(self, *_: object) -> int:
            raise libbpf.BpfError(number, "load")

    why = requirements.too_old(Refusing())  # type: ignore[arg-type]
    assert re.search(said, why or "") if said else why is None


def test_a_big_endian_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.sys, "byteorder", "big")
    monkeypatch.setattr(requirements.platform, "machine", lambda: "s390x")
    said = refusal()
    assert re.search(r"needs a little-endian machine.*s390x.*dumps can be read", said)
    assert "\n" not in said


def test_ranges_too_many_to_write_down_are_joined_where_the_gaps_are_small() -> None:
    ranges = [[0, 10], [11, 20], [40, 50], [51, 60], [1 << 40, (1 << 40) + 5]]
    fewer = control._fewer(ranges)
    assert fewer == [[0, 20], [40, 60], [1 << 40, (1 << 40) + 5]]
    assert control._fewer(fewer) == [[0, 60], [1 << 40, (1 << 40) + 5]]


@pytest.mark.usefixtures("good_kernel")
def test_lockdown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "lockdown"
    for mode in ("[none] integrity confidentiality", "none [integrity] confidentiality"):
        path.write_text(mode)
        assert requirements.lockdown(str(path)) is None
    assert requirements.lockdown(str(tmp_path / "no-securityfs")) is None
    path.write_text("none integrity [confidentiality]\n")
    why = requirements.lockdown(str(path))
    assert why
    monkeypatch.setattr(requirements, "lockdown", lambda: why)
    assert re.search(r"locked down \(confidentiality\).*lockdown=integrity", refusal())


@pytest.mark.usefixtures("good_kernel")
def test_no_bpffs_and_none_can_be_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "lockdown", lambda: None)
    monkeypatch.setattr(requirements, "is_mounted", lambda: False)
    failed = subprocess.CompletedProcess(
        [], 32, "", "mount: /sys/fs/bpf: unknown filesystem type 'bpf'.\n")
    monkeypatch.setattr(requirements.subprocess, "run", lambda *_, **__: failed)
    assert re.search(r"no BPF file system at /sys/fs/bpf.*unknown filesystem.*try: mount -t bpf",
                     refusal())
    monkeypatch.setattr(requirements, "is_mounted", lambda: True)
    monkeypatch.setattr(requirements, "has_tracefs", lambda: False)
    assert re.search(r"no tracefs at /sys/kernel/tracing.*try: mount -t tracefs", refusal())


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_kernel_that_refuses_bpf_says_what_is_needed(
        monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As in a container, or with a security module."""
    monkeypatch.setattr(requirements, "lockdown", lambda: None)
    said = str(control._refusal(libbpf.BpfError(number, "loading"), False))
    assert "CAP_BPF and CAP_PERFMON" in said
    assert "\n" not in said


def test_hidden_symbols(tmp_path: Path) -> None:
    """kernel.kptr_restrict=2 shows zeros to root too."""
    path = tmp_path / "kallsyms"
    path.write_text("0000000000000000 T bpf_trace_run2\n0000000000000000 T schedule\n")
    for hidden in (lambda: calibrate.tracing_ranges(symbol_text.Lines.read(path)),
                   lambda: kallsyms.load(str(path))):
        with pytest.raises(PageownerError) as caught:
            hidden()
        assert "kptr_restrict" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_hidden_memory(tmp_path: Path) -> None:
    path = tmp_path / "iomem"
    path.write_text("00000000-00000000 : System RAM\n")
    with pytest.raises(PageownerError, match="run as root, outside a container"):
        memory_ranges.ram_ranges(str(path))


def test_no_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(libbpf, "_loaded", [])
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(libbpf.LibbpfMissing, match="apt install libbpf1"):
        libbpf.libbpf()
    for user, told in ((0, "apt install libbpf1"), (1000, "sudo")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with pytest.raises(PageownerError, match=told):
            maps.open_store()


def test_a_library_without_what_we_need_is_too_old() -> None:
    with pytest.raises(libbpf.LibbpfMissing, match=r"too old.*0\.8"):
        libbpf.Libbpf(ctypes.CDLL(None))


@pytest.mark.usefixtures("root")
def test_a_store_that_is_not_there_says_how_to_start() -> None:
    try:
        libbpf.libbpf()
    except libbpf.LibbpfMissing:
        pytest.skip("libbpf is not installed")
    with pytest.raises(PageownerError, match=r"sudo pageowner on|root's"):
        maps.open_store("/sys/fs/bpf/no-such-tracker")
