"""clocks.py: `record` while the clock is set forward and back, the guest is suspended, the disk is
full and it is killed.

Writes clocks.json. Exit status 0 if captures went on after each of these, all that are there can be
read, and no more was lost than what was being written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pageowner.storage import series

FOLDER = Path("/run/recorded")
"""A tmpfs of its own, so that it can be full."""
EVERY_S, MORE, PATIENCE_S = 2, 3, 120
HOUR = 3600
SLEPT_S = 8


def pageowner(*words: str | os.PathLike[str]) -> str:
    return subprocess.run([sys.executable, "-m", "pageowner", *words], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def captures() -> set[str]:
    return {path.name for path in FOLDER.glob("captures/*.parquet") if path.name[0] != "."}


def wait_for(number: int) -> None:
    """Until there are so many captures more."""
    before, until = captures(), time.monotonic() + PATIENCE_S
    while len(captures() - before) < number:
        if time.monotonic() > until:
            raise SystemExit(f"no {number} captures within {PATIENCE_S} s")
        time.sleep(0.2)


def set_clock(seconds: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def suspend() -> None:
    """Have the host stop this guest for a while (`boot._ended`)."""
    asked = Path("pause")
    asked.write_text(str(SLEPT_S))
    while asked.exists():
        time.sleep(0.2)


def fill_the_disk() -> None:
    """Nothing can be written for the time of some captures."""
    with (FOLDER / "full").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    before = captures()
    time.sleep(3 * EVERY_S + 5)
    if captures() != before:
        raise SystemExit("the disk was not full")
    (FOLDER / "full").unlink()


def main() -> int:
    FOLDER.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "none", FOLDER], check=True)
    pageowner("on")
    said = Path("said.txt")
    with said.open("w") as file:
        recorder = subprocess.Popen(
            [sys.executable, "-m", "pageowner", "record", FOLDER / "captures", "--every",
             f"{EVERY_S}s", "--keep", "1h"], stdout=file, stderr=file)
    found: dict[str, object] = {}
    events: dict[str, Callable[[], None]] = {
        "nothing": lambda: None, "two hours forward": lambda: set_clock(2 * HOUR),
        "four hours back": lambda: set_clock(-4 * HOUR), "right again": lambda: set_clock(2 * HOUR),
        "suspended": suspend, "disk full": fill_the_disk}
    for name, event in events.items():
        there, began = captures(), time.monotonic()
        event()
        took = time.monotonic() - began
        wait_for(MORE)
        lost = sorted(there - captures())
        found[name] = {"before": len(there), "after": len(captures()), "lost": lost,
                       "seconds": round(took, 1)}
        print(name, found[name], flush=True)
        if lost or recorder.poll() is not None:
            print(said.read_text())
            return 1
    recorder.kill()
    recorder.wait()
    pages = [series.read(FOLDER / "captures" / name).pages for name in sorted(captures())]
    found["pages"] = [min(pages), max(pages)]
    pageowner("leaks", FOLDER / "captures", "--json")
    # What a killed one left is cleared by the next.
    wait = captures()
    pageowner("record", FOLDER / "captures", "--every", f"{EVERY_S}s", "--keep", "1h", "--count",
              "2")
    left = [path.name for path in (FOLDER / "captures").iterdir() if path.name[0] == "."]
    found["killed"] = {"before": len(wait), "after": len(captures()), "left": left}
    print(found["killed"])
    print(said.read_text())
    Path("clocks.json").write_text(json.dumps(found, indent=1))
    return int(bool(left) or not wait <= captures())


if __name__ == "__main__":
    sys.exit(main())
