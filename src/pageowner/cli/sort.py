"""``pageowner sort``: Drop-in replacement for the kernel's page_owner_sort."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("sort", context_settings={
    "ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> None:
    """Drop-in for the kernel's page_owner_sort: same options, same output."""
    from pageowner.page_owner_sort.command import main

    raise click.exceptions.Exit(main(list(words)))
