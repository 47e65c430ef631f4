"""Debian's Prometheus scrapes a live `serve` under load, with the rules of `deploy/prometheus` as
they are.

    prometheus.py [QUIET [LEAK]]

Needs root and `prometheus`, and turns tracking on for as long as it runs. For the first
QUIET seconds (900, longer than an alert of a leak waits) nothing leaks beneath the load; then pipes
do, 1 MiB a second, until the alert fires that names them, at most LEAK seconds (900). Prints what
was scraped, what failed, the cost of scrapes, and which alerts waited and fired when. Exit status 1
if a scrape failed, a series is missing, an alert of a leak fired early or of another leak than that
of the pipes, or none did. Alerts of other things are only printed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, cpu, need_tracking, skip

HERE = Path(__file__).resolve().parent
PAGEOWNER = ROOT / ".venv/bin/pageowner"
SERVE, PROMETHEUS = 19463, 19090
SCRAPE_S = 5
WINDOW_S = 120
RATE = 1 << 20
"""Bytes a second."""


def config(folder: Path) -> Path:
    """Prometheus's."""
    (folder / "prometheus.yml").write_text(f"""
global: {{scrape_interval: {SCRAPE_S}s, evaluation_interval: {SCRAPE_S}s}}
rule_files: [{ROOT}/deploy/prometheus/pageowner.rules.yml]
scrape_configs:
  - job_name: pageowner
    static_configs: [{{targets: ["127.0.0.1:{SERVE}"]}}]
""")
    return folder / "prometheus.yml"


def ask(path: str, **words: str) -> Any:
    """Prometheus's answer."""
    address = f"http://127.0.0.1:{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(words)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)["data"]


def value(query: str) -> float:
    """The one value of a query."""
    (row,) = ask("query", query=query)["result"]
    return float(row["value"][1])


def names() -> set[str]:
    """What `/metrics` has now."""
    request = urllib.request.Request(f"http://127.0.0.1:{SERVE}/metrics",
                                     headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}


def alerts() -> dict[tuple[str, str], str]:
    """The alerts there are, by name and of what they speak, that of a leak once for each owner, and
    their states."""
    return {(alert["labels"]["alertname"],
             re.sub(r" leaks .*", " leaks", alert["annotations"]["summary"])): alert["state"]
            for alert in ask("alerts")["alerts"]}


Seen = dict[tuple[str, str], dict[str, float]]
"""When each alert, by name and of what it speaks, was first in each state, in seconds."""


def wrong(seen: Seen, quiet: float) -> list[str]:
    """What may not be among the alerts of leaks where pipes leak from ``quiet`` on: a line each.

    `MemoryLeakFillsMemory` names no owner: it may fire, but not before there is a leak.
    """
    fired = [(name, text, states["firing"]) for (name, text), states in seen.items()
             if name.startswith("MemoryLeak") and "firing" in states]
    lines = [f"{name} fired early: {text}" for name, text, after in fired if after < quiet]
    ours = [text for name, text, _ in fired if name == "MemoryLeak"]
    lines += [f"fired of another leak: {text}" for text in ours if "pipe" not in text]
    if not any("pipe" in text for text in ours):
        lines.append("no alert of the leak fired")
    return lines


class Watch:
    """Looks once a second: when each alert first waited, and first fired, in seconds."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seen: Seen = {}

    def fired(self, name: str) -> bool:
        """Whether an alert of this name has."""
        return any(alert == name and "firing" in states
                   for (alert, _), states in self.seen.items())

    def until(self, end: float, done: Callable[[], bool] = lambda: False) -> float:
        """Look until ``end`` or until it is done; the seconds by then."""
        while (now := time.monotonic() - self.began) < end and not done():
            for alert, state in alerts().items():
                self.seen.setdefault(alert, {}).setdefault(state, now)
            time.sleep(1)
        return now


def main() -> int:
    quiet, most = (float(word) for word in (sys.argv[1:] + ["900", "900"][len(sys.argv) - 1:]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = [
            subprocess.Popen([sys.executable, HERE / "mixed_load.py",
                              str(int(quiet + most + 60))],
                             stdout=subprocess.DEVNULL),
            subprocess.Popen([PAGEOWNER, "serve", "--listen", f"127.0.0.1:{SERVE}", "--every",
                              "5s", "--window", f"{WINDOW_S}s"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        try:
            time.sleep(10)
            started.append(subprocess.Popen(
                ["prometheus", f"--config.file={config(folder)}",
                 f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
                 f"--storage.tsdb.path={folder}/data"], stderr=subprocess.DEVNULL))
            time.sleep(10)
            before, watch = cpu(started[1].pid), Watch()
            watch.until(quiet)
            with subprocess.Popen([sys.executable, HERE / "leaking.py", "pipes", str(RATE)],
                                  stdin=subprocess.PIPE) as leak:
                seconds = watch.until(quiet + most, lambda: watch.fired("MemoryLeak"))
                missing = names() - set(ask("label/__name__/values"))
                rounds = f"[{int(seconds)}s]"
                scrapes = value(f'count_over_time(up{{job="pageowner"}}{rounds})')
                good = value(f'sum_over_time(up{{job="pageowner"}}{rounds})')
                slowest = value(f'max_over_time(scrape_duration_seconds{rounds})')
                mean = value(f'avg_over_time(scrape_duration_seconds{rounds})')
                series = value('max_over_time(scrape_samples_scraped[1m])')
                (target,) = ask("targets")["activeTargets"]
                leak.communicate()
            spent = cpu(started[1].pid) - before
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(timeout=60)
    print(f"{scrapes:.0f} scrapes in {seconds:.0f} s, {scrapes - good:.0f} failed"
          f" ({target['lastError'] or 'no error'}); {series:.0f} samples, {len(missing)} names"
          f" missing; answered in {1000 * mean:.0f} ms, {1000 * slowest:.0f} ms at most;"
          f" serve took {100 * spent / seconds:.1f} % of one CPU with a look every 5 s")
    for (name, text), states in watch.seen.items():
        print(f"{name}: {text}: "
              + ", ".join(f"{state} from {after:.0f} s" for state, after in states.items()))
    lines = wrong(watch.seen, quiet)
    print("".join(f"wrong: {line}\n" for line in lines), end="")
    return int(scrapes != good or bool(missing) or bool(lines))


if __name__ == "__main__":
    need_tracking()
    if not shutil.which("prometheus"):
        skip("sudo apt-get install prometheus")
    subprocess.run([PAGEOWNER, "on"], check=True)
    try:
        code = main()
    finally:
        subprocess.run([PAGEOWNER, "off"], check=True)
    sys.exit(code)
