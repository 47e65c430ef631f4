"""What CONTRIBUTING.md promises of adding things: that all else follows from these few places."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import pageowner
from pageowner.cli.group import EPILOG
from pageowner.model.source_kinds import KINDS, READERS

HOUSE = Path(pageowner.__file__).parent


def test_every_module_that_recognises_a_text_is_a_reader_of_a_kind() -> None:
    offering = {path.stem for path in (HOUSE / "sources").glob("*.py")
                if "\ndef recognises(" in path.read_text()}
    assert offering == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_offers_what_reads_a_text_and_the_help_names_it(name: str) -> None:
    assert callable(import_module(f"pageowner.sources.{name}").read)
    names = [kind.named for kind in KINDS.values() if kind.reader == name and kind.named]
    assert names
    assert all(named in EPILOG for named in names)
