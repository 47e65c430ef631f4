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
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

import pageowner

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner import Snapshot

    Cli = Callable[..., Any]

COMMAND = [sys.executable, "-m", "pageowner"]


@pytest.fixture(scope="module")
def few(some_records: Path) -> Snapshot:
    """Records from all over the big dump."""
    return pageowner.read(some_records)


@pytest.fixture(scope="module")
def saved(few: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "few.parquet"
    few.save(path)
    return path


def one_line(text: bytes) -> str:
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert b"Traceback" not in text
    assert text.startswith(b"pageowner: ")
    return text.decode()


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: None, "No such file"),
    (lambda path: path.mkdir(), "is a folder"),
    (lambda path: path.write_bytes(b""), "it is empty"),
    (lambda path: path.write_bytes(b"\n\n\n"), "it is empty"),
    (lambda path: path.write_bytes(bytes(range(256)) * 4000), "no record of page_owner"),
    (lambda path: path.write_bytes(b"\0" * (9 << 20)), "no record of page_owner"),
    (lambda path: path.write_bytes(b"hello\n"), "no record of page_owner"),
    (lambda path: path.write_bytes(b"Page allocated via order 0"), "no record of page_owner"),
    (lambda path: path.symlink_to("/dev/null"), "it is empty"),
    (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    (lambda path: path.write_bytes(b"PAR1"), "damaged Parquet"),
    (lambda path: path.write_bytes(b"\x1f\x8b"), "damaged or cut short"),
    (lambda path: path.write_bytes(b"\xfd7zXZ\0"), "damaged or cut short"),
    (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd"), "damaged or cut short"),
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
    with pytest.raises(pageowner.PageownerError, match="nothing keeps the owners"):
        pageowner.read()
    os.seteuid(65534)
    try:
        with pytest.raises(pageowner.PageownerError, match="for root to read: use sudo"):
            pageowner.read()
    finally:
        os.seteuid(0)


def test_a_dump_without_stacks_is_not_called_untracked(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"Page allocated via order 0, mask 0x0(), pid 1, tgid 1 (a), ts 5 ns\n"
                     b"PFN 0x5 type Unmovable Block 0 type Unmovable Flags 0x0()\nhandle: 7\n\n")
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


def test_a_damaged_dump_is_reported_with_a_warning_that_says_where(
        cli: Cli, some_records: Path, tmp_path: Path) -> None:
    text = some_records.read_bytes()
    path = tmp_path / "damaged.txt"
    path.write_bytes(text + b"junk\n\n" + text[:-20])
    done = cli("report", path, "--by", "comm")
    assert done.status == 0
    line = one_line(done.err)
    assert "2 damaged records skipped" in line
    assert f"the first at byte {len(text)}" in line


def test_standard_input_is_a_source_for_every_verb(some_records: Path) -> None:
    text = some_records.read_bytes()
    for words in (["report", "-", "--json"], ["stacks", "-"], ["dump", "-"],
                  ["who", "0x100", "-s", "-"]):
        done = subprocess.run([*COMMAND, *words], input=text, capture_output=True)
        assert done.returncode == 0
        assert done.stderr == b""
        assert done.stdout
    assert subprocess.run([*COMMAND, "dump", "-"], input=text,
                          capture_output=True).stdout == text


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
        saved: Path, unbuffered: str) -> None:
    # Unbuffered, Python itself takes a write that was cut off for a whole one.
    with subprocess.Popen([*COMMAND, "dump", saved], stdout=subprocess.PIPE,
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


def test_json_is_valid_and_adds_up_for_every_verb(cli: Cli, saved: Path, few: Snapshot) -> None:
    for by in ("stack", "comm", "pid", "tgid", "order", "gfp", "migratetype", "block", "module",
               "subsystem", "frame", "memcg", "zone", "node", "state", "reason", "comm,order"):
        done = cli("report", saved, "--by", by, "--json", "--top", "3")
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
    stacks = json.loads(cli("stacks", saved, "--json", "--threshold", "10").out)
    assert json.loads(cli("stacks", saved, "--json", "--top", "2").out) == stacks[:2]
    assert stacks
    assert all(one["nr_base_pages"] >= 10 and isinstance(one["stack"], list) for one in stacks)
    first = few.table["pfn"][500].as_py()
    (page,) = json.loads(cli("who", hex(first), "-s", saved, "--json").out)
    assert page["blocks"][0]["pfn"] == first


def test_owners_not_shown_are_summed_up_never_dropped(
        cli: Cli, saved: Path, few: Snapshot) -> None:
    everyone = cli("report", saved, "--by", "comm", "--all").out.decode()
    assert "more owner" not in everyone
    owners = len(set(few.table["comm"].to_pylist()))
    assert len(everyone.splitlines()[3:]) == owners
    for top in (1, 5, owners - 1):
        text = cli("report", saved, "--by", "comm", "--top", str(top)).out.decode()
        rows = re.findall(r"^ *[\d.]+ [KMG]iB +([\d,]+) ", text, re.MULTILINE)
        rest = re.search(r"^and ([\d,]+) more owners?: .*, ([\d,]+) pages?", text, re.MULTILINE)
        assert rest
        assert len(rows) == top
        assert int(rest[1]) == owners - top
        total = sum(int(number.replace(",", "")) for number in [*rows, rest[2]])
        assert total == few.pages
    exact = cli("report", saved, "--by", "comm", "--top", str(owners)).out.decode()
    assert exact == cli("report", saved, "--by", "comm", "--top", "9" * 30).out.decode() == everyone


def test_sorting_is_what_its_name_says(cli: Cli, saved: Path) -> None:
    def column(sort: str, key: str, *more: str) -> list[Any]:
        out = cli("report", saved, "--by", "comm", "--sort", sort, "--json", *more).out
        return [owner[key] for owner in json.loads(out)["owners"]]

    for sort, key, reverse in (("pages", "pages", True), ("blocks", "blocks", True),
                               ("name", "comm", False), ("age", "oldest_ns", False),
                               ("comm", "comm", False)):
        assert column(sort, key) == sorted(column(sort, key), reverse=reverse)
        assert column(sort, key, "--reverse") == column(sort, key)[::-1]


def test_every_filter_keeps_just_the_rows_that_match(
        sample61: Snapshot, few: Snapshot) -> None:
    some = few
    rows = {id(one): one.table.to_pylist() for one in (some, sample61)}

    def both(snapshot: Snapshot, good: Callable[[dict[str, Any]], bool], **words: Any) -> int:
        expected = [row["pfn"] for row in rows[id(snapshot)] if good(row)]
        assert snapshot.select(**words).table["pfn"].to_pylist() == expected
        return len(expected)

    newest = max(row["ts_ns"] for row in rows[id(some)])
    assert both(some, lambda row: row["pid"] in (0, 1), pid=(0, 1))
    assert both(sample61, lambda row: row["tgid"] == 1, tgid=1)
    assert both(some, lambda row: row["comm"].startswith("worker/"), comm="worker/*")
    assert both(sample61, lambda row: row["memcg"] is not None, memcg="*")
    assert both(some, lambda row: row["order"] in (1, 3), order=(1, 3))
    assert both(some, lambda row: row["zone"] == "0", zone="0")
    assert both(some, lambda row: "__GFP_ZERO" in row["gfp_flags"].split("|"), gfp="zero")
    assert both(some, lambda row: {"__GFP_ZERO", "__GFP_COMP"} <= set(
        row["gfp_flags"].split("|")), gfp=("COMP", "__GFP_ZERO"))
    assert both(some, lambda row: row["migratetype"] == "Movable", migratetype="movable")
    assert both(some, lambda row: row["state"] == "early", state="early")
    assert both(some, lambda row: any(
        frame.startswith("alloc_skb_with_frags+") for frame in row["stack"].split("\n")),
        stack="alloc_skb_with_frags")
    assert both(some, lambda row: newest - row["ts_ns"] >= 30 * 10**9, older="30s")
    assert both(some, lambda row: newest - row["ts_ns"] <= 12.5 * 10**9, newer="12.5s")
    assert both(some, lambda row: row["comm"] == "dd" and row["order"] == 0, comm="dd", order=0)
    assert both(some, lambda row: row["comm"] in ("dd", "python3"), comm=("dd", "python3"))
    assert both(some, lambda row: True, node=0)
    assert both(some, lambda row: False, subsystem="no such use") == 0


def test_ages_count_from_the_whole_dump_whatever_is_filtered(big: Snapshot) -> None:
    from pageowner.analysis.select import newest_ns

    newest = max(big.table["ts_ns"].to_pylist())
    old = big.select(comm="nginx")
    assert max(old.table["ts_ns"].to_pylist()) < newest
    assert newest_ns(old) == newest_ns(big) == newest
    assert old.select(newer="1s").table.num_rows == 0


def test_filters_are_the_same_words_on_the_command_line(
        cli: Cli, saved: Path, few: Snapshot) -> None:
    for words, chosen in (
            (["--comm", "dd", "--comm", "java"], {"comm": ("dd", "java")}),
            (["--order", "0x1,3"], {"order": (1, 3)}), (["--pid", "1"], {"pid": 1}),
            (["--tgid", "1"], {"tgid": 1}), (["--gfp", "ZERO,COMP"], {"gfp": "ZERO,COMP"}),
            (["--migratetype", "Movable"], {"migratetype": "Movable"}),
            (["--older", "40s"], {"older": "40s"}), (["--newer", "10s"], {"newer": "10s"}),
            (["--stack", "*skb*"], {"stack": "*skb*"}), (["--zone", "1"], {"zone": "1"}),
            (["--subsystem", "network*"], {"subsystem": "network*"}),
            (["--module", "nfs"], {"module": "nfs"}), (["--node", "0"], {"node": 0}),
            (["--state", "early"], {"state": "early"})):
        said = json.loads(cli("report", saved, "--json", *words).out)
        assert said["pages"] == few.select(**chosen).pages
    nothing = cli("report", saved, "--comm", "nobody")
    assert (nothing.status, nothing.err) == (0, b"pageowner: nothing of 1,852 blocks matches\n")
    part = cli("report", saved, "--stack", "handle_mm", "--json")
    assert part.err.startswith(b"pageowner: nothing of 1,852 blocks matches; names are matched"
                               b" whole, and '*handle_mm*' is in ")
    assert b"0 pages" in nothing.out
    assert cli("dump", saved, "--comm", "nobody").out == b""
    assert cli("stacks", saved, "--comm", "nobody").out == b""


@pytest.mark.parametrize(("words", "lacking"), [
    (["--memcg", "x"], "cgroups, so --memcg"), (["--older", "1s"], "times of allocations, so --o"),
    (["--newer", "1s"], "times of allocations, so --newer"), (["--node", "0"], "NUMA nodes"),
    (["--zone", "Normal"], "zones"), (["--tgid", "1"], "which processes allocated"),
    (["--comm", "x"], "names of tasks"), (["--pid", "1"], "which threads allocated"),
    (["--gfp", "ZERO"], "names of gfp flags"), (["--stack", "x"], "stacks, so --stack"),
    (["--module", "x"], "stacks, so --module"), (["--subsystem", "x"], "stacks, so --subsystem")])
def test_a_filter_on_what_the_source_does_not_know_is_an_error_and_no_empty_answer(
        cli: Cli, tmp_path: Path, words: list[str], lacking: str) -> None:
    bare = tmp_path / "bare.txt"  # as of 3.19, its pfns and stacks cut away
    bare.write_bytes(b"Page allocated via order 0, mask 0x280da\n\n" * 3)
    saved = tmp_path / "bare.parquet"
    pageowner.read(bare).save(saved)
    for source, verb in ((bare, "report"), (saved, "dump"), (saved, "stacks")):
        said = cli(verb, source, *words)
        assert (said.status, said.out) == (1, b"")
        assert f"bare.txt does not know {lacking}" in one_line(said.err)
    said = cli("save", tmp_path / "none.parquet", bare, *words)
    assert (said.status, (tmp_path / "none.parquet").exists()) == (1, False)


def test_a_filter_that_the_source_knows_of_some_rows_may_match_none(
        cli: Cli, saved: Path, tmp_path: Path) -> None:
    assert cli("report", saved, "--comm", "no such task").status == 0
    # of pages in use since before `on` no task is known; of others, once there are some, it is
    fresh = pageowner.Snapshot.from_columns(
        {"pfn": [1, 2], "order": [0, 0], "state": ["early", "early"], "page_flags": [0x80, 0]},
        pageowner.Metadata(kind="tracker"))
    fresh.save(path := tmp_path / "fresh.parquet")
    for words in (["--comm", "x"], ["--older", "1s"], ["--stack", "x"]):
        assert json.loads(cli("report", path, "--json", *words).out)["pages"] == 0
    assert json.loads(cli("report", path, "--json", "--subsystem", "slab*").out)["pages"] == 1
    assert cli("report", path, "--memcg", "/").status == 1


def test_who_finds_every_page_of_a_block_and_no_page_beside_it(
        cli: Cli, saved: Path, few: Snapshot) -> None:
    orders, pfns = few.table["order"].to_pylist(), few.table["pfn"].to_pylist()
    place = orders.index(max(orders))
    first, order = pfns[place], orders[place]
    assert order >= 1
    for pfn in (first, first + 1, first + (1 << order) - 1):
        done = cli("who", str(pfn), "-s", saved)
        assert done.status == 0
        assert (f"page {pfn - first + 1} of the block of order {order} at {first:#x}"
                in done.out.decode())
    covered = {pfn + n for pfn, order in zip(pfns, orders, strict=True) for n in range(1 << order)}
    free = next(pfn for pfn in range(first, 1 << 19) if pfn not in covered)
    done = cli("who", hex(free), hex(first), "-s", saved)
    assert done.status == 1
    assert "no owner known" in done.out.decode()
    assert f"of order {order}" in done.out.decode()


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("words", [[], ["--by", "comm"], ["--by", "comm,stack,subsystem"],
                                   ["--by", "gfp,module,frame"]])
def test_tables_fit_the_terminal(saved: Path, width: int, words: list[str]) -> None:
    master, slave = pty.openpty()
    with subprocess.Popen([*COMMAND, "report", saved, *words], stdout=slave,
                          env={**os.environ, "COLUMNS": str(width)}) as process:
        os.close(slave)
        out = b""
        try:
            while piece := os.read(master, 1 << 16):
                out += piece
        except OSError:
            pass
        assert process.wait() == 0
    os.close(master)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.decode()).split("\r\n")
    table = lines[2:-2]
    assert len(table) > 5
    if width >= 80:
        assert max(map(cell_len, table)) <= width


def test_no_colour_is_written_where_none_is_wanted(saved: Path) -> None:
    out = subprocess.run([*COMMAND, "report", saved], capture_output=True, check=True).stdout
    assert b"\x1b" not in out


def test_saving_a_saved_snapshot_changes_nothing(cli: Cli, saved: Path, tmp_path: Path) -> None:
    assert cli("save", tmp_path / "again.parquet", saved).status == 0
    assert pageowner.read(tmp_path / "again.parquet").table.equals(pageowner.read(saved).table)


def test_dump_writes_a_file_whole_and_private(cli: Cli, some_records: Path, tmp_path: Path) -> None:
    done = cli("dump", some_records, "-o", tmp_path / "out.txt")
    assert (done.status, done.out, done.err) == (0, b"", b"")
    assert (tmp_path / "out.txt").read_bytes() == some_records.read_bytes()
    assert cli("dump", some_records, "-o", tmp_path / "no" / "out.txt").status == 1


def test_python_gives_the_figures_of_the_command_line(cli: Cli, saved: Path) -> None:
    table = pageowner.read(saved).report(by="comm")
    said = json.loads(cli("report", saved, "--by", "comm", "--json").out)
    assert table.select(["comm", "pages", "blocks", "share"]).to_pylist() == [
        {name: owner[name] for name in ("comm", "pages", "blocks", "share")}
        for owner in said["owners"]]
    with pytest.raises(pageowner.UsageError):
        pageowner.read(saved).report(by=[])
    with pytest.raises(AttributeError, match="nosuch"):
        _ = pageowner.nosuch


@pytest.mark.parametrize(("rows", "freed", "said"), [
    ([], 40, "last freed at 0.000040 s after boot, 10 µs ago, by pid 7, tgid 6 (cc1)"),
    ([50], 40, "freed before that at 0.000040 s after boot, 10 µs ago, by pid 7, tgid 6 (cc1)"),
    ([30], 45, "freed meanwhile at 0.000045 s after boot, 5 µs ago, by pid 7, tgid 6 (cc1)"),
    ([30], 55, "freed meanwhile at 0.000055 s after boot, by pid 7, tgid 6 (cc1)"),
])
def test_who_says_who_freed_the_page_last(
        capsys: pytest.CaptureFixture[str], rows: list[int], freed: int, said: str) -> None:
    from pageowner.report import page_view
    from pageowner.report.terminal import Paper
    from pageowner.tracker.read.last_free import LastFree

    snapshot = pageowner.Snapshot.from_columns(
        {"pfn": [5] * len(rows), "order": [0] * len(rows), "ts_ns": [1000 * ts for ts in rows]},
        pageowner.Metadata(kind="tracker"))
    page_view.draw(5, snapshot.table.to_pylist(), snapshot.meta, 50_000, Paper(),
              LastFree(1000 * freed, 7, 6, "cc1", "free_unref_page+0x1/0x2\nexit_mmap+0x1/0x2"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [f"  {said}", "    free_unref_page+0x1/0x2", "    exit_mmap+0x1/0x2"]
    assert rows or lines[0] == "pfn 0x5 (5): free"


def test_pages_before_tracking_are_no_owner_to_be_shown_in_full(cli: Cli, tmp_path: Path) -> None:
    stack = "alloc_pages+0x1/0x2\nunix_stream_sendmsg+0x1/0x2"
    snapshot = pageowner.Snapshot.from_columns({
        "pfn": [1, 2, 3, 4], "order": [0] * 4, "stack": [None, None, None, stack],
        "comm": [None, None, None, "dd"], "state": ["early", "early", "untracked", "owned"],
        "page_flags": [1 << 7, 1 << 7, 1 << 7, 0]}, pageowner.Metadata(kind="tracker"))
    path = tmp_path / "live.parquet"
    snapshot.save(path)
    for by in ("stack", "comm"):
        text = cli("report", path, "--full", "--top", "1", "--by", by).out.decode()
        head, nameless, owner = text.strip().split("\n\n")
        assert "16 KiB in 4 pages, 4 blocks; 2 owners by" in head
        assert nameless.startswith("12 KiB, 3 pages (75.0 %) in 3 blocks have no stack: early")
        assert "--by subsystem" in nameless
        assert owner.splitlines()[0].startswith("4 KiB, 1 page (25.0 %)")
        assert "unix_stream_sendmsg" in owner
    # whose page flags tell what it is
    assert b"\n  flags slab\n" in cli("who", "1", "-s", path).out
    # where something else is known of them it is shown
    text = cli("report", path, "--full", "--by", "subsystem").out.decode()
    assert ("2 pages (50.0 %) in 2 blocks, subsystem slab (early)\n"
            "  no stack: early, untracked, or lost") in text
    assert "have no stack" not in text


def test_pages_before_tracking_have_records_as_in_the_kernels_text(cli: Cli,
                                                                   tmp_path: Path) -> None:
    snapshot = pageowner.Snapshot.from_columns({
        "pfn": [16, 18, 19, 20], "order": [1, 0, 0, 0],
        "state": ["early", "early", "untracked", "owned"], "pid": [None, None, None, 7],
        "tgid": [None, None, None, 7], "comm": [None, None, None, "dd"],
        "stack": [None, None, None, "alloc_pages+0x1/0x2"], "gfp_mask": [None, None, None, 0xcc0],
        "memcg": [None, "/system.slice", None, None], "page_flags": [1 << 7, 0, 0, 0],
        "ts_ns": [None, None, None, 5]}, pageowner.Metadata(kind="tracker"))
    snapshot.save(live := tmp_path / "live.parquet")
    cli("dump", live, "-o", text := tmp_path / "page_owner.txt")
    records = text.read_text().split("\n\n")
    assert records[0] == ("Page allocated via order 1, mask 0x0\nPFN 0x10 type Unmovable Block 0 "
                          "type Unknown Flags 0x80(slab)\n register_early_stack")
    assert records[1].endswith("\n register_early_stack\nCharged to memcg /system.slice")
    assert len(records) == 4  # the last is empty: nobody is known to own page frame 19
    again = pageowner.read(text)
    assert again.table["pfn"].to_pylist() == [16, 18, 20]
    assert again.table["state"].to_pylist() == ["early", "early", "owned"]
    assert cli("dump", text).out == text.read_bytes()
    assert b"register_early" not in cli("dump", live, "--state", "owned").out


def test_a_capture_that_was_saved_is_not_called_live(
        saved: Path, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "capture.parquet"
    meta = pageowner.Metadata(kind="tracker", host="there", kernel="6.1",
                              taken_at="2026-11-24T10:33:00Z")
    pageowner.Snapshot(pageowner.read(saved).table, meta).save(path)
    for words in (["report"], ["report", "--full"]):
        first = cli(*words, path).out.decode().split(": ")[0]
        assert first == f"{path} (there, kernel 6.1, 2026-11-24T10:33:00Z)"
    # nor is this machine asked what a page of that one is
    said = cli("who", "0x7fffffff", "-s", path).out.decode()
    assert f"no owner known to {path}" in said
    assert cli("save", tmp_path / "again.parquet", path).status == 0
    assert pageowner.read(tmp_path / "again.parquet").meta.source == ""
