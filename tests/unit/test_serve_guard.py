"""`serve` tells nothing to whom it does not belong, and stays small whatever clients do."""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from served import Server, record_series, serving, worker_stands_still

from pageowner.errors import PageownerError, UsageError
from pageowner.server import listening
from pageowner.server.guard import host_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = "0123456789abcdef-0123456789abcdef"
SECRETS = (b"anon_pipe_write", b"cgroup", b"owners")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("guard") / "recorded"
    record_series(found, 5)
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--allow-host", "Box.example") as found:
        found.figures()
        yield found


def memory(server: Server) -> int:
    """KiB that the server has."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1", 200), ("localhost:9463", 200), ("[::1]:1", 200), ("LOCALHOST", 200),
    ("box.example:9463", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421),
    ("localhost:evil", 421), ("localhost@evil.example", 421), ("127.0.0.1:80:evil", 421),
    ("[::1]evil", 421), ("0177.0.0.1", 421)])
def test_only_hosts_that_are_ours_are_answered(server: Server, host: str, status: int) -> None:
    found = server.get("/metrics", Host=host)
    assert found.status == status
    if status != 200:
        assert not any(secret in found.body for secret in SECRETS)


def test_two_hosts_are_one_too_many(server: Server) -> None:
    with socket.create_connection((server.host, server.port)) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert raw.recv(64).split()[1] in (b"400", b"421")


@pytest.mark.parametrize(("headers", "status"), [
    ({"Sec_Fetch_Site": "same-origin"}, 200), ({"Sec_Fetch_Site": "none"}, 200), ({}, 200),
    ({"Sec_Fetch_Site": "cross-site"}, 403), ({"Sec_Fetch_Site": "same-site"}, 403),
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
    ({"Host": "localhost", "Origin": "http://localhost"}, 200)])
def test_pages_of_other_sites_get_nothing(server: Server, headers: dict[str, str],
                                          status: int) -> None:
    for path in ("/metrics", "/api/owners", "/flame.html"):
        found = server.get(path, **headers)
        assert found.status == status
        assert "access-control-allow-origin" not in found.headers
        if status != 200:
            assert not any(secret in found.body for secret in SECRETS)


def test_nothing_can_be_changed(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        assert server.get("/api/owners", method).status in (400, 405), method


@pytest.mark.parametrize("path", [
    "/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd",
    "/page/index.html", "/app.js/../../worker.py", "/app.js%00.py", "/api/owners/..", "/%", "/\\",
    "/.git/config", "/api/figures/"])
def test_there_are_no_other_paths(server: Server, path: str) -> None:
    found = server.get(path)
    assert found.status in (307, 400, 404), path
    assert b"root:" not in found.body
    if found.status == 307:  # a slash too many
        assert found.headers["location"].endswith("/api/figures")


def test_sources_cannot_be_named(server: Server) -> None:
    for word in ("source", "history", "file", "path", "kpageflags"):
        assert server.get(f"/api/owners?{word}=/etc/passwd").status == 400


def test_every_answer_forbids_what_it_does_not_need(server: Server) -> None:
    for path in ("/", "/metrics", "/api/owners", "/nothing", "/api/owners?x=1", "/map.html"):
        headers = server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_headers_of_ten_megabytes_are_refused(server: Server) -> None:
    before = memory(server)
    for _ in range(5):
        with socket.create_connection((server.host, server.port), timeout=10) as raw:
            try:
                raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")
                for _ in range(160):
                    raw.sendall(b"X: " + b"a" * 65000 + b"\r\n")
                answer = raw.recv(100)
            except (ConnectionResetError, BrokenPipeError):
                continue
            assert answer == b"" or answer.split()[1] in (b"400", b"431")
    assert memory(server) - before < 16 << 10
    assert server.get("/metrics").status == 200
    long = server.get("/metrics?" + "a" * 5000)
    assert long.status == 414


def test_many_clients_that_say_nothing_do_not_shut_others_out(server: Server) -> None:
    """They are let go after ten seconds; until then, there are 64 at most."""
    before, waiting = memory(server), []
    try:
        for number in range(300):
            client = socket.create_connection((server.host, server.port), timeout=30)
            waiting.append(client)
            client.sendall(b"GET /met" if number % 2 else b"")
        refused = 0
        for client in waiting[64:]:
            try:
                refused += client.recv(12) == b"HTTP/1.1 503"
            except ConnectionResetError:
                refused += 1
        assert refused >= 200
        assert memory(server) - before < 16 << 10
        began = time.monotonic()
        while True:
            try:
                if server.get("/metrics").status == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() - began < 20
            time.sleep(0.2)
    finally:
        for client in waiting:
            client.close()


def statuses(server: Server, path: str, number: int, found: list[int]) -> list[int]:
    """What so many clients are answered who ask at once, in ``found`` as it comes; 503 for those
    who are not."""

    def ask() -> None:
        try:
            found.append(server.get(path).status)
        except (OSError, http.client.HTTPException):
            found.append(503)

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_hundred_clients_at_once_are_answered_or_told_to_wait(server: Server) -> None:
    before = memory(server)
    found = statuses(server, "/metrics", 100, [])
    assert len(found) == 100
    assert set(found) <= {200, 503}
    assert found.count(200) >= 50
    assert memory(server) - before < 16 << 10


def test_questions_that_take_long_do_not_pile_up(server: Server) -> None:
    """Of 40 that ask while the process that answers stands still, 16 wait."""
    found: list[int] = []
    asking = threading.Thread(target=statuses, args=(server, "/api/frag", 40, found))
    with worker_stands_still(server):
        asking.start()
        began = time.monotonic()
        while len(found) < 40 - 16 and time.monotonic() - began < 20:
            time.sleep(0.01)
    asking.join()
    assert sorted(found) == [200] * 16 + [503] * (40 - 16)
    assert server.get("/metrics").status == 200


def test_who_does_not_read_takes_no_memory(server: Server) -> None:
    before, waiting = memory(server), []
    try:
        for _ in range(20):
            client = socket.create_connection((server.host, server.port), timeout=30)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
            waiting.append(client)
        time.sleep(1)
        assert memory(server) - before < 32 << 10
        assert server.get("/metrics").status == 200
    finally:
        for client in waiting:
            client.close()


def test_a_unix_socket_is_for_its_owner_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "serve.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with serving(folder, listen=f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\nHost: whatever\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        again = subprocess.run([sys.executable, "-m", "pageowner", "serve", str(folder), "--listen",
                                f"unix:{path}"], capture_output=True, timeout=60)
        assert again.returncode == 1
        assert b"cannot listen" in again.stderr
    assert not path.exists()


def test_a_file_is_not_removed_for_a_socket(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("text")
    with pytest.raises(PageownerError, match="cannot listen"):
        listening.listen(listening.parse(f"unix:{path}"))
    assert path.read_text() == "text"


def test_beyond_loopback_it_takes_a_token(cli: Callable[..., tuple[int, bytes, bytes]],
                                          folder: Path, tmp_path: Path) -> None:
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:9463"):
        status, _, err = cli("serve", folder, "--listen", address)
        assert status == 2
        assert b"--token-file" in err
        assert err.count(b"\n") == 1
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o644)
    with pytest.raises(PageownerError, match="others can read"):
        listening.token_in(secret)
    secret.chmod(0o600)
    with serving(folder, "--token-file", secret, listen="0.0.0.0:0") as server:
        basic = base64.b64encode(f"any:{TOKEN}".encode()).decode()
        for header, expected in ((f"Bearer {TOKEN}", 200), (f"Basic {basic}", 200),
                                 (f"bearer  {TOKEN}", 200), (f"Bearer {TOKEN}x", 401),
                                 ("Bearer", 401), ("Basic !!!", 401), ("Basic ", 401),
                                 (f"Digest {TOKEN}", 401), ("Bearer \xff", 401)):
            found = server.get("/metrics", Authorization=header)
            assert found.status == expected, header
        found = server.get("/metrics")
        assert found.status == 401
        assert found.headers["www-authenticate"].startswith("Basic")
        assert not any(secret in found.body for secret in SECRETS)
        assert TOKEN.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("words", [("--on", "oom"), ("--on", "oom", "--history", "x", "dump")])
def test_events_are_of_this_machine_and_need_a_directory(
        cli: Callable[..., tuple[int, bytes, bytes]], words: tuple[str, ...]) -> None:
    status, _, err = cli("serve", *words)
    assert status == 2
    assert err.count(b"\n") == 1
    assert b"--history: name one" in err


@pytest.mark.parametrize("text", ["short", "two words of a long token", "", "x" * 2000])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(PageownerError, match="a token is one word"):
        listening.token_in(path)


def test_addresses_are_numbers_or_localhost() -> None:
    assert str(listening.parse("9463")) == "http://127.0.0.1:9463"
    assert str(listening.parse("[::1]:80")) == "http://[::1]:80"
    assert listening.parse("/run/x.sock") == listening.parse("unix:/run/x.sock")
    assert listening.parse("localhost:1").is_local
    assert not listening.parse("0.0.0.0:1").is_local
    for wrong in ("", "example.org:80", "127.0.0.1:http", "1.2.3.4:99999", "unix:", ":", "::1"):
        with pytest.raises(UsageError):
            listening.parse(wrong)


def test_names_of_hosts_are_read_strictly() -> None:
    assert [host_name(text) for text in ("A.b:1", "[::1]:2", "a.b.", "x:y", "[::1", "[a]b")] == [
        "a.b", "::1", "a.b", "", "", ""]


def test_nothing_is_written(server: Server, folder: Path) -> None:
    def state() -> list[tuple[str, float]]:
        return sorted((str(path), path.stat().st_mtime) for path in folder.iterdir())

    before = state()
    for path in ("/api/owners", "/api/frag", "/map.html", "/snapshot.parquet", "/api/leaks"):
        server.get(path)
    assert state() == before
    opened = []
    for fd in os.listdir(f"/proc/{server.process.pid}/fd"):
        with suppress(FileNotFoundError):  # it has just closed that one
            opened.append(os.readlink(f"/proc/{server.process.pid}/fd/{fd}"))
    assert not [path for path in opened if str(folder) in path]
