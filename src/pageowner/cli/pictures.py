"""The files that ``flame`` and ``map`` draw into."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import click

from pageowner.model.source_kinds import PARQUET

__all__ = ["check_pictures"]

_HEAD = 64
"""Bytes by which a source is known."""


def check_pictures(page: str | None, image: str | None) -> None:
    """Raises UsageError if both are the same file, by whatever names, or if one is there already
    and is a snapshot, a vmcore or a dump, which words in the wrong order would cost."""
    if page and image and os.path.realpath(page) == os.path.realpath(image):
        raise click.UsageError("the page and the image cannot be one file")
    for path in filter(None, (page, image)):
        if _is_source(path):
            raise click.UsageError(f"{path} is a source and would be overwritten: name another file"
                                   " to write")


def _is_source(path: str) -> bool:
    from pageowner.sources.page_owner_parser import START
    from pageowner.sources.vmcore import is_vmcore

    with suppress(OSError):
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                head = file.read(_HEAD)
            return head.startswith((PARQUET, START)) or is_vmcore(head)
    return False
