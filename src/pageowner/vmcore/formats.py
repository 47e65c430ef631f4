"""Which files are images of a kernel's memory, by their first bytes, and which only look so.

ELF: Documentation/admin-guide/kdump/kdump.rst and QEMU's dump-guest-memory; makedumpfile's
compressed format: IMPLEMENTATION of makedumpfile (struct disk_dump_header, ``KDUMP   ``), which
QEMU writes too; its flattened form (makedumpfile -F) begins with ``makedumpfile``.
"""

from __future__ import annotations

__all__ = ["KDUMP", "looks_so", "why_not"]

_ELF, _CORE = b"\x7fELF", 4
"""ET_CORE."""
KDUMP = b"KDUMP   "
_OLD = b"DISKDUMP"
_FLAT = b"makedumpfile\0\0\0\0"
_CLASS64, _LITTLE = 2, 1
_MACHINES = {62: "x86-64", 183: "arm64", 243: "riscv64", 258: "loongarch64", 21: "ppc64"}
_NAMES = {3: "i386", 40: "arm", 22: "s390"}
_LIVE = "a 64-bit little-endian kernel's"


def looks_so(head: bytes) -> bool:
    """Whether a file that begins so is to be read as an image of memory, or is one that cannot
    be."""
    if head.startswith((KDUMP, _OLD, _FLAT)):
        return True
    return head.startswith(_ELF) and len(head) >= 18 and _CORE in (
        int.from_bytes(head[16:18], "little"), int.from_bytes(head[16:18], "big"))


def why_not(head: bytes) -> str:
    """Why an image that begins so cannot be read; empty if it may be."""
    if head.startswith(_OLD):
        return "is in the format diskdump, which kernels have not written since kdump"
    if head.startswith(_ELF):
        machine = int.from_bytes(head[18:20], "little" if head[5] == _LITTLE else "big")
        named = _MACHINES.get(machine) or _NAMES.get(machine) or f"ELF machine {machine}"
        if head[4] != _CLASS64 or head[5] != _LITTLE:
            return f"is of another kind of machine ({named}); {_LIVE} memory can be read"
        if machine not in _MACHINES:
            return f"is of a machine that is not known here ({named})"
    return ""
