"""What a shell is offered when a person presses Tab at a value: files, keys, known words."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, CompletionItem, FishComplete, add_completion_class

from pageowner.analysis import known_values
from pageowner.model.schema import FILTERS, FLAGS, KEYS, LOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

__all__ = ["VALUES", "VARIABLE", "changes", "colourings", "files", "folders", "keys", "live_keys",
           "one_of", "register", "sorts"]

VARIABLE = "_PAGEOWNER_COMPLETE"
"""What tells a run of pageowner that a shell asks, and which (click's convention)."""


class _Bash(BashComplete):
    """click's, but a value with spaces stays one word."""

    def format_completion(self, item: CompletionItem) -> str:
        # one backslash for the line, and two for the script's read, which takes one away
        value = re.sub(r"([^\w@%+=:,./-])", r"\\\\\\\1", item.value)
        return f"{item.type},{value}"


class _Fish(FishComplete):
    """click's, but a value keeps its commas."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","')


def register() -> None:
    """Give these to click."""
    add_completion_class(_Bash)
    add_completion_class(_Fish)


def files(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files and folders; the shell knows them."""
    return [CompletionItem(begun, type="file")]


def folders(context: click.Context, parameter: click.Parameter, begun: str
            ) -> list[CompletionItem]:
    """Folders; the shell knows them."""
    return [CompletionItem(begun, type="dir")]


def one_of(words: Callable[[], Iterable[str]], several: bool = False) -> Complete:
    """A word out of some, or several with commas between. ``words`` is asked when Tab is pressed;
    case does not matter."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str
                 ) -> list[CompletionItem]:
        before, comma, last = begun.rpartition(",") if several else ("", "", begun)
        given = before.split(",")
        return [CompletionItem(f"{before}{comma}{word}") for word in words()
                if word.lower().startswith(last.lower()) and word not in given]

    return complete


def _modules() -> list[str]:
    return sorted(os.listdir("/sys/module")) if os.path.isdir("/sys/module") else []


def _sorts() -> tuple[str, ...]:
    from pageowner.analysis.filters import SORTS

    return SORTS


keys = one_of(lambda: KEYS, several=True)
live_keys = one_of(lambda: LOOKS)
colourings = one_of(lambda: ("age", *KEYS))
sorts = one_of(_sorts)
changes = one_of(lambda: ("change", "gained", "lost", "before", "after", "name"))

VALUES: dict[str, Complete] = {"module": one_of(_modules), **{
    name: one_of(known, several=FILTERS[name].takes == FLAGS)
    for name, known in known_values.VALUES.items()}}
"""Of the filters whose values are known."""
