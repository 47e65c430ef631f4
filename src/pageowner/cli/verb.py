"""A verb as click's command whose help ends with examples, laid out for the terminal's width."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click

from pageowner.errors import UsageError, near

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Example", "Verb", "VerbGroup", "verb"]

Example = tuple[str, str]
"""A command as one types it, and what it does (or nothing)."""


class Verb(click.Command):
    """A verb. ``examples`` are at the end of its help and in its manual page."""

    def __init__(self, *args: Any, examples: tuple[Example, ...] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.examples:
            return
        with formatter.section("Examples"):
            widest = max(len(command) for command, _ in self.examples)
            for command, says in self.examples:
                margin = " " * formatter.current_indent
                line = f"{margin}{command:<{widest}}  {says}".rstrip()
                if len(line) <= formatter.width:
                    formatter.write(f"{line}\n")
                    continue
                # a command is never broken, so that it can be copied
                formatter.write(f"{margin}{command}\n")
                if says:
                    formatter.indent()
                    formatter.write_text(says)
                    formatter.dedent()


class VerbGroup(Verb, click.Group):
    """A verb that has verbs of its own."""

    def lines(self) -> Sequence[tuple[str, str]]:
        """Its verbs, each with its line in the help."""
        raise NotImplementedError

    def check_word(self, args: list[str], verbs: Iterable[str], ctx: click.Context) -> None:
        """Raises UsageError, with what was meant, for a first word that is none of the verbs."""
        if args[0] not in verbs and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(f"'{ctx.command_path}' has no verb {args[0]!r};"
                             f" {near(args[0], verbs)}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(self.lines()))


def verb(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Verb]:
    """Makes a function the verb ``name``: its docstring is the help, and below ``Examples:`` has
    commands with what they do, in the same line behind two blanks or in the next."""
    def decorate(function: Callable[..., Any]) -> Verb:
        text, _, examples = cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
        return click.command(name, cls=Verb, help=text, examples=_examples(examples),
                             **settings)(function)

    return decorate


def _examples(text: str) -> tuple[Example, ...]:
    return tuple((command, says or below) for command, says, below in re.findall(
        r"^ {4}(\S.*?)(?: {2,}(.+))?$(?:\n {8}(\S.*))?", text, re.MULTILINE))
