"""What follows from the declarations of columns and keys, and what has to be there for each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pageowner.analysis import coded, subsystems
from pageowner.analysis.filters import key_names
from pageowner.analysis.keys import key
from pageowner.analysis.live import BASE, Live, labels_of
from pageowner.analysis.live_rows import told_by_records
from pageowner.cli import complete
from pageowner.model import schema
from pageowner.model.live import TASK
from pageowner.model.snapshot import SCHEMA, Snapshot

DOCS = Path(__file__).parents[2] / "docs"


def test_every_place_among_the_keys_is_taken_once() -> None:
    places = [column.key.place for column in schema.COLUMNS.values() if column.key]
    assert len(set(places)) == len(places)
    assert len({*schema.ALIASES, *schema.KEYS}) == len(schema.ALIASES) + len(schema.KEYS)
    for alias, name in schema.ALIASES.items():
        assert key_names(alias) == [name]


@pytest.mark.parametrize("name", schema.KEYS)
def test_a_key_has_labels_of_its_columns_type(sample61: Snapshot, name: str) -> None:
    column = schema.BY_KEY[name]
    assert column.source in SCHEMA.names
    kind = str(key(sample61, name).labels.type)
    assert kind == ("string" if column.type == schema.TEXT else column.type)


def test_what_is_told_from_a_stack_can_be_told_of_one_and_of_all() -> None:
    assert set(schema.OF_STACK) == set(subsystems.OF_STACK) == set(coded.OF_STACKS)


def test_the_live_view_asks_for_the_field_that_tells_a_key() -> None:
    for name, field in schema.LOOKS.items():
        assert Live(name).needs() == BASE | {field}
        assert (field == "task") == (name in TASK)
        assert (field == "stack") == (name in ("stack", *schema.OF_STACK))
    assert labels_of("pid", [("bash", 7, 8), None]) == [7, None]
    assert labels_of("tid", [("bash", 7, 8), None]) == [8, None]
    assert labels_of("module", ["f+0x1/0x2 [ext4]", None]) == ["ext4", None]
    assert labels_of("zone", ["DMA", None]) == ["DMA", None]


def test_records_tell_what_needs_no_look_elsewhere() -> None:
    assert told_by_records(["stack", "comm", "pid", "tid", "module", "subsystem", "frame",
                            "allocator", "order", "gfp", "migratetype"])
    assert not any(told_by_records(["stack", name]) for name in (
        "memcg", "zone", "node", "block", "state", "reason"))


def test_every_filter_is_of_a_key_or_an_age() -> None:
    for name, word in schema.FILTERS.items():
        assert (schema.LOOKED_AT[name] in schema.KEYS) != (word.takes == schema.AGE)
    numbers = {name for name, word in schema.FILTERS.items() if word.takes == schema.NUMBERS}
    assert numbers == schema.NUMERIC
    assert set(complete.VALUES) <= set(schema.FILTERS)


def test_a_filter_tells_what_was_asked_for() -> None:
    chosen = schema.Filter(pid=7, comm=["a", "b"], older="5m")
    assert chosen.given() == {"pid": (7,), "comm": ("a", "b"), "older": "5m"}
    assert not schema.Filter(comm=())


@pytest.mark.parametrize(("page", "columns"), [("snapshot.md", schema.SAVED),
                                               ("query.md", schema.DERIVED)])
def test_pages_list_the_columns_in_the_words_of_the_declaration(
        page: str, columns: dict[str, str]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", (DOCS / page).read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == list(columns)
    for name, kind, text in rows:
        assert kind == schema.COLUMNS[name].type
        said = text.replace("`", "")
        assert said.startswith(columns[name]), name
        # a page may say more behind that
        assert said[len(columns[name]):][:2] in ("", " (", ": ", ", "), name


def test_words_are_known_without_arrow_and_numpy() -> None:
    code = ("import sys, pageowner.analysis.filters, pageowner.model.schema\n"
            "assert not {'pyarrow', 'numpy'} & set(sys.modules), sorted(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
