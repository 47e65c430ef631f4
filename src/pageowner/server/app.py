"""The routes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pageowner.errors import PageownerError, UsageError
from pageowner.model.schema import FILTERS
from pageowner.server.calling import Busy
from pageowner.server.guard import Guard
from pageowner.server.openapi import ENDPOINTS, description

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from pageowner.server.calling import Worker
    from pageowner.server.guard import Rules
    from pageowner.server.metrics import Metrics
    from pageowner.server.openapi import Endpoint

__all__ = ["application"]

_PAGES = {"/": ("index.html", "text/html; charset=utf-8"),
          "/style.css": ("style.css", "text/css; charset=utf-8"),
          "/app.js": ("app.js", "text/javascript; charset=utf-8"),
          "/tools.js": ("tools.js", "text/javascript; charset=utf-8"),
          "/views.js": ("views.js", "text/javascript; charset=utf-8"),
          "/history.js": ("history.js", "text/javascript; charset=utf-8")}


def application(worker: Worker, metrics: Metrics, rules: Rules) -> ASGIApp:
    """All of the server, guarded."""
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        renewing = asyncio.create_task(worker.keep_fresh())
        yield
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        await worker.end()

    async def scrape(request: Request) -> Response:
        worker.use()
        body, kind = metrics.exposition(request.headers.get("accept", ""))
        return Response(body, media_type=kind)

    async def figures(request: Request) -> Response:
        worker.use()
        if worker.figures is None:
            return _error(503, worker.error or "nothing was gathered yet; ask again in a moment")
        return JSONResponse({**worker.figures.plain(), "error": worker.error})

    async def about(request: Request) -> Response:
        return JSONResponse(description())

    routes = [Route("/metrics", scrape), Route("/api/figures", figures),
              Route("/api/openapi.json", about),
              *(Route(path, _page(*page)) for path, page in _PAGES.items()),
              *(Route(endpoint.path, _asked(worker, endpoint)) for endpoint in ENDPOINTS)]
    return Guard(Starlette(routes=routes, lifespan=lifespan), rules)


def _page(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    body = resources.files("pageowner.server").joinpath("page", name).read_bytes()

    async def show(request: Request) -> Response:
        return Response(body, media_type=kind)

    return show


def _asked(worker: Worker, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    known = {*endpoint.words, *(FILTERS if endpoint.filters else ())}

    async def ask(request: Request) -> Response:
        worker.use()
        unknown = sorted(set(request.query_params) - known)
        if unknown:
            return _error(400, f"{endpoint.path} takes no {unknown[0]!r}; it takes"
                               f" {', '.join(sorted(known)) or 'nothing'}")
        try:
            found = await worker.ask(endpoint.question, dict(request.query_params))
        except UsageError as error:
            return _error(400, str(error))
        except PageownerError as error:
            return _error(503, str(error))
        except Busy:
            return _error(503, "too many questions wait for an answer; ask again later")
        headers = {}
        if found.file:
            headers["content-disposition"] = f'attachment; filename="{found.file}"'
        if found.type.startswith("text/html"):
            headers["content-security-policy"] = _policy(found.body)
        return Response(found.body, media_type=found.type, headers=headers)

    return ask


def _policy(page: bytes) -> str:
    """A policy for a page that brings its own script and style: these and no other."""
    def hashes(tag: bytes) -> str:
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
                        for text in re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)
                        ) or "'none'"

    return (f"default-src 'none'; script-src {hashes(b'script')}; style-src 'unsafe-inline';"
            " frame-ancestors 'self'; base-uri 'none'; form-action 'none'")


def _error(status: int, text: str) -> Response:
    headers = {"retry-after": "5"} if status == 503 else {}
    return JSONResponse({"error": text}, status, headers)
