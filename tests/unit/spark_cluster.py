"""A Spark cluster of this test's own on loopback, in 2 GB: a master, and two workers with an
executor each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

EXECUTORS = 2
BRIEF = "-XX:TieredStopAtLevel=1"
"""Words for Java where a cluster lives for a minute, most of which it would compile for hours."""

_SUBMIT = ("--driver-memory 512m --conf spark.executor.memory=450m --conf spark.executor.cores=1"
           " --conf spark.sql.shuffle.partitions=2 --conf spark.default.parallelism=2"
           " --conf spark.driver.host=127.0.0.1 --conf spark.driver.bindAddress=127.0.0.1"
           " --conf spark.ui.showConsoleProgress=false")


def missing() -> str:
    """Why there can be none; empty if there can."""
    if find_spec("pyspark") is None:
        return "PySpark is not installed (scripts/fleet-tests)"
    return "" if shutil.which("java") else "Java is not installed (scripts/fleet-tests)"


@contextmanager
def cluster(folder: Path, executors: int = EXECUTORS, java: str = "") -> Iterator[str]:
    """The address of the master, while it and a worker for each of so many executors run, each
    process with these words for ``java``; sessions of this process fit into it."""
    found = find_spec("pyspark")
    assert found is not None
    assert found.origin is not None
    run = Path(found.origin).parent / "bin/spark-class"
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "192m",
           "SPARK_DAEMON_JAVA_OPTS": java,
           "SPARK_LOG_DIR": str(folder)}
    package = "org.apache.spark.deploy"
    log = folder / "master.log"
    processes = []
    kept = {name: os.environ.get(name) for name in ("PYSPARK_SUBMIT_ARGS", "SPARK_LOCAL_IP")}

    def start(name: str, *words: str) -> None:
        with (folder / f"{name}.log").open("wb") as out:
            processes.append(subprocess.Popen([run, *words], env=env, stdout=out, stderr=out))

    try:
        start("master", f"{package}.master.Master", "--host", "127.0.0.1", "--port", "0",
              "--webui-port", "0")
        address = _wait(log, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)", processes)
        workers = [f"worker{number}" for number in range(executors)]
        for name in workers:
            start(name, f"{package}.worker.Worker", "--host", "127.0.0.1", "-c", "1", "-m", "500m",
                  "--webui-port", "0", "--work-dir", f"{folder}/{name}", address)
        for name in workers:
            _wait(folder / f"{name}.log", r"(Successfully registered with master)", processes)
        submit = (f"{_SUBMIT} --driver-java-options '{java}'"
                  f" --conf 'spark.executor.extraJavaOptions={java}' pyspark-shell")
        os.environ |= {"PYSPARK_SUBMIT_ARGS": submit, "SPARK_LOCAL_IP": "127.0.0.1"}
        yield address
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _wait(log: Path, pattern: str, processes: list[subprocess.Popen[bytes]]) -> str:
    for _ in range(1200):
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        assert all(process.poll() is None for process in processes), log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
