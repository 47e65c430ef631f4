"""Three boots by systemd: install the unit; with page_owner=on tracking is on; without, it is off.

The units of one round lie in the folder ``units`` of the results and are those of the next.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

UNITS = Path("/etc/systemd/system")
UNIT, LINK = UNITS / "pageowner.service", UNITS / "sysinit.target.wants" / "pageowner.service"
KEPT = Path("units")
DEPLOY = Path(__file__).resolve().parents[3] / "deploy" / "systemd"
PAGEOWNER = Path(sys.executable).with_name("pageowner")


def run(*words: str, status: int = 0) -> str:
    """What pageowner prints, shown as well."""
    print(f"\n# pageowner {' '.join(words)}", flush=True)
    done = subprocess.run([PAGEOWNER, *words], capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr, end="", flush=True)
    assert done.returncode == status, f"exit status {done.returncode}, not {status}"
    return done.stdout + done.stderr


def state() -> dict[str, Any]:
    """How tracking stands."""
    done = subprocess.run([PAGEOWNER, "status", "--json"], capture_output=True, text=True,
                          check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def shown(*names: str) -> dict[str, str]:
    """What systemd knows of the unit."""
    done = subprocess.run(["systemctl", "show", "pageowner.service", f"-p{','.join(names)}"],
                          capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def install() -> None:
    """Round 1: nothing is there; then the unit is, and enabled, and only that."""
    before = set(UNITS.rglob("*"))
    assert not state()["on"]
    assert "tracking did not begin at boot" in run("off", "--at-boot")
    said = run("on", "--at-boot", "--depth", "20")
    assert "page_owner=on is not there now" in said
    assert set(UNITS.rglob("*")) - before == {UNIT, LINK, LINK.parent}
    found = shown("UnitFileState", "LoadState", "ActiveState")
    assert found == {"UnitFileState": "enabled", "LoadState": "loaded", "ActiveState": "inactive"}
    assert not state()["on"]
    assert state()["at_boot"]
    # changed by somebody, it is theirs
    text = UNIT.read_text()
    UNIT.write_text(text.replace("5min", "9min"))
    for words in (["off", "--at-boot"], ["on", "--at-boot"]):
        assert "was changed since pageowner wrote it" in run(*words, status=1)
    UNIT.write_text(text)
    run("on", "--at-boot", "--depth", "20")
    assert UNIT.read_text() == text
    shutil.copytree(UNITS, KEPT, symlinks=True)


def services() -> None:
    """The units of deploy/ do their work, without being started again."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/var/lib"], check=True)
    names = [f"pageowner-{name}.service" for name in ("record", "serve")]
    for name in names:
        # installed where the project is, which may be someone's home
        text = (DEPLOY / name).read_text().replace("/usr/local/bin/pageowner", str(
            PAGEOWNER)).replace("ProtectHome=yes\n", "").replace(
                "[Service]\n", f"[Service]\nStandardError=append:/run/{name}.log\n")
        (Path("/run/systemd/system") / name).write_text(text)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", *names], check=True)
    until, answer = time.monotonic() + 180, b""
    while time.monotonic() < until and not (answer and list(Path("/var/lib/pageowner").glob(
            "*.parquet"))):
        time.sleep(1)
        with suppress(OSError), urllib.request.urlopen(
                "http://127.0.0.1:9463/metrics", timeout=30) as page:
            answer = page.read()
    for name in names:
        found = subprocess.run(["systemctl", "show", name, "-pActiveState,NRestarts"],
                               capture_output=True, text=True, check=True).stdout
        said = subprocess.run(["systemctl", "status", "--no-pager", name], capture_output=True,
                              text=True, check=False).stdout
        print(said, Path(f"/run/{name}.log").read_text(), sep="\n")
        assert sorted(found.split()) == ["ActiveState=active", "NRestarts=0"], name
    assert b"\npageowner_" in answer
    assert list(Path("/var/lib/pageowner").glob("*.parquet"))
    subprocess.run(["systemctl", "stop", *names], check=True)


def with_the_word() -> None:
    """Round 2: tracking is on since early in the boot, with the options that were given."""
    found = shown("ActiveState", "ConditionResult", "ExecMainStartTimestampMonotonic",
                  "ExecMainExitTimestampMonotonic", "ExecMainStatus")
    print(found)
    assert found["ActiveState"] == "active", run("doctor")
    assert found["ConditionResult"] == "yes"
    status = state()
    assert status["on"]
    assert status["options"]["depth"] == 20
    text = run("status")
    assert re.search(r"^early +[0-9.]+ % of the pages in use", text, re.MULTILINE)
    sysinit = subprocess.run(
        ["systemctl", "show", "sysinit.target", "-pActiveEnterTimestampMonotonic", "--value"],
        capture_output=True, text=True, check=True).stdout
    assert int(found["ExecMainExitTimestampMonotonic"]) <= int(sysinit)
    pages, early = status["pages"], status["facts"]["early_pages"]
    Path("at_boot.json").write_text(json.dumps({
        "began_s": int(found["ExecMainStartTimestampMonotonic"]) / 1e6,
        "on_s": status["since_ns"] / 1e9, "early_at_start": early, "pages": pages}))
    print(f"\n{early:,} pages were early at {status['since_ns'] / 1e9:.1f} s after boot;"
          f" now {pages['early']:,} of {sum(pages.values()):,} in use")
    run("report", "--by", "subsystem", "--top", "4")
    services()
    run("off", "--at-boot")
    assert not UNIT.exists()
    assert not LINK.is_symlink()
    assert state()["on"], "off --at-boot leaves tracking as it is"
    run("off")


def without_the_word() -> None:
    """Round 3: the unit is there, its condition is not met."""
    found = shown("ActiveState", "ConditionResult", "UnitFileState")
    print(found)
    assert found == {"ActiveState": "inactive", "ConditionResult": "no", "UnitFileState": "enabled"}
    assert not state()["on"]
    assert "not in this boot" in run("status")


def main() -> None:
    """One round, by the kernel's command line."""
    number = re.search(r"po_round=(\d)", Path("/proc/cmdline").read_text())
    assert number
    (install, with_the_word, without_the_word)[int(number[1]) - 1]()


main()
