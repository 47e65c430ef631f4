#!/usr/bin/env python3
"""Fetch Debian's own kernel of a version and unpack it into the cache, once; nothing is installed.

    stock_kernel.py [--cached] VERSION [FLAVOUR]     7.3, 6.12 …; amd64, rt-amd64, arm64, arm64-16k

Its 9p and virtio drivers are modules, so a small initramfs that loads them (``initramfs-init``) is
made too. Prints the folder that holds bzImage (arm64: Image), System.map, config, release, initrd,
lib/modules.
With ``--cached`` nothing is fetched or installed: exit status 3 if the kernel is not in the cache.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import debian_packages
from debian_packages import CACHE, NoPackage
from machines import MACHINES

HERE = Path(__file__).resolve().parent
KERNELS = CACHE / "kernels"
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
LOAD_MODULES = ("zram", "xfs", "loop", "veth", "dummy", "virtio_balloon", "virtio_console")
"""What the loads ask for; the other modules (hundreds of MB) are not kept."""
RECIPE = hashlib.sha256("\n".join((  # a change in how the folder is made: count this up
    "3", *BOOT_MODULES, *LOAD_MODULES, (HERE / "initramfs-init").read_text())).encode()
).hexdigest()[:6]
NOT_CACHED = 3


def say(text: str) -> None:
    print(f"stock-kernel: {text}", file=sys.stderr)


def cached(version: str, flavour: str) -> Path | None:
    """The newest such kernel in the cache."""
    found = [path for path in KERNELS.glob(f"{version}-stock-{version}.*-{flavour}-{RECIPE}")
             if (path / "release").exists()
             and debian_packages.flavour(path.name.removesuffix(f"-{RECIPE}")) == flavour]
    return max(found, key=lambda path: debian_packages.number(path.name), default=None)


def obtain(version: str, flavour: str) -> Path:
    """The newest such kernel of Debian's archive, out of the cache if it is there; what is in the
    cache if the archive cannot be asked. Raises NoPackage."""
    try:
        release = debian_packages.newest(version, flavour)
    except NoPackage as error:
        found = cached(version, flavour)
        if not found:
            raise
        say(f"{error}; there is {found.name} in the cache")
        return found
    final = KERNELS / f"{version}-stock-{release}-{RECIPE}"
    if (final / "release").exists():
        return final
    require_tools()
    KERNELS.mkdir(parents=True, exist_ok=True)
    with (KERNELS / f".{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (final / "release").exists():
            with tempfile.TemporaryDirectory(prefix=".stock-", dir=KERNELS) as work:
                start = time.monotonic()
                out = make(release, Path(work))
                (out / "build-seconds").write_text(f"{time.monotonic() - start:.0f}\n")
                out.rename(final)
            say(f"unpacked {release} in {(final / 'build-seconds').read_text().strip()} s")
    return final


def require_tools() -> None:
    """Install what unpacks modules where it is missing. Raises NoPackage."""
    def there() -> bool:
        return os.access("/sbin/depmod", os.X_OK) and all(
            shutil.which(tool) for tool in ("cpio", "zstd", "dpkg-deb"))

    if not there():
        say("installing kmod cpio zstd")
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        for step in (("update",), ("install", "-y", "--no-install-recommends", "kmod", "cpio",
                                   "zstd")):
            subprocess.run([*root, "apt-get", "-q", *step], capture_output=True, check=False)
    if not there():
        raise NoPackage("could not install; run: sudo apt-get install kmod cpio zstd")


def packages(release: str) -> list[str]:
    """A kernel's packages: one until 6.18, from 6.19 on (Debian's own split) the image, its modules
    and its configuration in one each."""
    parts = [f"linux-{part}-{release}" for part in ("binary", "modules", "base")]
    split = [name for name in parts if debian_packages.versions(name)]
    return split or [f"linux-image-{release}"]


def make(release: str, work: Path) -> Path:
    """Fetch and unpack into a folder; the folder that is to be kept. Raises NoPackage."""
    tree, out, initramfs = (work / name for name in ("tree", "out", "initramfs"))
    for folder in (tree, out, initramfs):
        folder.mkdir()
    out.chmod(0o755)
    names = packages(release)
    say(f"fetching {' '.join(names)}")
    busybox = f"busybox-static:{debian_packages.architecture(release)}"
    *debs, shell = debian_packages.fetch(work, [*names, busybox])
    for deb in debs:
        run("dpkg-deb", "-x", deb, tree)
        deb.unlink()
    run("dpkg-deb", "-x", shell, initramfs)
    shutil.rmtree(initramfs / "usr" / "share", ignore_errors=True)
    modules = tree / "lib" / "modules" / release
    if not modules.exists():
        modules.parent.mkdir(parents=True, exist_ok=True)
        (tree / "usr" / "lib" / "modules" / release).rename(modules)
    run("/sbin/depmod", "-b", tree, release)
    image = next(machine.image for machine in MACHINES
                 if machine.architecture == debian_packages.architecture(release))
    for name in ("vmlinuz", "System.map", "config"):
        # beside the modules since linux-binary-… and linux-base-… have them
        boot = tree / "boot" / f"{name}-{release}"
        shutil.copyfile(boot if boot.exists() else modules / name,
                        out / (image if name == "vmlinuz" else name))

    # the named modules and what they need, unpacked so that any insmod reads them
    kept, loaded = out / "lib" / "modules" / release, initramfs / "modules"
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        (kept / "kernel").mkdir(parents=True, exist_ok=True)
        if (modules / name).exists():
            shutil.copyfile(modules / name, kept / name)
    loaded.mkdir()
    order = [copy(path, loaded) for name in BOOT_MODULES for path in needed(tree, release, name)]
    (loaded / "order").write_text("".join(f"{name}\n" for name in dict.fromkeys(order)))
    for module in BOOT_MODULES + LOAD_MODULES:
        for path in needed(tree, release, module):
            copy(path, kept / "kernel")
    run("/sbin/depmod", "-b", out, release)

    for name in ("bin", "dev", "proc", "newroot"):
        (initramfs / name).mkdir(exist_ok=True)
    if not (initramfs / "bin" / "busybox").exists():  # under /usr in newer suites
        (initramfs / "usr" / "bin" / "busybox").rename(initramfs / "bin" / "busybox")
    shutil.copyfile(HERE / "initramfs-init", initramfs / "init")
    (initramfs / "init").chmod(0o755)
    archive = subprocess.run("find . | cpio --quiet -o -H newc -R 0:0", shell=True, cwd=initramfs,
                             stdout=subprocess.PIPE, check=True).stdout
    (out / "initrd").write_bytes(gzip.compress(archive, 1))
    (out / "release").write_text(f"{release}\n")
    return out


def run(*command: str | Path) -> str:
    """What a tool prints. Raises NoPackage if it fails, with its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise NoPackage(f"{command[0]}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def needed(tree: Path, release: str, module: str) -> list[Path]:
    """Files of a module and of all that it needs, in the order of loading."""
    said = run("/sbin/modprobe", "-d", tree, "-S", release, "--show-depends", module)
    return [Path(line.split()[1]) for line in said.splitlines() if line.startswith("insmod ")]


def copy(path: Path, folder: Path) -> str:
    """Unpack a module into a folder; the name it has there."""
    packed = path.read_bytes()
    if path.suffix == ".xz":
        packed, path = lzma.decompress(packed), path.with_suffix("")
    elif path.suffix == ".zst":
        packed = subprocess.run(["zstd", "-dcq"], input=packed, stdout=subprocess.PIPE,
                                check=True).stdout
        path = path.with_suffix("")
    (folder / path.name).write_bytes(packed)
    return path.name


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fetch and unpack Debian's own kernel.")
    parser.add_argument("--cached", action="store_true", help="only what is in the cache")
    parser.add_argument("version", help="7.3, for example")
    parser.add_argument("flavour", nargs="?", default="amd64", help="rt-amd64, for example")
    args = parser.parse_args()
    try:
        found = (cached if args.cached else obtain)(args.version, args.flavour)
    except NoPackage as error:
        say(str(error))
        return 1
    if not found:
        say(f"{args.version} ({args.flavour}) is not in the cache, {KERNELS}")
        return NOT_CACHED
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
