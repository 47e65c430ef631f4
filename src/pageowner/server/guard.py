"""Who may ask: the right Host, the same site, and beyond loopback a token.

A page of another site can have a browser send requests here, and by DNS rebinding even read the
answers, since its name then leads to this address. So a request must name a host that is ours, must
not come from another site (Sec-Fetch-Site, Fetch Metadata Request Headers, W3C; and Origin, where a
browser sends it), and reads only. Answers say that nothing else may be loaded, embedded or kept.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "Rules", "host_name"]

_METHODS = ("GET", "HEAD")
_FROM_HERE = ("same-origin", "none")
_LONGEST_TARGET = 4096

HEADERS = (
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
     b" connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none';"
     b" form-action 'none'"),
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"), (b"cache-control", b"no-store"))
"""Of every answer that does not say otherwise itself."""


@dataclass(frozen=True)
class Rules:
    """``hosts`` that a request may name, lower case, without ports; None: any, where no browser
    leads (a unix socket). ``token``: what a request must have, empty: nothing."""

    hosts: frozenset[str] | None
    token: str = ""


class Guard:
    """Lets through what the rules allow, and answers the rest itself."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        refused = self._refused(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = list(message.get("headers", []))
                names = {name.lower() for name, _ in there}
                message = {**message, "headers": there + [
                    (name, value) for name, value in HEADERS if name not in names]}
            await send(message)

        if refused is not None:
            await refused(scope, receive, with_headers)
        else:
            await self.app(scope, receive, with_headers)

    def _refused(self, scope: Scope) -> PlainTextResponse | None:
        """The answer to what may not be asked."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = [host_name(value.decode("latin-1")) for value in headers.get(b"host", [])]
        if self.rules.hosts is not None and (len(hosts) != 1 or hosts[0] not in self.rules.hosts):
            return _text(421, "this server does not answer for that host name; use the address that"
                              " it listens on, or allow the name with --allow-host")
        site = headers.get(b"sec-fetch-site", [b"none"])[-1].decode("latin-1").lower()
        origins = [value.decode("latin-1") for value in headers.get(b"origin", [])]
        if site not in _FROM_HERE or any(
                [host_name(origin.partition("://")[2])] != hosts for origin in origins):
            return _text(403, "requests from pages of other sites are refused")
        if self.rules.token and not self._has_token(headers.get(b"authorization", [])):
            return _text(401, "this address needs the token: 'Authorization: Bearer TOKEN', or the"
                              " token as a password",
                         {"www-authenticate": 'Basic realm="pageowner", charset="UTF-8"'})
        if scope["method"] not in _METHODS:
            return _text(405, "nothing can be changed here", {"allow": ", ".join(_METHODS)})
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _LONGEST_TARGET:
            return _text(414, "that address is too long")
        return None

    def _has_token(self, headers: list[bytes]) -> bool:
        if len(headers) != 1:
            return False
        kind, _, words = headers[0].partition(b" ")
        given = b""
        if kind.lower() == b"bearer":
            given = words.strip()
        elif kind.lower() == b"basic":
            try:
                given = base64.b64decode(words, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        return hmac.compare_digest(given, self.rules.token.encode())


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, headers)


def host_name(text: str) -> str:
    """The name of ``name:port`` or ``[address]:port``, lower case; empty for what is neither."""
    name, port = text.strip().lower(), ""
    if name.startswith("["):
        name, bracket, port = name.partition("]")
        if not bracket or (port and not port.startswith(":")):
            return ""
        return name[1:] if not port[1:] or port[1:].isdecimal() else ""
    name, _, port = name.partition(":")
    return name.rstrip(".") if not port or port.isdecimal() else ""
