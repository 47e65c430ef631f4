"""Which machine this is, and when: what a text of its kernel does not say of itself."""

from __future__ import annotations

import platform
import socket
import time
from pathlib import Path
from typing import Any

__all__ = ["here_and_now"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def here_and_now() -> dict[str, Any]:
    """Host, kernel, boot and moment, by the names that they have in a snapshot's metadata;
    ``clock_ns`` is ns since boot."""
    try:
        boot_id = _BOOT_ID.read_text().strip() or None
    except OSError:
        boot_id = None
    return {"host": socket.gethostname(), "kernel": platform.release(), "boot_id": boot_id,
            "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "clock_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}
