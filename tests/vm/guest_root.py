#!/usr/bin/env python3
"""A root file system for guests of another architecture than this machine's: Debian and Python.

    guest_root.py [--cached] ARCHITECTURE       prints its folder

Made once, in the cache, of Debian's packages unpacked as they are and of wheels, so that nothing of
that architecture has to run for it: no script of a package, no second stage. Guests have it
read-only. Its Python is that of the suite, bytecode is compiled here where the versions are the
same.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from debian_packages import CACHE, NoPackage

HERE = Path(__file__).resolve().parent
LAYOUT = 1
"""Counted up when the way in which a root is made changes."""
SUITE = "bookworm"
PYTHON = (3, 11)
PACKAGES = (
    *("base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "e2fsprogs"),
    *("findutils", "gawk", "grep", "iproute2", "kmod", "libbpf1", "mount", "procps", "python3"),
    *("sed", "util-linux", "xfsprogs"),
)
WHEELS = {"arm64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64",
                    "manylinux2014_aarch64")}
"""What wheels may be built for, by the architecture; the newest first."""

VENV = Path("usr/lib/pageowner-venv")
"""Where the virtual environment lies in it."""

INIT = Path("usr/sbin/guest-root-init")
"""Where boot.py puts the init."""


def _dependencies() -> list[str]:
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def _run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a tool. Raises NoPackage if it fails, with its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoPackage(f"{Path(command[0]).name}: {said[-1] if said else done.returncode}")


def _unpack_debian(architecture: str, root: Path, work: Path) -> None:
    config = subprocess.run([HERE / "debian_packages.py", "config"], stdout=subprocess.PIPE,
                            text=True, check=False)
    if config.returncode:
        raise NoPackage("apt has no lists of Debian's suites, see above")
    (work / "debs" / "partial").mkdir(parents=True)
    _run("apt-get", "-y", "-q", "-t", SUITE, "--no-install-recommends", "--download-only",
         f"-oAPT::Architecture={architecture}", f"-oDir::Cache::archives={work / 'debs'}",
         "install", *PACKAGES,
         env={**os.environ, "LC_ALL": "C", "APT_CONFIG": config.stdout.strip()})
    for name in ("bin", "sbin", "lib"):  # as debootstrap does
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted((work / "debs").glob("*.deb")):
        _run("sh", "-c", 'dpkg --fsys-tarfile "$0" | tar -x --keep-directory-symlink -C "$1"',
             package, root)
    # what the packages' scripts would do, as far as guests need it
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    (root / "usr/bin/awk").symlink_to("gawk")
    for name in ("mnt", "host"):
        (root / name).mkdir(exist_ok=True)


def _unpack_wheels(architecture: str, root: Path) -> None:
    version = ".".join(map(str, PYTHON))
    venv = root / VENV
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to("/usr/bin/python3")
    (venv / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n")
    platforms = [word for name in WHEELS[architecture] for word in ("--platform", name)]
    _run(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
         "--no-compile", "--only-binary=:all:", *platforms, "--python-version", version,
         "--target", venv / f"lib/python{version}/site-packages", *_dependencies())
    if sys.version_info[:2] == PYTHON:
        _run(sys.executable, "-m", "compileall", "-q", "-j0", "--invalidation-mode",
             "unchecked-hash", "-s", root, "-p", "/", root / f"usr/lib/python{version}",
             venv / "lib")


def obtain(architecture: str, *, cached_only: bool = False) -> Path:
    """The folder, from the cache or made. Raises NoPackage."""
    if architecture not in WHEELS:
        raise NoPackage(f"no root file system is known for {architecture}")
    made_of = repr((LAYOUT, SUITE, PYTHON, PACKAGES, WHEELS, _dependencies()))
    name = f"{architecture}-{SUITE}-{hashlib.sha256(made_of.encode()).hexdigest()[:10]}"
    roots = CACHE / "roots"
    final = roots / name
    if final.exists():
        return final
    if cached_only:
        raise NoPackage(f"the root file system for {architecture} is not in the cache, {roots}")
    roots.mkdir(parents=True, exist_ok=True)
    with (roots / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():  # made while we waited
            return final
        print(f"guest-root: unpacking Debian {SUITE} for {architecture}", file=sys.stderr)
        work = Path(tempfile.mkdtemp(prefix=".root-", dir=roots))
        try:
            root = work / "root"
            root.mkdir(mode=0o755)
            _unpack_debian(architecture, root, work)
            _unpack_wheels(architecture, root)
            root.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return final


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A root file system for guests of another architecture.")
    parser.add_argument("architecture", choices=sorted(WHEELS))
    parser.add_argument("--cached", action="store_true", help="exit 3 if it is not in the cache")
    args = parser.parse_args()
    try:
        print(obtain(args.architecture, cached_only=args.cached))
    except NoPackage as error:
        print(f"guest-root: {error}", file=sys.stderr)
        return 3 if args.cached else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
