"""What a shell is offered when a person presses Tab at a value: files, keys, known words."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, CompletionItem, FishComplete, add_completion_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

__all__ = ["VALUES", "VARIABLE", "changes", "colourings", "files", "folders", "gfp_flags", "keys",
           "live_keys", "migratetypes", "modules", "one_of", "register", "sorts", "states",
           "subsystems", "zones"]

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


def _keys() -> tuple[str, ...]:
    from pageowner.model.schema import KEYS

    return KEYS


def _subsystems() -> list[str]:
    from pageowner.analysis import known_values

    return known_values.subsystems()


def _states() -> tuple[str, ...]:
    from pageowner.model.metadata import STATES

    return STATES


def _zones() -> tuple[str, ...]:
    from pageowner.analysis import known_values

    return known_values.zones()


def _migratetypes() -> tuple[str, ...]:
    from pageowner.analysis import known_values

    return known_values.migratetypes()


def _gfp_flags() -> list[str]:
    from pageowner.analysis import known_values

    return known_values.gfp_flags()


def _modules() -> list[str]:
    return sorted(os.listdir("/sys/module")) if os.path.isdir("/sys/module") else []


def _live_keys() -> Iterable[str]:
    from pageowner.model.schema import LOOKS

    return LOOKS


def _sorts() -> tuple[str, ...]:
    from pageowner.analysis.filters import SORTS

    return SORTS


keys = one_of(_keys, several=True)
live_keys = one_of(_live_keys)
colourings = one_of(lambda: ("age", *_keys()))
sorts = one_of(_sorts)
changes = one_of(lambda: ("change", "gained", "lost", "before", "after", "name"))
subsystems = one_of(_subsystems)
states = one_of(_states)
zones = one_of(_zones)
migratetypes = one_of(_migratetypes)
gfp_flags = one_of(_gfp_flags, several=True)
modules = one_of(_modules)

VALUES: dict[str, Complete] = {
    "module": modules, "subsystem": subsystems, "zone": zones, "gfp": gfp_flags,
    "migratetype": migratetypes, "state": states}
"""Of the filters whose values are known."""
