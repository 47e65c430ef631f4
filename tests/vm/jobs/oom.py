"""oom.py: what `record --on oom` keeps when memory is gone, by many kinds of hogs.

Each hog runs until the kernel kills it, once without us and twice with a recorder beside it. Writes
oom.json. Exit status 0 if each time a capture from before the kill is in the folder and names the
hog first, and the recorder lives.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from oom_hogs import HOGS

ROUNDS = 2
PATIENCE = 120.0
BYSTANDERS = 20
"""Who may be killed while a dead hog gives its memory back: with none left the kernel panics."""
HERE = Path(__file__).resolve().parent


def pageowner(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pageowner", *words], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def available() -> int:
    """MemAvailable in MiB, once it stands still."""
    found = [0, 1 << 30]
    while abs(found[-1] - found[-2]) > 4:
        time.sleep(1)
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) >> 10 for line in lines if "MemAvail" in line))
    return found[-1]


def kills() -> int:
    """How many tasks the kernel has killed for memory."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def run_hog(kind: str) -> dict[str, float]:
    """MiB that a hog had when it was killed, and that there were; the seconds."""
    there, before, began = available(), kills(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100%", "none", folder], check=True)
        hog = subprocess.Popen([sys.executable, HERE / "oom_hogs.py", kind], cwd=folder,
                               stdout=subprocess.PIPE, start_new_session=True)
        assert hog.stdout is not None
        os.set_blocking(hog.stdout.fileno(), False)
        taken = 0
        while kills() == before and hog.poll() is None and time.monotonic() < began + PATIENCE:
            time.sleep(0.1)
            taken += len(hog.stdout.read() or b"")
        seconds = time.monotonic() - began
        with suppress(ProcessLookupError):
            os.killpg(hog.pid, signal.SIGKILL)
        hog.wait()
        subprocess.run(["umount", folder], check=True)
        taken += len(hog.stdout.read() or b"")
    time.sleep(2)
    return {"taken": taken, "available": there, "seconds": round(seconds, 1),
            "kills": kills() - before}


def is_watching(recorder: int) -> bool:
    """Whether its process for events is there, which locks its memory at last."""
    children = Path(f"/proc/{recorder}/task/{recorder}/children").read_text().split()
    statuses = [Path(f"/proc/{child}/status").read_text() for child in children]
    return any(re.search(r"VmLck:\s+[1-9]", status) for status in statuses)


def with_recorder(kind: str, number: int) -> dict[str, object]:
    folder = f"captures-{kind}-{number}"
    recorder = subprocess.Popen(
        ["choom", "-n", "0", "--",  # the usual chance to be killed
         sys.executable, "-m", "pageowner", "record", folder, "--on", "oom", "--every", "1h"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not is_watching(recorder.pid):
        time.sleep(0.5)
        if recorder.poll() is not None:
            raise SystemExit(f"record ended: {recorder.communicate()[0]}")
    found: dict[str, object] = dict(run_hog(kind))
    found["lives"] = recorder.poll() is None
    recorder.send_signal(signal.SIGINT)
    print(recorder.communicate()[0], end="")
    lines = Path(folder, "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if line]
    found["events"] = [f"{event['event']}: {event['text']}" for event in events]
    try:
        rows = json.loads(pageowner("report", folder, "--at", "oom", "--by", "comm", "--json"))
        found["first"] = rows["owners"][0]["comm"]
    except (subprocess.CalledProcessError, LookupError) as error:
        found["first"] = f"none: {error!r}"
    return found


def main() -> int:
    # What a hog had may be given back so late that the next one is killed too.
    Path("/proc/self/oom_score_adj").write_text("-1000")
    for _ in range(BYSTANDERS):
        subprocess.Popen(["choom", "-n", "900", "--", "sleep", "inf"])
    kinds = sys.argv[1:] or list(HOGS)
    found: dict[str, dict[str, object]] = {}
    for kind in kinds:
        found[kind] = {"without": run_hog(kind)}
        print(kind, found[kind], flush=True)
    pageowner("on")
    wrong = []
    for number in range(ROUNDS):
        for kind in kinds:
            mine = found[kind][str(number)] = with_recorder(kind, number)
            print(kind, number, json.dumps(mine), flush=True)
            Path("oom.json").write_text(json.dumps(found, indent=1))
            text = " ".join(mine["events"])
            if (not mine["kills"] or not mine["lives"] or mine["first"] != f"hog-{kind}"
                    or " before" not in text or "captured after" in text):
                wrong.append(f"{kind} {number}")
    pageowner("off")
    print("wrong:", ", ".join(wrong) or "none")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
