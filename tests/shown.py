"""``pageowner`` as tests run the commands that documents show.

SHOWN_SOURCE names a snapshot: it is asked where a command asks this machine, and of ``on``, ``off``,
``status``, ``doctor`` only the words are checked. Without it this machine is tracked. Either way
``record`` and ``top``, which end when told to, are only checked, ``leaks`` watches for seconds, and
/var/lib/pageowner is SHOWN_RECORDED.
"""

from __future__ import annotations

import os
import sys

import click

from pageowner.cli import group, main

RECORDED = "/var/lib/pageowner"
OF_THE_MACHINE = ("on", "off", "status", "doctor")
WITHOUT_END = ("record", "top")
SECONDS = ("--for", "6s", "--every", "1s")


def rewritten(words: list[str]) -> list[str] | None:
    """The words to run; None if they were only to be checked.

    Raises click.ClickException for words that the verb does not take.
    """
    verb, *rest = words
    recorded, source = os.environ.get("SHOWN_RECORDED", RECORDED), os.environ.get("SHOWN_SOURCE")
    words = [verb, *(recorded if word == RECORDED else word for word in rest)]
    given = check(words)
    if verb in WITHOUT_END or (source and verb in OF_THE_MACHINE):
        return None
    if verb == "leaks" and not given["sources"]:
        return [*words, recorded] if source else [*words, *SECONDS]
    if source:
        for name in ("source", "sources", "first", "after"):
            if name in given and not given[name]:
                words += ["--source", source] if verb == "who" else [source]
    return words


def check(words: list[str]) -> dict[str, object]:
    """What click makes of a verb's words."""
    command = group._cli.get_command(click.Context(group._cli), words[0])
    if command is None:
        raise click.UsageError(f"there is no verb {words[0]}")
    return command.make_context(words[0], words[1:]).params


if __name__ == "__main__":
    try:
        asked = rewritten(sys.argv[1:])
    except click.ClickException as error:
        sys.exit(f"{sys.argv[1:]}: {error.format_message()}")
    sys.exit(main(asked) if asked is not None else 0)
