"""Every command that README.md and docs/ show does what they say, and names are all explained."""

from __future__ import annotations

import lzma
import re
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from documents import DOCUMENTS, TREE, Shell, commands, inline, is_shown, server
from pageowner.cli.group import VERBS, program
from pageowner.storage.recording import Recorder, owned_folder
from pageowner.tracker.load.memo import MEMO_COUNTERS
from pageowner.tracker.read.accounts import CLASSES
from pageowner.tracker.read.maps import COUNTERS
from pageowner.tracker.read.survey import SEEN
from shown import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner import Snapshot


def name_of(document: Path) -> str:
    return str(document.relative_to(TREE))


SHOWING = [document for document in DOCUMENTS if commands(document)]


@pytest.fixture(scope="module")
def recorded(sample61: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pageowner record` fills it: five captures of one boot, three hours apart."""
    folder = tmp_path_factory.mktemp("recorded") / "captures"
    now, began = time.time(), sample61.meta.clock_ns or 0
    with owned_folder(folder):
        recorder = Recorder(folder, 3 * 3600, 7 * 86400)
        for number in range(5):
            meta = replace(sample61.meta, boot_id="one", clock_ns=began + number * 10800 * 10**9)
            recorder.add(replace(sample61, meta=meta), now - 86400 * 2 + number * 10800)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("server")) as path:
        yield path


@pytest.mark.parametrize("document", SHOWING, ids=name_of)
def test_commands_shown_do_what_is_shown(document: Path, dump_text: Path, some_records: Path,
                                         sample61: Snapshot, recorded: Path, served: str,
                                         tmp_path: Path) -> None:
    todo = commands(document)
    whole = any(command.shown and "dump.txt" in command.text for command in todo)
    (tmp_path / "dump.txt").symlink_to(dump_text if whole else some_records)
    with lzma.open(tmp_path / "dump.txt.xz", "wb", preset=0) as packed:
        packed.write(some_records.read_bytes())
    for name in ("now", "before", "after", "old", "new"):
        sample61.save(tmp_path / f"{name}.parquet")
    lines = some_records.read_bytes().splitlines(keepends=True)
    for number, day in enumerate(("monday", "tuesday", "wednesday", "thursday")):
        later = re.sub(rb"ts \d+ ns", b"ts %d ns" % ((10000 + number) * 10**9), lines[0])
        (tmp_path / f"{day}.txt").write_bytes(later + b"".join(lines[1:]))
    (tmp_path / "console.log").symlink_to(TREE / "tests/data/logs/oom-6.12.txt")
    (tmp_path / "leak.py").write_text("import time; time.sleep(60)")
    shell = Shell(tmp_path, {"SHOWN_SOURCE": str(tmp_path / "now.parquet"),
                             "SHOWN_RECORDED": str(recorded), "SHOWN_SERVER": served})
    try:
        for command in todo:
            status, printed = shell.run(command.text)
            said = f"{command.place}: {command.text}\n" + "\n".join(printed)
            assert status == 0, said
            # What this machine said is not what a snapshot says.
            if "dump.txt" in command.text or "console.log" in command.text:
                assert is_shown(command.shown, printed), said
    finally:
        shell.close()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_in_sentences_have_words_that_are_taken(document: Path) -> None:
    for words in inline(document):
        if "VERB" not in words and not words[0].startswith("-"):
            # a mention may leave out what the verb cannot do without
            with suppress(click.MissingParameter):
                check(["pprof" if word == "FORMAT" else word for word in words
                       if word not in ("…", "[SOURCE]", "[SOURCE…]", "[-o")])


def test_every_document_is_in_the_book() -> None:
    listed = (TREE / "docs/index.md").read_text().split()
    for document in (TREE / "docs").glob("**/*.md"):
        name = str(document.relative_to(TREE / "docs").with_suffix(""))
        assert name in {*listed, "index"} or name.endswith("at-boot"), name


def test_every_counter_is_explained(sample61: Snapshot) -> None:
    page = (TREE / "docs/reference/counters.md").read_text()
    names = {*COUNTERS, *MEMO_COUNTERS, *SEEN, *sample61.meta.counters, "missed_in_interrupts",
             *(name for name in CLASSES if name != "absent")}
    # a hook's own is called by the hook
    assert not {name for name in names if f"`{re.sub('^ran_.*', 'ran_*', name)}`" not in page}


def test_the_page_of_objects_names_the_verbs_that_read_them() -> None:
    context = click.Context(program)
    verbs = {name: program.get_command(context, name) for name in VERBS if name != "on"}
    taking = {name for name, verb in verbs.items()
              if verb is not None and any("--objects" in one.opts for one in verb.params)}
    named, = re.findall(r"^(.*) take `--objects`", (TREE / "docs/objects.md").read_text(),
                        re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", named)) == taking


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(\s*([^)#]+)", (TREE / "README.md").read_text())
    assert links
    assert not [link for link in links if "://" not in link and not (TREE / link).exists()]
