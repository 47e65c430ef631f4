"""A guest that panics and is dumped from outside, as a host's administrator would: by QEMU's
monitor, on a socket of the host's."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from pathlib import Path

DIED = re.compile(rb"---\[ end Kernel panic")
FORMATS = {"elf": "vmcore.elf", "kdump-zlib": "vmcore.kdump"}
"""QEMU's names of formats, and of the files. The second one is made if QEMU has VMCOREINFO for it,
as where the guest loaded qemu_fw_cfg; the first one then has a note of it."""
_NOTES = 1 << 16
_PATIENCE = 300.0


def monitor_words(path: Path) -> list[str]:
    """QEMU's words for a monitor at this socket."""
    return ["-qmp", f"unix:{path},server=on,wait=off"]


def wait(qemu: subprocess.Popen[bytes], console: Path, monitor: Path, out: Path,
         timeout: float) -> bool:
    """Wait for the guest's panic, dump its memory into ``out``, end it. False if it did not panic
    in time, or ended otherwise. Raises OSError if QEMU does not dump."""
    until = time.monotonic() + timeout
    while not DIED.search(console.read_bytes()):
        if time.monotonic() > until or qemu.poll() is not None:
            return False
        time.sleep(0.5)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(monitor))
        with connection.makefile("rwb") as lines:
            lines.readline()  # the greeting
            for command, arguments in (("qmp_capabilities", {}), ("stop", {})):
                _ask(lines, command, arguments)
            for kind, name in FORMATS.items():
                words = {"protocol": f"file:{out / name}", "paging": False}
                _ask(lines, "dump-guest-memory", words | (
                    {} if kind == "elf" else {"format": kind}))
                if not _has_note(out / name):
                    break
            _ask(lines, "quit", {})
    qemu.wait(_PATIENCE)
    return True


def _has_note(dump: Path) -> bool:
    with dump.open("rb") as file:
        return b"VMCOREINFO" in file.read(_NOTES)


def _ask(lines: socket.SocketIO, command: str, arguments: dict[str, object]) -> None:
    """Give a command and wait for its answer. Raises OSError if QEMU refuses."""
    lines.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    lines.flush()
    while True:
        line = lines.readline()
        if not line:
            if command == "quit":
                return
            raise OSError(f"QEMU ended at {command}")
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(f"QEMU refuses {command}: {answer['error']}")
        if "return" in answer:
            return
