"""The machines that QEMU emulates for guests, by Debian's name of their architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What a guest of one architecture is booted with."""

    architecture: str
    qemu: str
    package: str
    """Debian's package of that QEMU."""
    image: str
    """The file of the kernel in its folder; by it a folder's architecture is known."""
    console: str
    arguments: tuple[str, ...]
    pluggable: bool
    """Memory can be plugged in while it runs."""


MACHINES = (
    Machine(
        "amd64", "qemu-system-x86_64", "qemu-system-x86", "bzImage", "ttyS0",
        # as most machines are: 5-level page tables lay out the whole address space otherwise
        ("-cpu", "max,la57=off"),
        pluggable=True,
    ),
    Machine(
        "arm64", "qemu-system-aarch64", "qemu-system-arm", "Image", "ttyAMA0",
        # Return addresses are signed, as on the CPUs of today; with QEMU's own cipher, since the
        # architecture's costs more than all else to emulate. As most machines are, without 52-bit
        # addresses.
        ("-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on,lpa2=off"),
        # QEMU plugs it in by ACPI, which there is with UEFI alone
        pluggable=False,
    ),
)


def machine_for(name: str) -> Machine:
    """The machine of a kernel by its name, such as ``stock-7.3-arm64`` or ``stock-6.1``."""
    return next((machine for machine in MACHINES if f"-{machine.architecture}" in name),
                MACHINES[0])


def machine_of(kernel: Path) -> Machine | None:
    """The machine that a kernel's folder is for; None if there is no kernel in it."""
    return next((machine for machine in MACHINES if (kernel / machine.image).exists()), None)
