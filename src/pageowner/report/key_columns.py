"""The columns of a table that name owners: one for each key, and what stacks are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.model.handle_names import is_handle_name
from pageowner.model.schema import NARROW, NUMERIC
from pageowner.model.source_kinds import kind_named
from pageowner.model.user_names import is_user_name, user_of
from pageowner.report.cells import cut_path
from pageowner.report.stack_lines import one_line_each
from pageowner.report.table import Column
from pageowner.report.terminal import PIPE_WIDTH
from pageowner.report.text import UNKNOWN, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["key_columns"]

_USE_SHARE = 1 / 6


def key_columns(table: Mapping[str, list[Any]], by: Sequence[str], kind: str) -> list[Column]:
    """A column for each key; before stacks one that says what they are for.

    ``kind`` is that of the source (`pageowner.model.metadata.Metadata.kind`).
    """
    columns: list[Column] = []
    if "stack" in by and "subsystem" not in by:
        from pageowner.analysis.subsystems import subsystem

        columns.append(Column("WHAT", [
            UNKNOWN if stack is None or is_handle_name(stack) else
            user_of(stack)[0] if is_user_name(stack) else printable(subsystem(stack))
            for stack in table["stack"]], text=True, share=_USE_SHARE))
    for name in by:
        values = table[name]
        if name == "user":
            columns.append(_users(values))
        elif name == "stack":
            columns.append(_stacks(values, "(no stack)" if kind_named(kind).live else
                                   "(no stack in the dump)"))
        else:
            columns.append(Column(
                name.upper(),
                [UNKNOWN if value is None else printable(str(value)) for value in values],
                text=name not in NUMERIC, flexible=name not in NARROW))
    return columns


def _users(values: Sequence[str | None]) -> Column:
    """What has pages; of files the end of the path tells more than its beginning."""
    cells = [UNKNOWN if value is None else printable(value) for value in values]
    return Column("USER", cells, text=True,
                  refit=lambda width: [cut_path(cell, width) for cell in cells])


def _stacks(stacks: Sequence[str | None], missing: str) -> Column:
    """Stacks in a line each, which look different as far as the column's width allows."""
    without = [None if is_user_name(stack) else stack for stack in stacks]

    def refit(width: int) -> list[str]:
        lines = one_line_each(without, missing, width)
        return [cut_path(f"now {printable(user_of(stack)[1])}", width)
                if stack is not None and is_user_name(stack) else line
                for stack, line in zip(stacks, lines, strict=True)]

    return Column("STACK", refit(PIPE_WIDTH), text=True, refit=refit)
