"""`pageowner serve` as a process, of a recorded series with hostile names, and questions to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from test_leaks import BURST, CACHE, LEAK, Machine

from pageowner.model.snapshot import SCHEMA, Snapshot
from pageowner.storage.recording import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

for _module in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(_module, reason=f"{_module} is not installed (pageowner[serve])")

HOSTILE = "<img src=x onerror=alert(1)>"
EVERY = 600


def hostile(snapshot: Snapshot, taken: float) -> Snapshot:
    """With names that a task and a cgroup can give themselves."""
    rows = np.arange(snapshot.table.num_rows)
    columns = {
        "memcg": np.array([f"/{HOSTILE}\n", '/a"b\\c', "other"])[rows % 3],
        "comm": np.array([HOSTILE, "evil\x1b[2J", "cc1"])[rows % 3]}
    table = snapshot.table
    for name, values in columns.items():
        field = SCHEMA.field(name)
        table = table.set_column(table.column_names.index(name), field,
                                 pa.array(values).dictionary_encode().cast(field.type))
    snapshot.meta.taken_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(taken))
    return Snapshot(table, snapshot.meta)


def record_series(folder: Path, looks: int = 13) -> list[float]:
    """A minute of a machine with a leak in bursts and suspects, as if it had been two hours; when
    each capture was taken."""
    machine = Machine()
    machine.noise()
    machine.add(LEAK, np.repeat(np.arange(4, 60, 9.0), 2560), 1e9)
    machine.add(BURST, np.repeat([14.0, 31.0], 2560), 1e9)
    machine.add(CACHE, np.arange(-30, 60, 0.05), 1e9)
    machine.add(f"{HOSTILE}+0x1/0x2\nodd\x1b[2J+0x1/0x2", np.full(3000, 1.0), 1e9)
    folder.mkdir(mode=0o700)
    recorder = Recorder(folder, EVERY, 7 * 86400)
    first = int(time.time()) - looks * EVERY
    times = [float(first + EVERY * look) for look in range(looks)]
    for look, taken in enumerate(times):
        recorder.add(hostile(machine.at(look * 5), taken), taken)
    return times


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server(NamedTuple):
    """A server that runs: where, and its process."""

    host: str
    port: int
    process: subprocess.Popen[bytes]

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, headers={
                name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in
                                         answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def figures(self) -> Any:
        """As soon as there are some."""
        deadline = time.monotonic() + 60
        while (found := self.get("/api/figures")).status != 200:
            assert time.monotonic() < deadline, found.body
            time.sleep(0.1)
        return found.json()


@contextmanager
def worker_stands_still(server: Server) -> Iterator[None]:
    """The process that answers questions for the server does nothing meanwhile."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    (worker,) = map(int, children.read_text().split())
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


@contextmanager
def serving(*words: object, listen: str = "127.0.0.1:0") -> Iterator[Server]:
    """``pageowner serve`` with these words, on a port of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pageowner", "serve", *map(str, words), "--listen", listen],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0)
    assert process.stderr is not None
    late = threading.Timer(60, process.kill)  # ends what is read of it
    late.start()
    try:
        said, found = "", None
        while found is None:
            line = process.stderr.readline().decode()
            assert line, said
            said += line
            found = re.search(r"^serving .* on (?:http://([\d.]+):(\d+)|unix:)", line)
        late.cancel()
        yield Server(found[1] or "", int(found[2] or 0), process)
    finally:
        late.cancel()
        process.terminate()
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()
