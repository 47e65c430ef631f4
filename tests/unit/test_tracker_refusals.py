"""Why tracking is not possible is said in one line that tells what to do."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

import pytest

from pageowner.errors import PageownerError
from pageowner.tracker import libbpf, lifecycle, maps, requirements


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
        lifecycle.off()


@pytest.mark.usefixtures("root")
def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "5.10.0-28-amd64")
    assert "5.10.0-28-amd64 is too old" in refusal()


@pytest.mark.usefixtures("root")
def test_no_type_information(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1.0")
    there = os.path.exists
    monkeypatch.setattr(os.path, "exists",
                        lambda path: False if "btf" in str(path) else there(path))
    assert "CONFIG_DEBUG_INFO_BTF" in refusal()


def test_no_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(libbpf, "_loaded", [])
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(libbpf.LibbpfMissing, match="apt install libbpf1"):
        libbpf.libbpf()


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
