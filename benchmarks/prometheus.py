"""Debian's Prometheus scrapes a live `serve` for minutes, under load.

    prometheus.py [SECONDS]

Needs root, `prometheus` and `promtool`, and turns tracking on for as long as it runs. The rules of
`deploy/prometheus` are loaded as they are, but for the minutes that an alert waits. For the first
half nothing leaks beneath the load; then pipes do, 4 MiB a second. Prints what was scraped, what
failed, the cost of scrapes, and which alerts fired when. Exit status 1 if a scrape failed, a series
is missing, an alert of a leak fired early, or none did.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from common import ROOT

HERE = Path(__file__).resolve().parent
PAGEOWNER = ROOT / ".venv/bin/pageowner"
SERVE, PROMETHEUS = 19463, 19090
SCRAPE_S = 5


def config(folder: Path) -> Path:
    """Prometheus's, and the rules without their waits."""
    rules = (ROOT / "deploy/prometheus/pageowner.rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"^ +for: .*\n", "", rules, flags=re.MULTILINE))
    (folder / "prometheus.yml").write_text(f"""
global: {{scrape_interval: {SCRAPE_S}s, evaluation_interval: {SCRAPE_S}s}}
rule_files: [rules.yml]
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


def cpu(pid: int) -> float:
    """CPU seconds of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu(int(child)) for child in children)


def firing() -> dict[str, str]:
    """Alerts that fire, and what they say."""
    return {alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in ask("alerts")["alerts"] if alert["state"] == "firing"}


def watch(until: float, seen: dict[str, tuple[float, str]], began: float) -> None:
    while time.monotonic() < until:
        for name, text in firing().items():
            seen.setdefault(name, (time.monotonic() - began, text))
        time.sleep(1)


def main() -> int:
    seconds = float(sys.argv[1]) if sys.argv[1:] else 300.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = [
            subprocess.Popen([sys.executable, HERE / "mixed_load.py", str(int(seconds))],
                             stdout=subprocess.DEVNULL),
            subprocess.Popen([PAGEOWNER, "serve", "--listen", f"127.0.0.1:{SERVE}", "--every",
                              "5s", "--window", "2m"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
        try:
            time.sleep(10)
            started.append(subprocess.Popen(
                ["prometheus", f"--config.file={config(folder)}",
                 f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
                 f"--storage.tsdb.path={folder}/data"], stderr=subprocess.DEVNULL))
            time.sleep(10)
            before, began = cpu(started[1].pid), time.monotonic()
            seen: dict[str, tuple[float, str]] = {}  # the first of each alert
            watch(began + seconds / 2, seen, began)
            with subprocess.Popen([sys.executable, HERE / "leaking.py", "pipes", str(4 << 20)],
                                  stdin=subprocess.PIPE) as leak:
                watch(began + seconds, seen, began)
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
    for name, (after, text) in seen.items():
        print(f"{name} fired after {after:.0f} s: {text}")
    early = "MemoryLeak" in seen and seen["MemoryLeak"][0] < seconds / 2
    return int(scrapes != good or bool(missing) or early or "MemoryLeak" not in seen)


if __name__ == "__main__":
    subprocess.run([PAGEOWNER, "on"], check=True)
    try:
        code = main()
    finally:
        subprocess.run([PAGEOWNER, "off"], check=True)
    sys.exit(code)
