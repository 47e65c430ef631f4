"""What the command line does, a call in Python does: all examples of docs/reference/api.md run, and
both ways give the same."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asking import python

import pageowner
from documents import DOCUMENTS, TREE, Example, examples, run
from pageowner.cli.group import VERBS
from pageowner.page_owner_sort.command import main as sort_command

API = TREE / "docs/reference/api.md"
EXAMPLES = examples(API)
CALLS = {name for name in pageowner.__all__ if name[0].islower()}


@pytest.fixture(scope="module")
def folder(some_records: Path, sample61: pageowner.Snapshot,
           tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples are run: the files that they name, as in test_documents."""
    made = tmp_path_factory.mktemp("library")
    (made / "dump.txt").symlink_to(some_records)
    (made / "console.log").symlink_to(TREE / "tests/data/logs/oom-6.12.txt")
    for name in ("now", "before", "after"):
        sample61.save(made / f"{name}.parquet")
    lines = some_records.read_bytes().splitlines(keepends=True)
    for number, day in enumerate(("monday", "tuesday", "wednesday", "thursday")):
        later = re.sub(rb"ts \d+ ns", b"ts %d ns" % ((10000 + number) * 10**9), lines[0])
        (made / f"{day}.txt").write_bytes(later + b"".join(lines[1:]))
    return made


def test_every_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for example in EXAMPLES:
        if not example.of_this_machine:  # those are run in tests/live
            run(example, names)
    for name in ("slab.parquet", "page_owner.txt", "change.html", "memory.png", "memory.pb.gz",
                 "sorted.txt"):
        assert (folder / name).stat().st_size, name
    assert names["written"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("document", [
    one for one in DOCUMENTS if examples(one) and one not in (API, TREE / "docs/tutorial.md")],
    ids=lambda one: str(one.relative_to(TREE)))
def test_examples_of_other_pages_run(document: Path, folder: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the tutorial's, which is a program that leaks (test_documents_live)."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"pageowner": pageowner}
    for example in examples(document):
        run(example, names)


def test_every_call_has_an_example_beside_a_line_of_the_shell() -> None:
    text = API.read_text()
    for call in CALLS:
        assert f"pageowner.{call}(" in text, call
        assert f"autofunction:: pageowner.{call}\n" in text, call
    lines = re.findall(r"^(?:sudo )?(?:pageowner )?(\w+)", "".join(
        re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)), re.MULTILINE)
    assert set(VERBS) - {"completion"} <= {*lines, "sort"}


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert set(dir(pageowner)) == set(pageowner.__all__)
    assert {"read", "owners", "diff", "leaks", "on", "capture", "sort", "status"} <= CALLS
    for name in set(pageowner.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(pageowner, name)), name
    for name in CALLS:
        call = getattr(pageowner, name)
        assert all(parameter.annotation is not inspect.Parameter.empty
                   for parameter in inspect.signature(call).parameters.values()), name
        assert inspect.signature(call).return_annotation, name


def test_the_package_itself_imports_nothing_heavy() -> None:
    def modules(code: str) -> set[str]:
        return set(python(f"import sys{code}; print(*sys.modules)").split())

    new = modules(", pageowner; pageowner.UsageError") - modules("")
    assert "pageowner.errors" in new
    assert not {"numpy", "pyarrow", "click", "rich", "typing", "importlib"} & new


def test_what_type_checkers_read_is_written_by_the_script(tmp_path: Path) -> None:
    written = tmp_path / "facade.pyi"
    subprocess.run([TREE / "scripts/facade", written], check=True,
                   env={**os.environ, "PYTHON": sys.executable})
    assert written.read_text() == Path(pageowner.__file__).with_suffix(".pyi").read_text(), (
        "run scripts/facade and commit what it writes")


def test_a_type_checker_knows_every_name_and_no_other(tmp_path: Path) -> None:
    code = "import pageowner\n" + "".join(f"pageowner.{name}\n" for name in pageowner.__all__)
    (tmp_path / "use.py").write_text(code + "pageowner.nothing\n")
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", TREE / "pyproject.toml",
                           "--cache-dir", TREE / ".mypy_cache", tmp_path / "use.py"],
                          capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert '"nothing"' in errors[0]


def test_modules_of_the_package_do_not_hide_its_calls() -> None:
    code = ("import importlib, pkgutil, pageowner, sys\n"
            "for one in pkgutil.iter_modules(pageowner.__path__):\n"
            "    if one.name != '__main__': importlib.import_module(f'pageowner.{one.name}')\n"
            "print(*(name for name in pageowner.__all__ if hasattr(getattr(pageowner, name),"
            " '__path__')))")
    assert python(code).split() == []


def _json(cli: Any, *words: object) -> Any:
    status, out, err = cli(*map(str, words), "--json")
    assert status == 0, err
    return json.loads(out)


def test_both_ways_find_the_same_owners(folder: Path, cli: Any) -> None:
    """Of a dump read as sums, and as a table."""
    for name in ("dump.txt", "now.parquet"):
        said = _json(cli, "report", folder / name, "--by", "comm,order")
        found = pageowner.owners(folder / name, "comm,order").table.to_pylist()
        assert [one["pages"] for one in said["owners"]] == [one["pages"] for one in found]
        whole = pageowner.read(folder / name).report("comm,order").to_pylist()
        assert [{**one} for one in found] == whole
        assert whole


def test_both_ways_find_the_same_changes(folder: Path, cli: Any) -> None:
    said = _json(cli, "diff", folder / "dump.txt", folder / "after.parquet", "--by", "comm")
    found = pageowner.diff(folder / "dump.txt", folder / "after.parquet", "comm")
    assert [(one["comm"], one["gained"]) for one in said["changes"]] == list(
        zip(*(found.changes[name].to_pylist() for name in ("comm", "gained")), strict=True))
    assert found.changes.num_rows
    assert found.after.pages == pageowner.read(folder / "after.parquet").pages


def test_both_ways_find_the_same_fragmentation(folder: Path, cli: Any) -> None:
    said = _json(cli, "frag", folder / "dump.txt", "--order", "9", "--want", "2")
    found = pageowner.frag(folder / "dump.txt", order=9, want=2)
    assert said["states"] == found.states
    assert found.plan is not None
    assert said["plan"]["gain"] == found.plan["gain"]


def test_both_ways_find_the_same_owner_of_a_page(folder: Path, cli: Any) -> None:
    pfn = pageowner.read(folder / "dump.txt").table["pfn"][7].as_py()
    said, = _json(cli, "who", pfn, "-s", folder / "dump.txt")
    found, = pageowner.who(pfn, source=folder / "dump.txt")
    assert said["blocks"][0]["stack"] == found.blocks[0]["stack"].split("\n")
    assert found.blocks[0]["pfn"] == pfn
    assert pageowner.who(f"{pfn:#x}", source=folder / "dump.txt") == [found]


def test_both_ways_export_the_same_bytes(folder: Path, cli: Any, tmp_path: Path) -> None:
    for kind in ("folded", "csv", "json"):
        pageowner.export(folder / "dump.txt", tmp_path / kind, kind, by="comm")
        assert (tmp_path / kind).read_bytes() == cli(
            "export", folder / "dump.txt", "--format", kind, "--by", "comm")[1]


@pytest.mark.parametrize(("words", "by", "options"), [
    ((), "times", {}), (("-m", "--cull", "st,name"), "pages", {"cull": ["st", "name"]}),
    (("--sort", "-at,pid"), "-at,pid", {}), (("-f",), "times", {"released": False}),
    (("--pid", "1,2", "--name", "systemd"), "times", {"pid": [1, 2], "name": ["systemd"]}),
    (("--tgid", "1", "--module", "vmlinux"), "times", {"tgid": [1], "module": ["vmlinux"]})])
def test_both_ways_sort_the_same(folder: Path, tmp_path: Path, words: tuple[str, ...], by: str,
                                 options: dict[str, Any]) -> None:
    assert sort_command([*words, str(folder / "dump.txt"), str(tmp_path / "tool.txt")]) == 0
    number = pageowner.sort(folder / "dump.txt", tmp_path / "call.txt", by, **options)
    text = (tmp_path / "call.txt").read_bytes()
    assert text == (tmp_path / "tool.txt").read_bytes()
    assert len(re.findall(rb"^\d+ times, ", text, re.MULTILINE)) == number
    assert number or by != "pages"


def test_answers_of_sql_are_tables(folder: Path) -> None:
    sql = "SELECT sum(pages) AS p, min(comm) AS c, 1.5 AS f FROM pages"
    snapshot = pageowner.read(folder / "now.parquet")
    found = pageowner.query(sql, snapshot).table()
    assert found["p"].to_pylist() == [snapshot.pages]
    assert str(found["p"].type) == "int64"
    assert pageowner.query("SELECT pfn FROM pages LIMIT 0", snapshot).table().num_rows == 0
    with pytest.raises(pageowner.PageownerError):
        pageowner.query("SELECT 1180591620717411303424 AS n", snapshot).table()


@pytest.mark.parametrize(("call", "words"), [
    ("diff", {"before": "dump.txt", "after": "dump.txt", "by": "colour"}),
    ("diff", {"before": "dump.txt", "after": "dump.txt", "sort": "colour"}),
    ("frag", {"source": "dump.txt", "by": "colour"}), ("frag", {"source": "dump.txt", "want": 3}),
    ("leaks", {"by": "colour"}), ("leaks", {"window": "long"}), ("leaks", {"every": "0s"}),
    ("flame", {"source": "dump.txt", "by": "colour"}),
    ("map", {"source": "dump.txt", "by": "colour"}), ("query", {"sql": "DROP TABLE pages"}),
    ("export", {"source": "dump.txt", "output": "x", "format": "colour"}),
    ("export", {"source": "dump.txt", "output": "x", "format": "folded", "unit": "colour"}),
    ("watch", {"by": "colour"}), ("watch", {"every": "1ms"}), ("watch", {"sort": "colour"}),
    ("record", {"folder": "x", "every": "0s"}),
    ("who", {"virt": [(1, 4096)], "source": "dump.txt"})])
def test_wrong_words_are_an_error_of_usage(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                           call: str, words: dict[str, Any]) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(pageowner.UsageError) as error:
        getattr(pageowner, call)(**words)
    assert "\n" not in str(error.value)
    assert not (folder / "x").exists()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.place.rpartition(":")[2])
def test_examples_take_a_line_of_100_at_most(example: Example) -> None:
    assert max(map(len, example.text.splitlines())) <= 100
