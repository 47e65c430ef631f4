"""The reference of verbs and options, as Markdown, from click's own objects."""

from __future__ import annotations

from inspect import cleandoc

import click

from pageowner.cli import group
from pageowner.cli.verb import Verb, VerbGroup
from pageowner.page_owner_sort.options import USAGE

__all__ = ["reference"]


def reference() -> str:
    """A section for each verb: what it does, its usage, examples and options."""
    return "\n\n".join(_section(name) for name in group.VERBS)


def _section(name: str) -> str:
    context = click.Context(group.program, info_name="pageowner")
    command = group.program.get_command(context, name)
    assert command is not None
    parts = [f"## {name}"]
    if isinstance(command, VerbGroup):
        parts.append(_paragraphs(command.help or ""))
        for inner, _ in command.lines():
            found = command.get_command(context, inner)
            assert found is not None
            parts += [f"### {name} {inner}", *_about(f"{name} {inner}", found, context)]
        return "\n\n".join(parts)
    if name == "sort":
        parts += [_paragraphs(command.help or ""), _code(USAGE.rstrip())]
        return "\n\n".join(parts)
    return "\n\n".join([*parts, *_about(name, command, context)])


def _about(name: str, command: click.Command, context: click.Context) -> list[str]:
    """How it is called, what it does, its options and examples."""
    words = command.collect_usage_pieces(context)
    parts = [_code(" ".join(["pageowner", name, *words])), _paragraphs(command.help or "")]
    options = (parameter for parameter in command.params if isinstance(parameter, click.Option))
    records = [found for option in options if (found := option.get_help_record(context))]
    if records:
        parts.append("\n".join(["| option | |", "| --- | --- |", *(
            f"| `{_cell(option)}` | {_cell(told)} |" for option, told in records)]))
    if isinstance(command, Verb):
        parts.append(_code("\n".join(
            f"{line}    {says}" if says else line for line, says in command.examples)))
    return parts


def _paragraphs(text: str) -> str:
    """The help, as paragraphs."""
    return "\n\n".join(_escaped(" ".join(paragraph.split()))
                       for paragraph in cleandoc(text).split("\n\n"))


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_")
