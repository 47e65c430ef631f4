"""``pageowner completion``: Print the script for Tab completion in bash, zsh or fish."""

from __future__ import annotations

import click

from pageowner.cli.verb import verb

__all__ = ["SHELLS", "command", "script"]

SHELLS = ("bash", "zsh", "fish")


@verb("completion")
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
def command(shell: str) -> None:
    """Print the script that lets Tab complete verbs, options and values in bash, zsh or fish.

    Examples:
        pageowner completion bash >>~/.bashrc
            for bash; then open a new shell
        pageowner completion zsh >>~/.zshrc
            for zsh, after its compinit
        pageowner completion fish >~/.config/fish/completions/pageowner.fish  for fish
    """
    print(script(shell), end="")


def script(shell: str) -> str:
    """The script of one of `SHELLS`."""
    from click.shell_completion import ShellComplete, get_completion_class

    from pageowner.cli.complete import VARIABLE, register
    from pageowner.cli.group import program

    register()
    kind = get_completion_class(shell)
    assert kind is not None
    # not through the class of bash, which runs bash for its version and complains where it is old
    return ShellComplete.source(kind(program, {}, "pageowner", VARIABLE)).lstrip("\n")
