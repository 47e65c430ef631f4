"""What the guests' runner makes of names, without a guest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vm"))

import debian_packages
from jobs import JOBS, REFUSED
from kernels import KERNELS


@pytest.mark.parametrize(("release", "flavour", "architecture"), [
    ("5.10.0-46-amd64", "amd64", "amd64"),
    ("6.12.90+deb12.1-amd64", "amd64", "amd64"),
    ("7.3.4+deb13-rt-amd64", "rt-amd64", "amd64"),
    ("7.3.4+deb13-cloud-amd64", "cloud-amd64", "amd64"),
    ("7.2.13+deb14-arm64-16k", "arm64-16k", "arm64")])
def test_the_names_of_debians_kernels(release: str, flavour: str, architecture: str) -> None:
    assert debian_packages.flavour(release) == flavour
    assert debian_packages.flavour(f"6.1-stock-{release}") == flavour
    assert debian_packages.architecture(release) == architecture
    assert debian_packages.qualified(f"linux-image-{release}").endswith(f":{architecture}")


def test_the_newest_is_the_newest_by_numbers() -> None:
    releases = ["6.12.107+deb13-amd64", "6.12.95+deb12-amd64", "6.12.90+deb12.1-amd64",
                "6.12.117+deb13-amd64", "6.12.90+deb12-amd64"]
    assert [release.split("-")[0] for release in sorted(releases, key=debian_packages.number)] == [
        "6.12.90+deb12", "6.12.90+deb12.1", "6.12.95+deb12", "6.12.107+deb13", "6.12.117+deb13"]


def test_a_kernel_that_is_refused_is_not_tracked() -> None:
    for name in REFUSED:
        assert {job.name for job in JOBS if job.wanted_on(name)} == {"facts", "refused"}
    for name in set(KERNELS) - set(REFUSED):
        wanted = {job.name for job in JOBS if job.wanted_on(name)}
        assert "track" in wanted
        assert "refused" not in wanted
        assert ("agree" in wanted) == name.startswith("built-")
