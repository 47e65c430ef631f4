#!/usr/bin/env python3
"""Packages from Debian's archive, of other suites and architectures than this machine's.

    debian_packages.py newest VERSION [FLAVOUR]   release of the newest kernel, 7.3.4+deb13-rt-amd64
    debian_packages.py version PACKAGE            its newest version
    debian_packages.py fetch FOLDER PACKAGE…      the .deb files; NAME:arm64 names an architecture
    debian_packages.py mirror                     the archive that they come from
    debian_packages.py config                     a file for APT_CONFIG: apt with these lists

apt is given lists, a cache and sources of its own, in ``$PAGEOWNER_CACHE/apt``; the machine's are
read (which mirror, which proxy), never written, and nothing is installed. The lists' signatures are
checked, with the machine's keys; where these are too old for a suite, with those of the newest
debian-archive-keyring in a suite whose signature they can check.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("PAGEOWNER_CACHE") or
             Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pageowner")
HOME = CACHE / "apt"
SUITES = ("bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid")
SECURITY = ("bullseye-security", "bookworm-security", "trixie-security")
ARCHITECTURES = ("amd64", "arm64")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NEWER_KEYRING = HOME / "keyring.gpg"
LISTS_GO_STALE = 7 * 86_400
"""Seconds after which the lists are fetched again when something is asked of the archive."""


class NoPackage(Exception):
    """A package cannot be had; one line says why."""


def _ask(*command: str) -> str:
    """What a tool prints. Raises NoPackage if it is missing or fails, with its own words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise NoPackage(f"{command[0]} is missing: the kernels are Debian's packages") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise NoPackage(f"{command[0]}: {said[0] if said else done.stderr.strip()[-200:]}")
    return done.stdout


def mirrors() -> tuple[str, str | None]:
    """Where this machine's own packages come from: the archive, and that of security updates.
    Raises NoPackage where the machine is no Debian."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M))
    codename = release.get("VERSION_CODENAME", "")
    table = dict(reversed([line.split(" ", 1) for line in _ask(
        "apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)").splitlines()]))
    if release.get("ID") != "debian" or codename not in table:
        raise NoPackage("this machine's apt has no Debian archive: the kernels are Debian's")
    return table[codename], table.get(f"{codename}-security")


def _write_config(keyring: Path) -> Path:
    """Sources and configuration. The machine's are not read by apt then, but for how it fetches."""
    archive, security = mirrors()
    sources = HOME / "sources.list"
    lines = [f"deb [signed-by={keyring}] {where} {suite} main\n"
             for where, suites in ((archive, SUITES), (security, SECURITY)) if where
             for suite in suites]
    config = HOME / "apt.conf"
    for folder in (HOME / "lists" / "partial", HOME / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (HOME / "status").touch()  # nothing is installed here
    fetching = re.findall(r"^Acquire::(?:https?|ftp|Retries|Check-|ForceIPv).*$",
                          _ask("apt-config", "dump", "Acquire"), re.M)
    own = [f'Dir::Etc::{what} "/dev/null";' for what in
           ("main", "parts", "sourceparts", "preferences", "preferencesparts")]
    own += [f'Dir::Etc::sourcelist "{sources}";', f'Dir::State::lists "{HOME / "lists"}";',
            f'Dir::State::status "{HOME / "status"}";', f'Dir::Cache "{HOME}";',
            f'APT::Architecture "{_ask("dpkg", "--print-architecture").strip()}";',
            *(f'APT::Architectures:: "{name}";' for name in ARCHITECTURES),
            'Acquire::Languages "none";']
    if os.geteuid() == 0:  # its own user cannot reach what lies in root's home
        own.append('APT::Sandbox::User "root";')
    for path, text in ((sources, "".join(lines)), (config, "\n".join([*fetching, *own, ""]))):
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return config


def _apt(*words: str) -> str:
    return _ask("env", f"APT_CONFIG={HOME / 'apt.conf'}", *words)


@contextmanager
def _lock() -> Iterator[None]:
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def update(*, only_stale: bool = False) -> None:
    """Fetch the lists. A suite that cannot be had is named on stderr and left out. Raises
    NoPackage if none can."""
    stamp = HOME / "updated"
    with _lock():
        keyring = NEWER_KEYRING if NEWER_KEYRING.exists() else KEYRING
        _write_config(keyring)
        if only_stale and stamp.exists() and (
                time.time() - stamp.stat().st_mtime < LISTS_GO_STALE):
            return
        print("debian-packages: fetching the lists of Debian's suites", file=sys.stderr)
        said = _update()
        if "NO_PUBKEY" in said:
            _newer_keys()
            _write_config(NEWER_KEYRING)
            said = _update()
        for line in said.splitlines():
            if line.startswith(("E:", "W:")):
                print(f"debian-packages: {line}", file=sys.stderr)
        if not any((HOME / "lists").glob("*_Packages")):
            raise NoPackage(f"no list could be fetched: {said.strip()[-200:]}")
        stamp.touch()


def _update() -> str:
    done = subprocess.run(["apt-get", "-q", "update"], capture_output=True, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C", "APT_CONFIG": str(HOME / "apt.conf")})
    return done.stderr


def _newer_keys() -> None:
    """The archive's keys of a later Debian, from a suite whose signature is good already."""
    work = HOME / "keyring"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    _ask("sh", "-c", 'cd "$0" && APT_CONFIG="$1" apt-get -q download debian-archive-keyring'
         ' && dpkg-deb -x debian-archive-keyring_*.deb .', str(work), str(HOME / "apt.conf"))
    found = work / "usr" / "share" / "keyrings" / "debian-archive-keyring.gpg"
    shutil.copyfile(found.resolve(), NEWER_KEYRING)
    shutil.rmtree(work)


def number(release: str) -> tuple[int, ...]:
    """The numbers of a release or version, to sort by; those of its flavour are none."""
    bare = re.sub(r"-(?:[a-z]+-)?(?:amd64|arm64)(?:-\w+)*$", "", release)
    return tuple(map(int, re.findall(r"\d+", bare)))


def newest(version: str, flavour: str = "amd64") -> str:
    """Release of the newest kernel of a version, in Debian's flavour (``rt-amd64``, ``arm64-16k``).
    Raises NoPackage."""
    update(only_stale=True)
    shape = re.compile(re.escape(f"linux-image-{version}.")
                       + r"\d+(-\d+|\+[a-z0-9.]+)-" + re.escape(flavour))
    names = _apt("apt-cache", "pkgnames", f"linux-image-{version}.").split()
    found = sorted((name for name in names if shape.fullmatch(name)), key=number, reverse=True)
    for name in found:  # apt also has names that only other packages name
        if versions(name):
            return name.removeprefix("linux-image-")
    raise NoPackage(f"no linux-image-{version}…-{flavour} in the suites of Debian's archive")


def flavour(release: str) -> str:
    """Debian's flavour of a kernel by its release: what follows the version, 7.3.4+deb13-rt-amd64,
    6.1.0-56-amd64."""
    return re.sub(r"^.*?\d(?:-\d+|\+[a-z0-9.]+)-(?=[a-z])", "", release)


def architecture(name: str) -> str | None:
    """The architecture that the name of a kernel or of its package ends with; None if none."""
    found = re.search(r"-(arm64|amd64)(?:-\w+)?$", name)
    return found[1] if found else None


def qualified(package: str) -> str:
    """A package's name with its architecture where that is known."""
    known = architecture(package)
    return f"{package}:{known}" if known and ":" not in package else package


def versions(package: str) -> list[str]:
    """The versions that there are, newest first, as apt prefers."""
    table = _apt("apt-cache", "madison", qualified(package))
    return [line.split("|")[1].strip() for line in table.splitlines() if "Packages" in line]


def fetch(folder: Path, packages: Sequence[str]) -> list[Path]:
    """Fetch packages into a folder; their files in the order asked for. Raises NoPackage."""
    update(only_stale=True)
    files = []
    for package in packages:
        before = set(folder.glob("*.deb"))
        script = 'cd "$0" && APT_CONFIG="$1" apt-get -q download "$2"'
        words = ("sh", "-c", script, str(folder), str(HOME / "apt.conf"), qualified(package))
        try:
            _ask(*words)
        except NoPackage:  # the archive has moved on since the lists were fetched
            update()
            _ask(*words)
        files += set(folder.glob("*.deb")) - before
    return files


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Packages from Debian's archive.",
                                     usage=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("what", choices=("newest", "version", "fetch", "mirror", "config"))
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    try:
        if args.what == "newest":
            print(newest(*args.words))
        elif args.what == "version":
            update(only_stale=True)
            found = versions(args.words[0])
            if not found:
                raise NoPackage(f"no {args.words[0]} in the suites of Debian's archive")
            print(max(found, key=number))
        elif args.what == "fetch":
            for path in fetch(Path(args.words[0]).resolve(), args.words[1:]):
                print(path)
        elif args.what == "mirror":
            print(mirrors()[0])
        else:
            update(only_stale=True)
            print(HOME / "apt.conf")
    except NoPackage as error:
        print(f"debian-packages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
