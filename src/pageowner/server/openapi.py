"""What can be asked, declared once: the routes are made of it, and the OpenAPI description."""

from __future__ import annotations

from typing import Any, NamedTuple

from pageowner import __version__
from pageowner.model.schema import FILTERS, KEYS

__all__ = ["ENDPOINTS", "Endpoint", "description"]


class Endpoint(NamedTuple):
    """``path`` and the ``question`` that a worker answers; the ``words`` that it takes, ``filters``
    among them or not, and its type."""

    path: str
    question: str
    about: str
    words: tuple[str, ...] = ()
    filters: bool = False
    type: str = "application/json"


_WORDS = {
    "by": "Keys to group by, with commas: " + ", ".join(KEYS),
    "sort": "How to sort, as the command's --sort.",
    "top": "How many owners at most; the others are summed.",
    "at": "Seconds since 1970: the newest capture of the history then or before; else now.",
    "before": "Seconds since 1970: the first of two moments.",
    "after": "Seconds since 1970: the second of two moments; else now.",
    "order": "A block order, such as 9; of a map row or hilbert.",
    "min": "The least growth in bytes.",
}

ENDPOINTS = (
    Endpoint("/api/owners", "owners", "Who owns the memory, as 'pageowner report --json'.",
             ("by", "sort", "top", "at"), True),
    Endpoint("/api/diff", "diff", "What changed between two moments, as 'pageowner diff --json'.",
             ("by", "sort", "top", "before", "after"), True),
    Endpoint("/api/leaks", "leaks", "Leaks and suspects, as 'pageowner leaks --json'.", ("min",)),
    Endpoint("/api/balance", "balance", "Where all memory is, as 'pageowner balance --json'."),
    Endpoint("/api/frag", "frag", "What fragments memory, as 'pageowner frag --json'.",
             ("by", "top", "order", "at")),
    Endpoint("/api/captures", "captures", "The times of the history's captures."),
    Endpoint("/map.html", "map", "The map of physical memory.", ("by", "order", "at"), True,
             "text/html"),
    Endpoint("/flame.html", "flame", "A flame graph; with 'before', of what changed.",
             ("by", "at", "before"), True, "text/html"),
    Endpoint("/pages.pprof", "pprof", "A profile for 'go tool pprof', Parca and Pyroscope.",
             ("by", "at"), True, "application/octet-stream"),
    Endpoint("/snapshot.parquet", "parquet", "The snapshot as a Parquet file.", ("at",), True,
             "application/vnd.apache.parquet"),
)
"""Everything that takes a worker."""


def description() -> dict[str, Any]:
    """The OpenAPI document (OpenAPI Specification 3.1)."""
    paths = {endpoint.path: _get(endpoint.about, endpoint.type, [
        *(_parameter(word, _WORDS[word]) for word in endpoint.words),
        *(_parameter(name, about.help) for name, about in FILTERS.items() if endpoint.filters)])
        for endpoint in ENDPOINTS}
    paths["/api/figures"] = _get("The figures that the metrics are made of, as they were gathered"
                                 " last.", "application/json", [])
    paths["/metrics"] = _get("Metrics in OpenMetrics' or Prometheus' text.", "text/plain", [])
    return {"openapi": "3.1.0", "info": {
        "title": "pageowner", "version": __version__,
        "description": "Who owns every page of a Linux machine's memory."}, "paths": paths}


def _get(about: str, kind: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    def error(text: str) -> dict[str, Any]:
        return {"description": text, "content": {"application/json": {"schema": {
            "type": "object", "properties": {"error": {"type": "string"}}}}}}

    return {"get": {"summary": about, "parameters": parameters, "responses": {
        "200": {"description": about, "content": {kind: {}}},
        "400": error("Wrong words; the text says which."),
        "503": error("The source cannot be read, or too many ask.")}}}


def _parameter(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": about,
            "schema": {"type": "string"}}
