"""Debian's Prometheus scrapes a live `serve` for minutes, under load.

    prometheus.py [SECONDS]

Needs root, `prometheus` and `promtool`, and turns tracking on for as long as it runs. The rules of
`deploy/prometheus` are loaded as they are, but for the minutes that an alert waits. For the first
half nothing leaks beneath the load; then pipes do, 4 MiB a second. Prints what was scraped, what
failed, the cost of scrapes, and which alerts fired when. Prometheus itself grows while it fills its
buffers: an alert that names it is right if its memory did grow by then, which is printed. Exit
status 1 if a scrape failed, a series is missing, any other alert of a leak fired early, or none
named the pipes.
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
WINDOW_S = 120
LEAST_GROWN = 4 << 20
"""Bytes by which Prometheus has grown if an alert that names it is right."""


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


def firing() -> list[tuple[str, str]]:
    """Alerts that fire, and of what they speak: that of a leak once for each owner."""
    return [(alert["labels"]["alertname"],
             re.sub(r" leaks .*", " leaks", alert["annotations"]["summary"]))
            for alert in ask("alerts")["alerts"] if alert["state"] == "firing"]


def anonymous(pid: int) -> int:
    """Bytes of a process's own memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kib,) = re.findall(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(kib) << 10


class Watch:
    """Looks once a second: ``seen`` has when each alert fired first, in seconds, and by how much
    Prometheus had grown in the `WINDOW_S` before."""

    def __init__(self, prometheus: int) -> None:
        self.began = time.monotonic()
        self.seen: dict[tuple[str, str], tuple[float, int]] = {}
        self._prometheus = prometheus
        self._sizes = [anonymous(prometheus)]

    def until(self, end: float) -> None:
        while time.monotonic() < self.began + end:
            self._sizes.append(anonymous(self._prometheus))
            for alert in firing():
                grown = self._sizes[-1] - self._sizes[-WINDOW_S:][0]
                self.seen.setdefault(alert, (time.monotonic() - self.began, grown))
            time.sleep(1)


def main() -> int:
    seconds = float(sys.argv[1]) if sys.argv[1:] else 300.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = [
            subprocess.Popen([sys.executable, HERE / "mixed_load.py", str(int(seconds))],
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
            before, watch = cpu(started[1].pid), Watch(started[-1].pid)
            watch.until(seconds / 2)
            with subprocess.Popen([sys.executable, HERE / "leaking.py", "pipes", str(4 << 20)],
                                  stdin=subprocess.PIPE) as leak:
                watch.until(seconds)
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
    wrong, right = False, False
    for (name, text), (after, grown) in watch.seen.items():
        own = "prometheus" in text
        about = f" (it had grown by {grown / 2**20:.1f} MiB)" if own else ""
        print(f"{name} fired after {after:.0f} s: {text}{about}")
        if name == "MemoryLeak":
            wrong |= grown < LEAST_GROWN if own else after < seconds / 2
            right |= "pipe" in text and after >= seconds / 2
    return int(scrapes != good or bool(missing) or wrong or not right)


if __name__ == "__main__":
    subprocess.run([PAGEOWNER, "on"], check=True)
    try:
        code = main()
    finally:
        subprocess.run([PAGEOWNER, "off"], check=True)
    sys.exit(code)
