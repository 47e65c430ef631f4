"""The stacks of records that have only a handle, from the kernel's list of both.

mm/page_owner.c, since 6.19: page_owner_stacks/show_stacks_handles. A copy of it is named with
`using`, or lies beside the text that has handles: as ``show_stacks_handles`` in the same folder, or
in the folder of the text's name with ``_stacks``, as in debugfs.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pageowner.sources.opening import open_source, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.sources.page_owner_body import Body

__all__ = ["LIST", "join", "using"]

LIST = "show_stacks_handles"

_given: ContextVar[str | None] = ContextVar("handles", default=None)


@contextmanager
def using(path: str | None) -> Iterator[None]:
    """Within this, stacks of handles are those that the file ``path`` lists."""
    token = _given.set(path)
    try:
        yield
    finally:
        _given.reset(token)


def join(parts: Sequence[list[Body]], name: str,
         listed: dict[int, str] | None = None) -> dict[str, int]:
    """Give bodies that have a handle and no stack their stack, in place, as if the kernel had
    printed that; ``name`` is the file that the parts are from, and ``listed`` has the stacks of
    handles that the file itself lists, which are asked first. Returns counters:
    ``joined_handles``, the handles whose stack was found, and ``unknown_handles``, the others;
    empty if there are none.

    Raises PageownerError if a file that was named to `using` cannot be read.
    """
    bare = {body.handle for bodies in parts for body in bodies
            if body.handle is not None and body.stack is None}
    if not bare:
        return {}
    stacks = listed or {}
    if _given.get() is not None or bare - stacks.keys():
        path = _given.get() or _beside(name)
        stacks = ({} if path is None else _listed(path)) | stacks
    for bodies in parts:
        for place, body in enumerate(bodies):
            if body.stack is None and body.handle in stacks:
                bodies[place] = body._replace(stack=stacks[body.handle], handle=None)
    unknown = len(bare - stacks.keys())
    return {"joined_handles": len(bare) - unknown, "unknown_handles": unknown}


def _beside(name: str) -> str | None:
    if not os.path.isfile(name):  # standard input, or a pipe
        return None
    for path in (os.path.join(f"{name}_stacks", LIST), os.path.join(os.path.dirname(name), LIST)):
        if os.path.isfile(path):
            return path
    return None


def _listed(path: str) -> dict[int, str]:
    from pageowner.sources.page_owner_stacks import parse

    with open_source(path) as opened, reading(opened.name):
        records = parse(opened.stream.read())
    return {record.handle: record.stack for record in records
            if record.handle is not None and record.stack is not None}
