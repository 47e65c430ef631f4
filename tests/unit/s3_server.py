"""An S3 server that is not ours: SeaweedFS, one program, with users who may write and read, only
read, and only write."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUCKET = "memory"
WRITER, READER, SENDER = "writer", "reader", "sender"
_KEYS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


def program() -> str | None:
    """Where it is installed (scripts/fleet-tests)."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def environment(port: int, user: str) -> dict[str, str]:
    """What a program that uses it has in its environment."""
    return dict(zip(_KEYS, (f"http://127.0.0.1:{port}", user, f"{user}-secret", "us-east-1"),
                    strict=True))


class Server:
    """One on loopback, which can be stopped and started with what it keeps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # ports of gRPC are 10,000 higher
        self._ports = [_free_port() for _ in range(4)]
        self.port = self._ports[3]
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps({"identities": [
            {"name": user, "credentials": [{"accessKey": user, "secretKey": f"{user}-secret"}],
             "actions": rights} for user, rights in (
                 (WRITER, ["Admin", "Read", "Write", "List"]), (READER, ["Read", "List"]),
                 (SENDER, ["Write"]))]}))

    def start(self) -> None:
        """Nothing, if it runs."""
        if self._process is not None:
            return
        found = program()
        assert found is not None
        master, volume, filer, s3 = self._ports
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, f"-logdir={self._folder}", "server",
                 f"-dir={self._folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer",
                 "-s3", f"-s3.config={self._folder}/s3.json", "-s3.iam=false",
                 "-s3.port.iceberg=0", "-s3.port.lance=0",
                 f"-master.port={master}",
                 f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
                 "-master.volumeSizeLimitMB=64", "-volume.max=20"], stdout=log, stderr=log)
        self._make_bucket()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # told to end, it takes half a minute
            self._process.wait(30)
            self._process = None
            for port in self._ports:  # of its sockets it knows no other place
                for number in (port, port + 10_000):
                    for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                        left.unlink(missing_ok=True)

    def _make_bucket(self) -> None:
        from pyarrow.fs import S3FileSystem

        files: Any = S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}", scheme="http", region="us-east-1",
            access_key=WRITER, secret_key=f"{WRITER}-secret", allow_bucket_creation=True)
        for attempt in range(300):
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            try:
                files.create_dir(BUCKET)
                # volumes are there a moment after the server
                with files.open_output_stream(f"{BUCKET}/ready") as file:
                    file.write(b"yes")
                return
            except OSError:
                if attempt == 299:
                    raise
                time.sleep(0.2)


@contextmanager
def prepared(folder: Path) -> Iterator[Server]:
    """A server with an empty bucket, to be started; stopped with the block."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    """A port that is free, and the one 10,000 above it too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            if port >= 55_000:
                continue
            try:
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


