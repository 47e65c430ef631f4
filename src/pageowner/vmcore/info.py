"""VMCOREINFO: what a kernel says of itself to whoever reads its memory (kernel/vmcore_info.c,
before 6.9 kernel/crash_core.c; Documentation/admin-guide/kdump/vmcoreinfo.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["VmcoreInfo", "parse"]

_LINE = re.compile(r"^(SYMBOL|NUMBER|LENGTH|SIZE|OFFSET)\(([^)\s]{1,128})\)=([0-9a-fA-Fx-]{1,32})$")
_BASES = {"SYMBOL": 16}


@dataclass(frozen=True)
class VmcoreInfo:
    """``values``: its plain lines (``OSRELEASE``, ``PAGESIZE``, ``CRASHTIME``); ``symbols``:
    addresses by name; ``numbers`` those of NUMBER()."""

    values: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` has it."""
        return self.values.get("OSRELEASE", "")

    @property
    def page_size(self) -> int:
        """Bytes of a page; 0 if the text does not have it."""
        text = self.values.get("PAGESIZE", "")
        size = int(text) if text.isdigit() and len(text) < 8 else 0
        return size if size and size & (size - 1) == 0 else 0

    @property
    def crash_time(self) -> int | None:
        """Seconds since 1970 when the kernel died; None if it did not (yet)."""
        text = self.values.get("CRASHTIME", "")
        return int(text) if text.isdigit() and len(text) < 16 else None


def parse(text: str) -> VmcoreInfo:
    """The lines that are as they should be; others are left out."""
    found = VmcoreInfo()
    tables = {"SYMBOL": found.symbols, "NUMBER": found.numbers}
    for line in text.splitlines():
        if match := _LINE.match(line):
            table = tables.get(match[1])
            try:
                number = int(match[3], _BASES.get(match[1], 10 if "x" not in match[3] else 16))
            except ValueError:
                continue
            if table is not None:
                table[match[2]] = number & (1 << 64) - 1 if match[1] == "SYMBOL" else number
        elif "=" in line and "(" not in line.partition("=")[0]:
            name, _, value = line.partition("=")
            found.values[name] = value
    return found
