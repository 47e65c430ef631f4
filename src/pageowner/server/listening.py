"""Where the server listens, and what that asks of those who come."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError, UsageError
from pageowner.server.guard import Rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp

__all__ = ["DEFAULT", "Address", "listen", "parse", "rules_for", "run", "token_in"]

DEFAULT = "127.0.0.1:9463"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_LEAST_TOKEN, _MOST_TOKEN = 16, 1024
_BACKLOG = 64
_TICKS = 10
"""Of uvicorn's, in a second."""


@dataclass(frozen=True)
class Address:
    """``path`` of a unix socket, or ``host`` and ``port``."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Whether nobody on another machine gets there."""
        return bool(self.path) or self.host == "localhost" or ipaddress.ip_address(
            self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse(text: str) -> Address:
    """``127.0.0.1:9463``, ``[::1]:9463``, ``9463``, ``unix:/run/pageowner/serve.sock``. Raises
    UsageError for anything else; names are not looked up."""
    if text.startswith(("unix:", "/")):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise UsageError(f"{text!r}: name the socket's file, as in unix:/run/pageowner.sock")
        return Address(path)
    host, _, port = text.rpartition(":")
    host = (host or "127.0.0.1").removeprefix("[").removesuffix("]")
    try:
        if host != "localhost":
            ipaddress.ip_address(host)
        if not port.isdecimal() or int(port) > 65535:
            raise ValueError(port)
    except ValueError as error:
        raise UsageError(f"{text!r} is not an address to listen on; write 127.0.0.1:9463,"
                         " [::1]:9463 or unix:/run/pageowner.sock") from error
    return Address("", host, int(port))


def token_in(path: str | os.PathLike[str]) -> str:
    """The token that a file has. Raises PageownerError if it cannot be read, others may read it, or
    it is too short to be one."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_TOKEN + 2).strip()
    except OSError as error:
        raise PageownerError(f"{path}: cannot read the token: {error.strerror}") from error
    if mode & 0o007:
        raise PageownerError(f"{path}: others can read or change the token; chmod 0600 it")
    if not _LEAST_TOKEN <= len(text) <= _MOST_TOKEN or not text.isascii() or any(
            byte <= 0x20 for byte in text):
        raise PageownerError(f"{path}: a token is one word of {_LEAST_TOKEN} to {_MOST_TOKEN} ASCII"
                             " characters; make one: openssl rand -hex 32")
    return text.decode()


def rules_for(address: Address, token: str, allowed: Iterable[str]) -> Rules:
    """Who may ask at an address. Raises UsageError where others come without a token."""
    if not address.is_local and not token:
        raise UsageError(f"{address} can be reached from other machines, which would read the names"
                         " of tasks, cgroups and files: give --token-file FILE, or listen on"
                         f" {DEFAULT}")
    names = {name.lower().rstrip(".") for name in allowed}
    if address.path or (token and not names):
        return Rules(None, token)
    return Rules(frozenset({*_LOCAL, address.host, *names}), token)


def listen(address: Address) -> socket.socket:
    """The socket. A unix socket's file has mode 0600, and takes the place of one that nobody
    listens on. Raises PageownerError if it is in use, or not allowed."""
    family = (socket.AF_UNIX if address.path else
              socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if address.path:
            _clear(Path(address.path))
            before = os.umask(0o177)
            try:
                listener.bind(address.path)
            finally:
                os.umask(before)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PageownerError(f"cannot listen on {address}: {error.strerror or error}") from error
    return listener


def _clear(path: Path) -> None:
    """Remove a socket's file that its server left."""
    try:
        status = path.lstat()
    except OSError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        return  # bind() says that it is in use
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Answer until a signal ends it."""
    import uvicorn

    from pageowner.server.protocol import MOST_HEADER_BYTES, MOST_IDLE_S, Bounded

    class Quiet(uvicorn.Server):
        """Looks once a second whether it is to end, where uvicorn looks ten times: that alone takes
        0.2 % of a CPU."""

        async def main_loop(self) -> None:
            ticks = 0
            while not await self.on_tick(ticks):
                ticks = (ticks + _TICKS) % 864000
                await asyncio.sleep(1)

    server = Quiet(uvicorn.Config(
        app, http=Bounded, ws="none", lifespan="on", loop="asyncio", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, backlog=_BACKLOG,
        timeout_keep_alive=MOST_IDLE_S, timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES))
    asyncio.run(server.serve([listener]))
