#!/usr/bin/env python3
"""Boot a kernel under QEMU with this machine's file system as its root and run one command in it.

The root is shared read-only over 9p, so Python, the virtual environment and the project are all
there under their own paths. A kernel of another architecture has a root of its own
(``guest_root.py``); in it, the project and the kernel's folder have their own paths too, and the
virtual environment's path leads to one of that architecture.

The command runs as root in ``/mnt/out``, which is the folder OUT of the host, writable. Afterwards
OUT holds ``job.log`` (what the command printed), ``job.status``, ``console.log`` (what the kernel
printed) and whatever the command wrote.

KERNEL is a folder made by ``build-kernel`` or ``stock_kernel.py``. Exit status: that of the
command; 1 when the guest failed; 77 when this machine cannot boot guests at all (one line says
why).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import guest_root
import panicked
from debian_packages import NoPackage
from machines import MACHINES, Machine, machine_of

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""Debian's name of this machine's architecture."""
PAUSE = "pause"
"""The file of a guest that asks to be stopped, see `_ended`."""
CANNOT = 77
"""Exit status of a test that this machine cannot run (automake's convention)."""

MONITOR = "pageowner.qmp"
"""Name of the guest's serial port that is QEMU's monitor."""

COMPLAINT = re.compile(
    r"BUG: |Oops: |Kernel panic|general protection fault"
    # kernel/panic.c, __warn(), as it was and since 6.18; lockdep and RCU
    r"|WARNING: (?:CPU|[\w./-]+:\d+ at |possible |inconsistent |suspicious )"
    r"|Out of memory: |Internal error: "  # arm64 says "Internal error" for "Oops"
)


class GuestError(Exception):
    """The guest did not do what it was booted for; one line says how."""


class CannotBoot(Exception):
    """This machine cannot boot guests; one line says why."""


@dataclass(frozen=True)
class Boot:
    """How one guest went."""

    status: int
    """Exit status of the command."""
    seconds: float
    """Wall time from starting QEMU to its end."""
    boot_seconds: float
    """The guest's own uptime when the command started."""
    complaints: tuple[str, ...]
    """Lines of the console in which the kernel reports a fault, an oops or a warning."""
    log: str
    """What the command printed."""


def install(tool: str, package: str) -> bool:
    """Install Debian's package of a tool where that is possible; whether the tool is there now."""
    if not shutil.which(tool) and shutil.which("apt-get"):
        print(f"boot: installing {package}", file=sys.stderr)
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        for step in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run([*root, "apt-get", *step], capture_output=True, check=False)
    return bool(shutil.which(tool))


def require_qemu(machine: Machine = MACHINES[0]) -> None:
    """Install QEMU where that is possible. Raises CannotBoot where it is not."""
    if not install(machine.qemu, machine.package):
        raise CannotBoot(
            f"{machine.qemu} is missing and could not be installed;"
            f" run: apt-get install {machine.package}"
        )


def root_of(machine: Machine, kernel: Path) -> Path:
    """The folder that is a guest's root, with a place in it for each folder that the guest shares.
    Raises CannotBoot where it cannot be made."""
    if machine.architecture == HOST:
        return Path("/")
    try:
        root = guest_root.obtain(machine.architecture)
    except NoPackage as error:
        raise CannotBoot(f"{kernel.name}: no root file system: {error}") from None
    for folder in (PROJECT, kernel):
        (root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
    init = HERE / "guest-root-init"
    if not (root / guest_root.INIT).exists() or (
            (root / guest_root.INIT).read_bytes() != init.read_bytes()):
        shutil.copy(init, root / guest_root.INIT)
    return root


def megabytes(size: str) -> int:
    """``512M``, ``2G`` as a number of MiB."""
    match = re.fullmatch(r"(\d+)([MG])", size)
    if not match:
        raise GuestError(f"memory {size!r}: say for example 512M or 2G")
    return int(match[1]) * (1024 if match[2] == "G" else 1)


def shared(folder: Path, tag: str, readonly: bool = False) -> tuple[str, str]:
    """QEMU's words for a folder that the guest can mount over 9p."""
    rest = ",readonly=on" if readonly else ""
    return ("-virtfs",
            f"local,path={folder},mount_tag={tag},security_model=none,multidevs=remap{rest}")


def qemu_command(
    kernel: Path,
    out: Path,
    *,
    memory: str,
    cpus: int,
    possible_cpus: int,
    nodes: int,
    append: str,
    accel: str,
    counted: bool,
    monitor: Path | None,
    outside: Path | None,
    machine: Machine,
    root: Path,
) -> list[str]:
    """The QEMU command line of a guest; `nodes` NUMA nodes share memory and CPUs evenly,
    also those of `possible_cpus` (if more) that could be plugged in.

    `counted`: the guest's clock counts instructions, a nanosecond each, so that it does not matter
    what else the machine does (and no CPU's caches or pipelines count, either).

    With `monitor`, a path for a socket, the guest has a serial port that is QEMU's own monitor
    (QMP) and four empty slots, so that it can plug memory into itself. With `outside` there is a
    monitor of this host's at that socket, and a panic does not end the guest.
    """
    most = max(cpus, possible_cpus)
    init = HERE / "guest-init"
    if root == Path("/"):
        own = f"init={init} po_python={Path(sys.base_prefix) / 'bin'}"
    else:
        own = (f"init=/{guest_root.INIT} po_init={init} po_shared={PROJECT},{kernel}"
               f" po_venv={sys.prefix} po_source={PROJECT / 'src'} po_python=/usr/bin")
    rootflags = "trans=virtio,version=9p2000.L,msize=262144,cache=loose"
    words = (
        f"console={machine.console} panic={'0' if outside else '-1'} root=root"
        # up to warnings, which are what WARN() prints
        " loglevel=5"
        # on a busy host the kernel's own check of the timer fails
        f" no_timer_check rootfstype=9p rootflags={rootflags} ro po_kernel={kernel}"
        f" po_out={out} {own} {append} "
    )
    command = [
        *(machine.qemu, "-nographic", "-no-reboot", "-nic", "none", *machine.arguments),
        *(("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off") if counted else
          ("-accel", "tcg,thread=multi" if accel == "tcg" else accel)),
        *("-smp", f"{cpus},maxcpus={most}", "-m", f"{megabytes(memory)}M"),
        *("-kernel", str(kernel / machine.image), "-append", words),
        *shared(root, "root", readonly=True),
        *(() if root == Path("/") else shared(Path("/"), "host", readonly=True)),
        *shared(out, "out"),
    ]
    if (kernel / "initrd").exists():
        command += ["-initrd", str(kernel / "initrd")]
    if nodes > 1:
        share = megabytes(memory) // nodes
        command[command.index("-m") + 1] = f"{share * nodes}M"
        for node in range(nodes):
            command += ["-object", f"memory-backend-ram,id=mem{node},size={share}M"]
            mine = [f"cpus={cpu}" for cpu in range(most) if cpu % nodes == node]
            command += ["-numa", ",".join(["node", f"nodeid={node}", f"memdev=mem{node}", *mine])]
    if monitor:
        size = command.index("-m") + 1
        command[size] += f",slots=4,maxmem={2 * megabytes(memory)}M"
        command += [
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=port,path={monitor},server=on,wait=off"),
            *("-device", f"virtserialport,chardev=port,name={MONITOR}"),
            *("-chardev", f"socket,id=monitor,path={monitor}"),
            *("-mon", "chardev=monitor,mode=control"),
        ]
    if outside:
        command += panicked.monitor_words(outside)
    if monitor or outside:
        command += ["-device", "vmcoreinfo"]
    return command


def complaints_in(out: Path) -> tuple[str, ...]:
    """Lines of the console of a guest in which the kernel reports a fault, an oops or a warning."""
    try:
        lines = (out / "console.log").read_text(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.strip() for line in lines if COMPLAINT.search(line))


def _ended(qemu: subprocess.Popen[bytes], pause: Path, timeout: float) -> bool:
    """Wait until the guest ends, and whether it does in time. A guest that writes a number of
    seconds to the file ``pause`` is stopped for so long, as a host suspends one."""
    until = time.monotonic() + timeout
    pause.unlink(missing_ok=True)
    while time.monotonic() < until:
        with suppress(subprocess.TimeoutExpired):
            qemu.wait(0.5)
            return True
        with suppress(OSError, ValueError):
            seconds = float(pause.read_text())
            qemu.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            qemu.send_signal(signal.SIGCONT)
            pause.unlink()
    return False


def boot(
    kernel: Path,
    command: Sequence[str],
    out: Path,
    *,
    memory: str = "2G",
    cpus: int = 2,
    possible_cpus: int = 0,
    nodes: int = 1,
    append: str = "",
    hotplug: bool = False,
    counted: bool = False,
    dies: bool = False,
    timeout: float = 600,
) -> Boot:
    """Boot `kernel`, run `command` in it, wait for the end.

    `append` is added to the kernel's command line; `hotplug` lets the guest plug memory into
    itself, through a serial port named MONITOR that speaks QMP; `counted`: see `qemu_command`;
    `dies`: the command is to end in a panic, after which the memory is dumped into `out`
    (`panicked.FORMATS`): that is status 0. `timeout` is in seconds. The accelerator is QEMU's
    software emulation unless PAGEOWNER_ACCEL names another (``kvm``).

    Raises CannotBoot without QEMU or where a path has a space, GuestError when the guest does not
    reach or end the command.
    """
    kernel, out = kernel.resolve(), out.resolve()
    machine = machine_of(kernel)
    if machine is None or not (kernel / "release").exists():
        raise GuestError(f"{kernel}: no kernel there; see build-kernel and stock_kernel.py")
    for path in (PROJECT, kernel, out, sys.prefix):
        if re.search(r"[\s,]", str(path)):
            raise CannotBoot(f"{path}: a guest takes no path with a space or a comma")
    require_qemu(machine)
    root = root_of(machine, kernel)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("job.log", "job.status", "boot-seconds", *panicked.FORMATS.values()):
        (out / name).unlink(missing_ok=True)
    (out / "command").write_text(f"exec {shlex.join(command)}\n")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as run, (out / "console.log").open("wb") as console:
        qemu = subprocess.Popen(
            qemu_command(
                kernel,
                out,
                memory=memory,
                cpus=cpus,
                possible_cpus=possible_cpus,
                nodes=nodes,
                append=append,
                accel=os.environ.get("PAGEOWNER_ACCEL", "tcg"),
                counted=counted,
                monitor=Path(run) / "monitor" if hotplug and machine.pluggable else None,
                outside=Path(run) / "outside" if dies else None,
                machine=machine,
                root=root,
            ),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
        late = False
        try:
            if not dies:
                late = not _ended(qemu, out / PAUSE, timeout)
            elif panicked.wait(qemu, out / "console.log", Path(run) / "outside", out, timeout):
                (out / "job.status").write_text("0\n")
            else:
                late = qemu.poll() is None
        except OSError as error:
            raise GuestError(f"{kernel.name}: the guest was not dumped: {error}") from error
        finally:
            qemu.kill()
            qemu.wait()
    seconds = time.monotonic() - start
    lines = (out / "console.log").read_text(errors="replace").splitlines()
    complaints = complaints_in(out)
    why = f"; the kernel says: {complaints[0]}" if complaints else ""
    if not (out / "job.log").exists():
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        late_by = f" in {timeout:.0f} s" if late else ""
        raise GuestError(
            f"{kernel.name}: the guest did not start the job{late_by}"
            f"{why or f'; its last words: {last}'} (see {out / 'console.log'})"
        )
    if not (out / "job.status").exists():
        ended = f"not ended after {timeout:.0f} s" if late else "the guest stopped in the middle"
        raise GuestError(f"{kernel.name}: {ended}{why} (see {out / 'job.log'} and console.log)")
    return Boot(
        status=int((out / "job.status").read_text()),
        seconds=seconds,
        boot_seconds=float((out / "boot-seconds").read_text()),
        complaints=complaints,
        log=(out / "job.log").read_text(errors="replace"),
    )


def main() -> int:
    """The command line: boot, show what the job printed, exit as it did."""
    parser = argparse.ArgumentParser(description="Boot a kernel and run one command in it.")
    parser.add_argument("kernel", type=Path, help="folder made by build-kernel or stock_kernel.py")
    parser.add_argument("out", type=Path, help="folder the guest can write: its /mnt/out")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="and its arguments; comes last")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--possible-cpus", type=int, default=0, help="that could be plugged in")
    parser.add_argument("--nodes", type=int, default=1, help="NUMA nodes")
    parser.add_argument("--append", default="", help="more words for the kernel's command line")
    parser.add_argument("--hotplug", action="store_true", help="let the guest plug memory in")
    parser.add_argument("--dies", action="store_true",
                        help="the command ends in a panic; then dump the memory into OUT")
    parser.add_argument("--timeout", type=float, default=600, help="seconds")
    args = parser.parse_args()
    try:
        done = boot(
            args.kernel,
            args.command,
            args.out,
            memory=args.memory,
            cpus=args.cpus,
            possible_cpus=args.possible_cpus,
            nodes=args.nodes,
            append=args.append,
            hotplug=args.hotplug,
            dies=args.dies,
            timeout=args.timeout,
        )
    except CannotBoot as error:
        print(f"boot: {error}", file=sys.stderr)
        return CANNOT
    except GuestError as error:
        print(f"boot: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(done.log)
    for line in done.complaints:
        print(f"boot: the kernel says: {line}", file=sys.stderr)
    took = f"{done.boot_seconds:.0f} s to the job, {done.seconds:.0f} s in all"
    print(f"boot: {took}", file=sys.stderr)
    return done.status


if __name__ == "__main__":
    sys.exit(main())
