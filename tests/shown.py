"""``pageowner`` as tests run the commands that documents show.

SHOWN_SOURCE names a snapshot: it is asked where a command asks this machine, and of ``on``,
``off``, ``status``, ``doctor`` only the words are checked. Without it this machine is tracked.
Either way ``record``, ``top`` and ``serve``, which end when told to, are only checked, ``leaks``
watches for seconds, and /var/lib/pageowner is SHOWN_RECORDED.

``shown.py --serve SOCKET`` runs one command after another for tests/shown_client.py, each in a
fork of a process that has imported everything: to start Python and import Arrow anew is two thirds
of the time of a small report.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import sys

import click

import pageowner
from pageowner.cli import group, main

RECORDED = "/var/lib/pageowner"
OF_THE_MACHINE = ("on", "off", "status", "doctor")
OF_NO_SNAPSHOT = ("balance",)
"""Whose source is a vmcore alone."""
WITHOUT_END = ("record", "top", "serve")
SECONDS = ("--for", "8s", "--every", "1s")


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
        for name in ("source", "sources", "first", "after") if verb not in OF_NO_SNAPSHOT else ():
            if name in given and not given[name]:
                words += ["--source", source] if verb == "who" else [source]
    return words


def check(words: list[str]) -> dict[str, object]:
    """What click makes of a verb's words."""
    command = group.program.get_command(click.Context(group.program), words[0])
    if command is None:
        raise click.UsageError(f"there is no verb {words[0]}")
    return command.make_context(words[0], words[1:]).params


def run(words: list[str]) -> int:
    """Run the words as they are rewritten; returns the exit status."""
    try:
        asked = rewritten(words)
    except click.ClickException as error:
        print(f"{words}: {error.format_message()}", file=sys.stderr)
        return 2
    return main(asked) if asked is not None else 0


def serve(path: str) -> None:
    """Take commands for ever."""
    for module in pkgutil.walk_packages(pageowner.__path__, "pageowner."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("duckdb")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            if not os.fork():
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    status = 70
    try:
        text, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        asked = json.loads(text)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        status = run(asked["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        connection.send(bytes([status]))
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    sys.exit(run(sys.argv[1:]))
