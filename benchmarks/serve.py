"""What ``pageowner serve`` of this machine costs: idle, and for each scrape of /metrics.

    serve.py [SECONDS] [SCRAPES]

As root; turns tracking on for as long as it runs, if it is off. The targets: idle, 0.2 % of one CPU
and 80 MB; a scrape, 50 ms of CPU and 200 ms by the clock.
"""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, cpu, median, memory, need_tracking

PAGEOWNER = ROOT / ".venv/bin/pageowner"
SECONDS, SCRAPES = 60, 100


def main() -> None:
    need_tracking()
    given = [int(word) for word in sys.argv[1:3]]
    seconds, scrapes = [*given, *[SECONDS, SCRAPES][len(given):]]
    subprocess.run([PAGEOWNER, "on"], check=True, stdout=subprocess.DEVNULL)
    try:
        with subprocess.Popen([PAGEOWNER, "serve", "--listen", "127.0.0.1:0", "--every", "10m",
                               "--window", "1h"], stderr=subprocess.PIPE, text=True) as server:
            try:
                measured(server, seconds, scrapes)
            finally:
                server.terminate()
    finally:
        subprocess.run([PAGEOWNER, "off"], check=True, stdout=subprocess.DEVNULL)


def measured(server: subprocess.Popen[str], seconds: int, scrapes: int) -> None:
    """Print the table."""
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://([\d.]+):(\d+)", line):
            break
    else:
        raise SystemExit("serve did not start")
    host, port = found[1], int(found[2])
    while asked(host, port, "/api/figures")[0] != 200:  # until there are some
        time.sleep(0.1)
    before = cpu(server.pid)
    time.sleep(seconds)
    idle = (cpu(server.pid) - before) / seconds
    alone, both = own_memory(server.pid), memory(server.pid)
    before, took = cpu(server.pid), []
    for _ in range(scrapes):
        started = time.perf_counter()
        _, size = asked(host, port, "/metrics")
        took.append(time.perf_counter() - started)
    each = (cpu(server.pid) - before) / scrapes
    print(f"idle for {seconds} s; {scrapes} scrapes of {size / 1000:.0f} kB")
    print()
    print("| what | figure | asked |")
    print("| --- | --- | --- |")
    print(f"| CPU of the idle server, with its process that reads | {idle:.2%} | 0.2 % |")
    print(f"| memory of the server alone, MB | {alone / 1e6:.0f} | 80 |")
    print(f"| with its process that reads, until that ends, MB | {both / 1e6:.0f} | |")
    print(f"| CPU of a scrape, of both, ms | {each * 1e3:.1f} | 50 |")
    print(f"| a scrape by the clock, median, ms | {median(took) * 1e3:.1f} | 200 |")
    print(f"| the slowest, ms | {max(took) * 1e3:.1f} | 200 |")


def asked(host: str, port: int, path: str) -> tuple[int, int]:
    """Status and bytes of an answer, on a connection of its own: idle ones are closed soon."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, len(answer.read())
    finally:
        connection.close()


def own_memory(pid: int) -> int:
    """Bytes in memory of a process alone."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


if __name__ == "__main__":
    main()
