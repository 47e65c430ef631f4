"""The reference of verbs and options, as Markdown, from click's own objects."""

from __future__ import annotations

from inspect import cleandoc

import click

from pageowner.cli import group
from pageowner.sorting.options import USAGE

__all__ = ["reference"]


def reference() -> str:
    """A section for each verb: what it does, its usage, examples and options."""
    return "\n\n".join(_section(name) for name in group.VERBS)


def _section(name: str) -> str:
    context = click.Context(group._cli, info_name="pageowner")
    command = group._cli.get_command(context, name)
    assert command is not None
    parts = [f"## {name}"]
    if name == "sort":
        parts += [_paragraphs(command.help or ""), _code(USAGE.rstrip())]
        return "\n\n".join(parts)
    words = command.collect_usage_pieces(context)
    parts += [_code(" ".join(["pageowner", name, *words])), _paragraphs(command.help or "")]
    options = (one for one in command.params if isinstance(one, click.Option))
    records = [found for one in options if (found := one.get_help_record(context))]
    if records:
        parts.append("\n".join(["| option | |", "| --- | --- |", *(
            f"| `{_cell(option)}` | {_cell(told)} |" for option, told in records)]))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> str:
    """The help: paragraphs that begin with \\b are examples, line by line."""
    parts = []
    for paragraph in cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            parts.append(_code(paragraph.removeprefix("\b").strip("\n")))
        else:
            parts.append(_escaped(" ".join(paragraph.split())))
    return "\n\n".join(parts)


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_")
