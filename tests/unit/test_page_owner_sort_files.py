"""What page_owner_sort reads and writes, and how it fails."""

from __future__ import annotations

import gzip
import lzma
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from record_socket import made_up_records, sent

from pageowner.page_owner_sort import reading
from pageowner.page_owner_sort.command import main

SAMPLE = Path(__file__).resolve().parent.parent / "data/6.1-sample/page_owner.txt.xz"
COMMAND = [sys.executable, "-m", "pageowner.page_owner_sort.command"]


@pytest.fixture(scope="module")
def text() -> bytes:
    """A real dump."""
    return lzma.decompress(SAMPLE.read_bytes())


@pytest.fixture
def plain(text: bytes, tmp_path: Path) -> Path:
    """The same as a file."""
    path = tmp_path / "page_owner.txt"
    path.write_bytes(text)
    return path


@pytest.fixture(scope="module")
def wanted(text: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The output for it."""
    folder = tmp_path_factory.mktemp("wanted")
    (folder / "in").write_bytes(text)
    assert main([str(folder / "in"), str(folder / "out")]) == 0
    made = (folder / "out").read_bytes()
    assert len(made) > 100_000
    return made


def packed(text: bytes, kind: str) -> bytes:
    """A dump, compressed; in two members one after the other, as `cat a.gz b.gz` makes it."""
    half = len(text) // 2
    pack = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }[kind]
    return pack(text[:half]) + pack(text[half:])


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_compressed_dumps_are_read_whatever_their_name(
    kind: str, text: bytes, wanted: bytes, tmp_path: Path
) -> None:
    source, target = tmp_path / "dump", tmp_path / "out"
    source.write_bytes(packed(text, kind))
    assert main([str(source), str(target)]) == 0
    assert target.read_bytes() == wanted
    made = subprocess.run([*COMMAND, "-", "-"], input=packed(text, kind), capture_output=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, wanted, b"")


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_damaged_compressed_dumps_are_refused_and_leave_no_output(
    kind: str, harm: str, text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "dump", tmp_path / "out"
    data = packed(text, kind)
    middle = len(data) // 4
    source.write_bytes(data[:middle] if harm == "cut" else
                       data[:middle] + b"\xaa" * 40 + data[middle + 40 :])
    target.write_bytes(b"as before")
    assert main([str(source), str(target)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"page_owner_sort: {source} is ")
    assert said.count("\n") == 1
    assert target.read_bytes() == b"as before"
    assert sorted(os.listdir(tmp_path)) == ["dump", "out"]


def test_standard_input_and_output(plain: Path, text: bytes, wanted: bytes) -> None:
    made = subprocess.run([*COMMAND, "-", "-"], input=text, capture_output=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, wanted, b"")
    with plain.open("rb") as file:
        made = subprocess.run([*COMMAND, "-", "/dev/stdout"], stdin=file, capture_output=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, wanted, b"")
    made = subprocess.run([*COMMAND, "/dev/stdin", "-"], input=text, capture_output=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, wanted, b"")


def test_a_pipe_that_gives_little_at_a_time(text: bytes, wanted: bytes, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*COMMAND, pipe, "-"], stdout=subprocess.PIPE) as process:
        with pipe.open("wb", buffering=0) as file:
            for start in (0, 1, 3, 70_000, 70_001):
                end = {0: 1, 1: 3, 3: 70_000, 70_000: 70_001}.get(start, len(text))
                file.write(text[start:end])
                time.sleep(0.02)
        assert process.stdout is not None
        assert process.stdout.read() == wanted


def test_input_read_from_the_middle_of_a_file_counts_from_there(plain: Path, text: bytes) -> None:
    with plain.open("rb") as file:
        first = text.index(b"\n\n") + 2
        os.lseek(file.fileno(), first, os.SEEK_SET)
        made = subprocess.run([*COMMAND, "--cull=f", "-", "-"], stdin=file, capture_output=True)
    assert made.stdout.startswith(b"%d times, " % (text.count(b"\n\n") - 1))


def test_lines_that_end_in_cr_lf(text: bytes, wanted: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "dump", tmp_path / "out"
    source.write_bytes(text.replace(b"\n", b"\r\n"))
    assert main([str(source), str(target)]) == 0
    assert target.read_bytes() == wanted


def test_output_takes_the_place_of_a_file_and_keeps_its_mode(plain: Path, wanted: bytes) -> None:
    folder = plain.parent
    target, link = folder / "out", folder / "link"
    target.write_bytes(b"before")
    target.chmod(0o640)
    link.symlink_to("out")
    assert main([str(plain), str(link)]) == 0
    assert link.is_symlink()
    assert target.read_bytes() == wanted
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(os.listdir(folder)) == ["link", "out", plain.name]


@pytest.mark.parametrize("name", ["o" * 255, "漢" * 85, "\udcff" * 255],
                         ids=["ascii", "wide", "no text"])
def test_the_longest_names_are_no_obstacle(plain: Path, wanted: bytes, name: str) -> None:
    target = plain.parent / name
    for _ in range(2):
        assert main([str(plain), str(target)]) == 0
        assert target.read_bytes() == wanted
    assert len(os.listdir(plain.parent)) == 2


def test_a_new_output_has_the_mode_that_the_umask_leaves(plain: Path) -> None:
    before = os.umask(0o027)
    try:
        assert main([str(plain), str(plain.parent / "out")]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((plain.parent / "out").stat().st_mode) == 0o640


def test_input_and_output_may_be_one_file(plain: Path, wanted: bytes) -> None:
    assert main([str(plain), str(plain)]) == 0
    assert plain.read_bytes() == wanted


def test_a_reader_that_goes_away_is_no_error_to_speak_of(plain: Path) -> None:
    with subprocess.Popen([*COMMAND, "-a", plain, "-"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_nothing(number: int, plain: Path) -> None:
    pipe = plain.parent / "pipe"
    os.mkfifo(pipe)
    # a shell, or nohup, may have told us, and so our children, to ignore these
    process = subprocess.Popen(
        ["env", "--default-signal=INT,HUP", *COMMAND, pipe, plain.parent / "out"],
        stderr=subprocess.PIPE)
    with process, pipe.open("wb", buffering=0) as file:
        file.write(plain.read_bytes()[:200_000])
        process.send_signal(number)
        _, said = process.communicate()
    assert (process.returncode, said) == (128 + number, b"")
    assert sorted(os.listdir(plain.parent)) == [plain.name, "pipe"]


def test_a_full_disk_is_said_in_one_line(plain: Path) -> None:
    made = subprocess.run([*COMMAND, plain, "/dev/full"], capture_output=True)
    assert made.returncode == 1
    assert made.stderr == b"page_owner_sort: cannot write /dev/full: No space left on device\n"


@pytest.mark.parametrize(("source", "target", "said"), [
    ("missing", "out", "cannot open missing: No such file or directory"),
    (".", "out", "cannot read .: Is a directory"),
    ("page_owner.txt", "missing/out", "cannot write missing/out: No such file or directory"),
    ("page_owner.txt", ".", "cannot write .: Is a directory"),
])
def test_files_that_cannot_be_used(source: str, target: str, said: str, plain: Path) -> None:
    made = subprocess.run([*COMMAND, source, target], cwd=plain.parent, capture_output=True)
    assert (made.returncode, made.stdout) == (1, b"")
    assert made.stderr == f"page_owner_sort: {said}\n".encode()
    assert os.listdir(plain.parent) == [plain.name]


def test_too_little_memory_is_said_in_one_line(tmp_path: Path) -> None:
    # one line without end
    source = tmp_path / "line"
    with source.open("wb") as file:
        file.truncate(1 << 27)
    code = ("import resource, sys; from pageowner.page_owner_sort.command import main\n"
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 27, 1 << 27))\n"
            "sys.exit(main(['-', 'out']))")
    with source.open("rb") as file:
        made = subprocess.run([sys.executable, "-c", code], stdin=file, cwd=tmp_path,
                              capture_output=True)
    assert (made.returncode, made.stdout) == (1, b"")
    assert made.stderr == (
        b"page_owner_sort: out of memory; split the dump, or select a part of it\n")
    assert os.listdir(tmp_path) == ["line"]


def test_a_worker_that_dies_is_said(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pageowner.page_owner_sort import workers

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(workers, "_PART", 1 << 18)
    monkeypatch.setattr(workers, "_processors", lambda: 2)
    monkeypatch.setattr(workers, "_work", die)
    assert main([str(plain), str(plain.parent / "out")]) == 1
    assert capsys.readouterr().err == (
        "page_owner_sort: a worker process died; is memory short?\n")
    assert not (plain.parent / "out").exists()


@pytest.mark.parametrize(("words", "said"), [
    ([], "an input and an output are needed"),
    (["in"], "an input and an output are needed"),
    (["-x", "in", "out"], "option -x not recognized"),
    (["--nonsense", "in", "out"], "option --nonsense not recognized"),
    (["in", "out", "--pid"], "option --pid requires argument"),
    (["-a", "-m", "in", "out"], "only one of -a -m can be given"),
])
def test_bad_usage_prints_the_usage_and_fails_as_the_kernels_tool_does(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    output = capsys.readouterr()
    assert output.out.startswith("Usage: page_owner_sort [OPTIONS] <input> <output>\n")
    assert output.err == f"page_owner_sort: {said}\n"


@pytest.mark.parametrize("words", [
    ["--pid=1,x"], ["--pid="], ["--tgid=1,"], ["--pid=99999999999999999999"],
    ["--pid=" + "9" * 5000], ["--cull=txt"], ["--cull=pid,"], ["--cull="], ["--sort=times"],
    ["--sort=-"], ["--sort=pid,,tgid"],
])
def test_arguments_that_an_option_does_not_take(
    words: list[str], plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, str(plain), str(plain.parent / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"page_owner_sort: {words[0].split('=')[0]}: n")
    assert said.count("\n") == 1
    assert not (plain.parent / "out").exists()


@pytest.mark.parametrize("words", [
    "IN OUT --pid 1 --cull pid", "--pid=1 IN --cull=pid OUT", "--pi 1 --cu p IN OUT ignored",
    "--pid=2 --pid=1 --cull=pid -- IN OUT", "-t --cull=p --pid 1 IN OUT", "-ttt IN OUT --c=p --p=1",
])
def test_options_in_any_form_and_place(words: str, plain: Path) -> None:
    target = plain.parent / "out"
    files = {"IN": str(plain), "OUT": str(target)}
    assert main([files.get(word, word) for word in words.split()]) == 0
    made = target.read_bytes()
    assert made.count(b"\n") == 1
    assert made.endswith(b" pages, PID 1\n")


@pytest.mark.parametrize("word", ["-h", "--help", "--he"])
def test_help_is_given(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out.startswith("Usage: page_owner_sort [OPTIONS] <input> <output>\n")


def test_debug_says_what_was_read(plain: Path, text: bytes,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "--cull=f", str(plain), str(plain.parent / "out")]) == 0
    blocks = text.count(b"\n\n")
    assert capsys.readouterr().err == (
        f"page_owner_sort: {blocks} blocks, 0 of them not selected, 0 not in the format of 5.18"
        " and later; 1 written\n")


def test_only_the_standard_library_is_imported(plain: Path) -> None:
    code = ("import sys; from pageowner.page_owner_sort.command import main; "
            "main(sys.argv[1:]); print(*sys.modules)")
    made = subprocess.run([sys.executable, "-c", code, plain, plain.parent / "out"],
                          capture_output=True, text=True, check=True)
    tops = {name.partition(".")[0] for name in made.stdout.split()}
    assert not tops & {"pyarrow", "numpy", "duckdb", "click", "rich", "zstandard", "pandas"}
    # and nothing that takes long to load
    assert not tops & {"typing", "argparse", "multiprocessing", "dataclasses", "tempfile"}


def test_a_kernel_file_is_never_asked_for_less_than_a_record() -> None:
    records = made_up_records(2000)
    pieces = []
    with sent(records) as receiver, receiver:
        read = reading._by_record(receiver.fileno())
        while piece := reading._read_up_to(read, 10_000):
            pieces.append(piece)
    assert b"".join(pieces) == b"".join(records)
    assert {len(piece) for piece in pieces[:-1]} == {10_000}
