"""The command line: exit statuses, one line for what goes wrong, tables that add up."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asking import run
from rich.cells import cell_len
from said import one_line

import pageowner

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner import Snapshot

    Cli = Callable[..., Any]

COMMAND = [sys.executable, "-m", "pageowner"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: None, "No such file"),
    (lambda path: path.mkdir(), "is a directory"),
    (lambda path: path.write_bytes(b""), "it is empty"),
    (lambda path: path.write_bytes(b"\n\n\n"), "it is empty"),
    (lambda path: path.write_bytes(bytes(range(256)) * 4000), "no page_owner record"),
    (lambda path: path.write_bytes(b"\0" * (9 << 20)), "no page_owner record"),
    (lambda path: path.write_bytes(b"hello\n"), "no page_owner record"),
    (lambda path: path.write_bytes(b"Page allocated via order 0"), "no page_owner record"),
    (lambda path: path.symlink_to("/dev/null"), "it is empty"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    (lambda path: path.write_bytes(b"PAR1"), "damaged Parquet"),
    (lambda path: path.write_bytes(b"\x1f\x8b"), "damaged or truncated"),
    (lambda path: path.write_bytes(b"\xfd7zXZ\0"), "damaged or truncated"),
    (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd"), "damaged or truncated"),
])
@pytest.mark.parametrize("verb", [["report"], ["stacks"], ["dump"], ["who", "1", "-s"]])
def test_what_is_no_source_is_said_in_one_line_with_status_1(
        cli: Cli, tmp_path: Path, make: Callable[[Path], None], message: str,
        verb: list[str]) -> None:
    path = tmp_path / "source"
    make(path)
    done = cli(*verb, path)
    assert (done.status, done.out) == (1, b"")
    assert message in one_line(done.err)
    assert str(path) in done.err.decode()


def test_a_source_that_may_not_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(pageowner.PageownerError) as caught:
            pageowner.read(path)
    finally:
        os.seteuid(user)
    assert str(caught.value) == f"{path}: cannot read: Permission denied"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_is_not_root_is_told_that_this_machine_is_for_root(
        monkeypatch: pytest.MonkeyPatch) -> None:
    from pageowner.sources import source

    # as bpffs and debugfs look to others
    monkeypatch.setattr(source, "TRACKER", "/nonexistent")
    monkeypatch.setattr(source, "KERNEL_PAGE_OWNER", "/nonexistent")
    with pytest.raises(pageowner.PageownerError, match="not being tracked on this machine"):
        pageowner.read()
    os.seteuid(65534)
    try:
        with pytest.raises(pageowner.PageownerError, match="needs root: use sudo"):
            pageowner.read()
    finally:
        os.seteuid(0)


def test_a_dump_without_stacks_is_not_called_untracked(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"Page allocated via order 0, mask 0x0(), pid 1, tgid 1 (a), ts 5 ns\n"
                     b"PFN 0x5 type Unmovable Block 0 type Unmovable Flags 0x0()\n\n")
    out = cli("report", path).out
    assert b"(no stack in the dump)" in out
    assert b"tracking" not in out


@pytest.mark.parametrize("words", [
    ["nosuch"], ["report", "--nosuch"], ["report", "a", "b"], ["report", "--by"],
    ["report", "--by", "nosuch"], ["report", "--by", ""], ["report", "--by", "comm,,order"],
    ["report", "--sort", "nosuch"], ["report", "--sort", "pid"], ["report", "--top", "0"],
    ["report", "--top", "many"], ["report", "--top", "5", "--all"], ["report", "--pid", "x"],
    ["report", "--order", "1,,2"], ["report", "--older", "soon"], ["report", "--older", "5y"],
    ["report", "--newer", "-5s"], ["report", "--older", "9" * 400 + "d"],
    ["who"], ["who", "x"], ["who", "-1"], ["who", "0x" + "f" * 20],
    ["stacks", "--threshold", "-1"], ["stacks", "--threshold", "x"], ["save"], ["save", "-"],
    ["dump", "--json"], ["export"], ["export", "--format", "nosuch"],
    ["flame", "--html", "-"], ["flame", "--svg", "-"], ["flame", "--svg", "x", "--html", "x"],
    ["flame", "--svg", "x", "--html", "./x"],
])
def test_wrong_words_are_said_in_one_line_with_status_2_before_anything_is_read(
        cli: Cli, words: list[str]) -> None:
    source = ["/nonexistent"] if words[0] in ("report", "stacks") and len(words) > 1 else []
    if words == ["report", "a", "b"] or words[-1] == "--by":
        source = []
    done = cli(*words, *source)
    assert (done.status, done.out) == (2, b"")
    one_line(done.err)


@pytest.mark.parametrize("words", [
    ["flame", "--html"], ["fleet", "push", "--every"], ["report", "--top", "x"], ["--top"]])
def test_wrong_usage_points_to_the_help_of_its_verb(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    verbs = " ".join(["pageowner", *(word for word in words[:-1] if not word.startswith("-"))])
    assert done.status == 2
    assert done.err.endswith(f"; see '{verbs} --help'\n".encode())


def test_a_state_that_no_page_has_is_wrong_usage(cli: Cli, some_records: Path) -> None:
    done = cli("report", some_records, "--state", "nosuch")
    assert (done.status, done.out) == (2, b"")
    assert "owned, early, untracked" in one_line(done.err)


def test_no_words_at_all_show_the_help_with_status_2(cli: Cli) -> None:
    done = cli()
    assert done.status == 2
    assert b"Verbs" in done.out + done.err


def test_help_and_version_are_no_errors(cli: Cli) -> None:
    from pageowner.cli.group import VERBS

    assert cli("--help").status == cli("-h").status == cli("--version").status == 0
    for verb in VERBS:
        if verb != "sort":  # the kernel's tool has its own
            done = cli(verb, "--help")
            assert (done.status, done.err) == (0, b"")
            assert b"Usage: pageowner " + verb.encode() in done.out


@pytest.mark.parametrize("words", [["-m", "pageowner", "--help"],
                                   ["-m", "pageowner", "report", "--help"],
                                   ["-m", "pageowner.page_owner_sort.command", "/dev/null",
                                    "/dev/null"]])
def test_help_and_sorting_wait_for_no_heavy_import(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True)
    imported = {line.split(b"|")[-1].strip().split(b".")[0] for line in done.stderr.splitlines()
                if line.startswith(b"import time:")}
    assert b"pageowner" in imported
    assert not imported & {b"pyarrow", b"numpy", b"rich", b"duckdb", b"textual", b"pandas"}


def test_numpy_starts_no_threads_in_a_command() -> None:
    def threads(imported: str) -> int:
        code = f"import os, {imported}; print(len(os.listdir('/proc/self/task')))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True,
                              env={name: value for name, value in os.environ.items()
                                   if name != "OPENBLAS_NUM_THREADS"})
        return int(done.stdout)

    if threads("numpy") == 1:
        pytest.skip("numpy starts no threads here: one CPU, or another library")
    assert threads("pageowner.start, numpy") == 1


def test_a_damaged_dump_is_reported_with_a_warning_that_says_where(
        cli: Cli, some_records: Path, tmp_path: Path) -> None:
    text = some_records.read_bytes()
    path = tmp_path / "damaged.txt"
    path.write_bytes(b"junk\n\n" + text[:-20])
    done = cli("report", path, "--by", "comm")
    assert done.status == 0
    line = one_line(done.err)
    assert "2 damaged records skipped" in line
    assert "the first at byte 0: not a record" in line


def test_standard_input_is_a_source_for_every_verb(some_records: Path) -> None:
    text = some_records.read_bytes()
    for words in (["report", "-", "--json"], ["stacks", "-"], ["dump", "-"],
                  ["who", "0x100", "-s", "-"]):
        done = subprocess.run([*COMMAND, *words], input=text, capture_output=True)
        assert done.returncode == 0
        assert done.stderr == b""
        assert done.stdout
        if words == ["dump", "-"]:
            assert done.stdout == text


@pytest.mark.parametrize("redirect", ["<&-", "</dev/null"])
def test_a_useless_standard_input_is_said_in_one_line(redirect: str) -> None:
    done = subprocess.run(["sh", "-c", f'exec "$@" {redirect}', "sh", *COMMAND, "report", "-"],
                          capture_output=True)
    assert done.returncode == 1
    one_line(done.stderr)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["report", "--all"],
                                   ["report", "--json"], ["dump"], ["stacks"],
                                   ["who", "0x100", "-s"], ["who", "0xfffff", "-s"]])
@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_said_in_one_line(
        some_records: Path, words: list[str], redirect: str) -> None:
    source = [] if words[0].startswith("-") else [some_records]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *COMMAND, *words, *source],
        capture_output=True)
    assert done.returncode == 1
    assert "cannot write the output" in one_line(done.stderr)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_ends_the_command_in_silence(
        few_saved: Path, unbuffered: str) -> None:
    # Unbuffered, Python itself takes a write that was cut off for a whole one.
    with subprocess.Popen([*COMMAND, "dump", few_saved], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE,
                          env={**os.environ, "PYTHONUNBUFFERED": unbuffered}) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_closed_standard_error_loses_no_output(some_records: Path) -> None:
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "dump", some_records],
                          capture_output=True)
    assert (done.returncode, done.stdout) == (0, some_records.read_bytes())


def test_a_locale_without_arrows_still_gets_its_report(some_records: Path) -> None:
    done = subprocess.run([*COMMAND, "report", some_records], capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_a_starter_that_ignores_the_death_of_children_gets_its_report(dump_text: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "report", dump_text, "--top", "1"], capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"179,605 blocks" in done.stdout


def children(parent: int) -> list[int]:
    return [int(pid) for task in Path(f"/proc/{parent}/task").iterdir()
            for pid in (task / "children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_a_dump_is_read_ends_every_process(
        dump_text: Path, number: signal.Signals) -> None:
    with subprocess.Popen([*COMMAND, "report", dump_text], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        if len(os.sched_getaffinity(0)) > 1:
            workers: list[int] = []
            while not workers and process.poll() is None:
                workers = children(process.pid)
        else:
            time.sleep(0.5)
            workers = []
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == b""
    assert err.strip() == b""
    for worker in workers:
        assert not Path(f"/proc/{worker}").exists()


def test_ctrl_c_while_a_silent_pipe_is_read_ends_at_once() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen([*COMMAND, "report", "-"], stdin=reading, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        os.close(reading)
        os.write(writing, b"Page allocated via order 0, mask")
        left = array.array("i", [1])
        while left[0]:  # until it has been read, and more is awaited
            assert process.poll() is None
            time.sleep(0.05)
            fcntl.ioctl(writing, termios.FIONREAD, left)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    os.close(writing)
    assert process.returncode == 130
    assert err.strip() == b""


def test_json_is_valid_and_adds_up_for_every_verb(cli: Cli, few_saved: Path, few: Snapshot) -> None:
    for by in ("stack", "comm", "pid", "tid", "order", "gfp", "migratetype", "block", "module",
               "subsystem", "frame", "memcg", "zone", "node", "state", "reason", "comm,order"):
        done = cli("report", few_saved, "--by", by, "--json", "--top", "3")
        assert (done.status, done.err) == (0, b"")
        said = json.loads(done.out)
        assert said["by"] == by.split(",")
        assert said["pages"] == few.pages == said["rest"]["pages"] + sum(
            owner["pages"] for owner in said["owners"])
        assert said["blocks"] == few.table.num_rows == said["rest"]["blocks"] + sum(
            owner["blocks"] for owner in said["owners"])
        assert said["bytes"] == said["pages"] * 4096
        assert len(said["owners"]) + said["rest"]["owners"] == few.report(by=by).num_rows
        assert len(said["owners"]) <= 3
    stacks = json.loads(cli("stacks", few_saved, "--json", "--threshold", "10").out)
    assert json.loads(cli("stacks", few_saved, "--json", "--top", "2").out) == stacks[:2]
    assert stacks
    assert all(one["nr_base_pages"] >= 10 and isinstance(one["stack"], list) for one in stacks)
    first = few.table["pfn"][500].as_py()
    (page,) = json.loads(cli("who", hex(first), "-s", few_saved, "--json").out)
    assert page["blocks"][0]["pfn"] == first


def test_owners_not_shown_are_summed_up_never_dropped(
        cli: Cli, few_saved: Path, few: Snapshot) -> None:
    everyone = cli("report", few_saved, "--by", "comm", "--all").out.decode()
    assert "more owner" not in everyone
    owners = len(set(few.table["comm"].to_pylist()))
    assert len(everyone.splitlines()[3:]) == owners
    for top in (1, 5, owners - 1):
        text = cli("report", few_saved, "--by", "comm", "--top", str(top)).out.decode()
        rows = re.findall(r"^ *[\d.]+ [KMG]iB +([\d,]+) ", text, re.MULTILINE)
        rest = re.search(r"^and ([\d,]+) more owners?: .*, ([\d,]+) pages?", text, re.MULTILINE)
        assert rest
        assert len(rows) == top
        assert int(rest[1]) == owners - top
        total = sum(int(number.replace(",", "")) for number in [*rows, rest[2]])
        assert total == few.pages
    exact = cli("report", few_saved, "--by", "comm", "--top", str(owners)).out.decode()
    assert exact == everyone
    assert exact == cli("report", few_saved, "--by", "comm", "--top", "9" * 30).out.decode()


def test_what_a_source_does_not_know_puts_nothing_in_order(cli: Cli, tmp_path: Path) -> None:
    old, stacks = tmp_path / "old.txt", tmp_path / "show_stacks"  # of 4.6; without allocations
    old.write_bytes(b"Page allocated via order 0, mask 0x280da\nPFN 5 type Movable Block 0 type"
                    b" Movable Flags 0x0()\n f+0x1/0x2\n\n")
    stacks.write_bytes(b" f+0x1/0x2\nnr_base_pages: 5\n\n")
    pageowner.read(old).save(tmp_path / "old.parquet")
    for path, sort, why in ((old, "age", "does not know times of allocations"),
                            (tmp_path / "old.parquet", "age", "does not know times of allocations"),
                            (stacks, "blocks", "does not count blocks")):
        said = cli("report", path, "--sort", sort)
        assert (said.status, said.out) == (1, b"")
        assert why in one_line(said.err)
        assert cli("report", path, "--sort", "name").status == 0


def test_sorting_is_what_its_name_says(cli: Cli, few_saved: Path) -> None:
    def column(sort: str, key: str, *more: str) -> list[Any]:
        out = cli("report", few_saved, "--by", "comm", "--sort", sort, "--json", *more).out
        return [owner[key] for owner in json.loads(out)["owners"]]

    for sort, key, reverse in (("pages", "pages", True), ("blocks", "blocks", True),
                               ("name", "comm", False), ("age", "oldest_ns", False),
                               ("comm", "comm", False)):
        assert column(sort, key) == sorted(column(sort, key), reverse=reverse)
        assert column(sort, key, "--reverse") == column(sort, key)[::-1]


def test_who_finds_every_page_of_a_block_and_no_page_beside_it(
        cli: Cli, few_saved: Path, few: Snapshot) -> None:
    orders, pfns = few.table["order"].to_pylist(), few.table["pfn"].to_pylist()
    place = orders.index(max(orders))
    first, order = pfns[place], orders[place]
    assert order >= 1
    for pfn in (first, first + 1, first + (1 << order) - 1):
        done = cli("who", str(pfn), "-s", few_saved)
        assert done.status == 0
        assert (f"page {pfn - first + 1} of the block of order {order} at {first:#x}"
                in done.out.decode())
    covered = {pfn + n for pfn, order in zip(pfns, orders, strict=True) for n in range(1 << order)}
    free = next(pfn for pfn in range(first, 1 << 19) if pfn not in covered)
    done = cli("who", hex(free), hex(first), "-s", few_saved)
    assert done.status == 1
    assert "no owner known" in done.out.decode()
    assert f"of order {order}" in done.out.decode()


def on_a_terminal(*words: object, **environment: str) -> bytes:
    """What a command that ends well writes to a terminal."""
    master, slave = pty.openpty()
    out = b""

    def read() -> None:
        nonlocal out
        with suppress(OSError):  # the other end is closed
            while piece := os.read(master, 1 << 16):
                out += piece

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert run(*words, out=slave, **environment)[0] == 0
    finally:
        os.close(slave)
        reader.join()
        os.close(master)
    return out


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("words", [[], ["--by", "comm"], ["--by", "comm,stack,subsystem"],
                                   ["--by", "gfp,module,frame"]])
def test_tables_fit_the_terminal(few_saved: Path, width: int, words: list[str]) -> None:
    out = on_a_terminal("report", few_saved, *words, COLUMNS=str(width))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.decode()).split("\r\n")
    table = lines[2:-2]
    assert len(table) > 5
    if width >= 80:
        assert max(map(cell_len, table)) <= width


def test_no_colour_is_written_where_none_is_wanted(few_saved: Path) -> None:
    out = run("report", few_saved)[1]
    assert "MiB" in out
    assert "\x1b" not in out


def test_saving_a_saved_snapshot_changes_nothing(cli: Cli, few_saved: Path, tmp_path: Path) -> None:
    assert cli("save", tmp_path / "again.parquet", few_saved).status == 0
    assert pageowner.read(tmp_path / "again.parquet").table.equals(pageowner.read(few_saved).table)


def test_dump_writes_a_file_whole_and_private(cli: Cli, some_records: Path, tmp_path: Path) -> None:
    done = cli("dump", some_records, "-o", tmp_path / "out.txt")
    assert (done.status, done.out, done.err) == (0, b"", b"")
    assert (tmp_path / "out.txt").read_bytes() == some_records.read_bytes()
    assert cli("dump", some_records, "-o", tmp_path / "no" / "out.txt").status == 1


def test_python_gives_the_figures_of_the_command_line(cli: Cli, few_saved: Path) -> None:
    table = pageowner.read(few_saved).report(by="comm")
    said = json.loads(cli("report", few_saved, "--by", "comm", "--json").out)
    assert table.select(["comm", "pages", "blocks", "share"]).to_pylist() == [
        {name: owner[name] for name in ("comm", "pages", "blocks", "share")}
        for owner in said["owners"]]
    with pytest.raises(pageowner.UsageError):
        pageowner.read(few_saved).report(by=[])
    with pytest.raises(AttributeError, match="nosuch"):
        _ = pageowner.nosuch


def test_keys_that_are_given_one_by_one_all_count(cli: Cli, some_records: Path) -> None:
    assert cli("report", some_records, "--by", "comm", "--by", "order", "--json").out == cli(
        "report", some_records, "--by", "comm,order", "--json").out
