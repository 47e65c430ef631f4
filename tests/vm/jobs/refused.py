"""A kernel that cannot be tracked: `pageowner on` says why in one line, and leaves nothing.

Writes refused.json. Exit status 1 if it did otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PINS = Path("/sys/fs/bpf/pageowner")


def pageowner(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "pageowner", *words], check=False,
                          capture_output=True, text=True)
    print(f"# pageowner {' '.join(words)}: exit status {done.returncode}\n{done.stdout}"
          f"{done.stderr}", flush=True)
    return done


def main() -> int:
    """What it says is kept word for word."""
    on = pageowner("on")
    doctor = pageowner("doctor")
    status = pageowner("status")
    lines = on.stderr.splitlines()
    failures = [what for what, wrong in (
        (f"exit status {on.returncode}, not 1", on.returncode != 1),
        (f"{len(lines)} lines on stderr, not one", len(lines) != 1),
        ("the line does not name the kernel", os.uname().release not in on.stderr),
        ("doctor finds nothing wrong", doctor.returncode == 0),
        ("status calls it on", "off" not in status.stdout),
        ("pins are left in bpffs", PINS.exists())) if wrong]
    Path("refused.json").write_text(json.dumps(
        {"kernel": os.uname().release, "refused": on.stderr.strip()}))
    for failure in failures:
        print("FAILED:", failure)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
