"""Where outputs are written: what other users put in the way in a folder that all may write to."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pageowner.errors import PageownerError
from pageowner.page_owner_sort.command import main as sort
from pageowner.storage.whole_file import whole_file
from pageowner.system.safe_path import find

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., Any]

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
WRITERS = {
    "dump": ["dump", "DUMP", "-o", "OUT"],
    "export": ["export", "--format", "folded", "DUMP", "-o", "OUT"],
    "png": ["map", "DUMP", "--png", "OUT"],
    "html": ["map", "DUMP", "--html", "OUT"],
    "flame": ["flame", "DUMP", "-o", "OUT"],
    "svg": ["flame", "DUMP", "--svg", "OUT"],
    "save": ["save", "OUT", "DUMP"],
}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder as /tmp is."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777)
    return place


ROOTS = b" of root's"
KINDS = ("save", "png", "svg", "")


def older(writer: str) -> bytes:
    """What a file begins with that this verb overwrites: its own kind, where it heeds that."""
    return {"save": b"PAR1", "png": b"\x89PNG", "svg": b"<svg "}.get(writer, b"<!DOCTYPE html>")


@pytest.fixture
def victim(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file of root's beside it."""
    path = tmp_path / "victim"
    parameters = getattr(request.node, "callspec", None)
    path.write_bytes(older(parameters.params.get("writer", "") if parameters else "") + ROOTS)
    return path


every = pytest.mark.parametrize("writer", [*WRITERS, "sort"])


@every
@as_root
def test_a_link_of_another_user_is_not_followed(
        writer: str, shared: Path, victim: Path, some_records: Path, cli: Cli) -> None:
    out = shared / "out"
    for target in (victim, victim.parent / "new"):
        out.unlink(missing_ok=True)
        out.symlink_to(target)
        os.lchown(out, NOBODY, NOBODY)
        status, said = _run(writer, out, some_records, cli)
        assert status == 1
        assert said.count("\n") == 1
        assert f"{out}: refusing to follow a symbolic link of" in said
        assert f"uid {NOBODY}" in said
        assert victim.read_bytes() in [older(kind) + ROOTS for kind in KINDS]
        assert sorted(os.listdir(victim.parent)) == ["shared", "victim"]
        assert os.listdir(shared) == ["out"]


def _run(writer: str, out: Path, dump: Path, cli: Cli) -> tuple[int, str]:
    if writer == "sort":
        done = subprocess.run(
            [sys.executable, "-m", "pageowner.page_owner_sort.command", dump, out],
            capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr
    ended = cli(*(dump if word == "DUMP" else out if word == "OUT" else word
                  for word in WRITERS[writer]))
    return ended.status, _without_notes(ended.err.decode())


def _without_notes(said: str) -> str:
    return "".join(line for line in said.splitlines(True) if "note: " not in line)


@every
@as_root
def test_a_folder_that_another_user_links_to_is_not_written_to(
        writer: str, shared: Path, some_records: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "roots").mkdir()
    (shared / "folder").symlink_to(tmp_path / "roots")
    os.lchown(shared / "folder", NOBODY, NOBODY)
    status, said = _run(writer, shared / "folder" / "out", some_records, cli)
    assert status == 1
    assert f"{shared}/folder: refusing to follow a symbolic link of" in said
    assert os.listdir(tmp_path / "roots") == []


@every
@as_root
@pytest.mark.parametrize("kind", ["file", "fifo", "hard link"])
def test_what_another_user_put_there_is_not_written(
        kind: str, writer: str, shared: Path, victim: Path, some_records: Path, cli: Cli) -> None:
    out = shared / "out"
    if kind == "hard link":
        os.link(victim, out)
    else:
        if kind == "file":
            out.write_bytes(older(writer))
        else:
            os.mkfifo(out)
        os.chown(out, NOBODY, NOBODY)
    before = out.lstat()
    # who opened it would wait for its other end
    status, said = _run(writer, out, some_records, cli) if kind != "fifo" else _bounded(
        writer, out, some_records)
    assert status == 1
    assert said.count("\n") == 1
    assert ("hard link" if kind == "hard link" else f"uid {NOBODY}") in said
    after = out.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino, before.st_mode, before.st_size)
    assert victim.read_bytes() in [older(kind) + ROOTS for kind in KINDS]
    assert os.listdir(shared) == ["out"]


def _bounded(writer: str, out: Path, dump: Path) -> tuple[int, str]:
    words = (["-m", "pageowner.page_owner_sort.command", dump, out] if writer == "sort" else
             ["-m", "pageowner", *(dump if word == "DUMP" else out if word == "OUT" else word
                                   for word in WRITERS[writer])])
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, _without_notes(said)


@every
def test_the_writers_own_link_file_and_pipe_are_written(
        writer: str, shared: Path, tmp_path: Path, some_records: Path, cli: Cli) -> None:
    (shared / "link").symlink_to(tmp_path / "target")
    assert _run(writer, shared / "link", some_records, cli)[0] == 0
    assert (shared / "link").is_symlink()
    wanted = (tmp_path / "target").read_bytes()
    assert wanted
    (shared / "file").write_bytes(older(writer))
    assert _run(writer, shared / "file", some_records, cli)[0] == 0
    os.mkfifo(shared / "pipe")
    with (tmp_path / "got").open("wb") as file, \
            subprocess.Popen(["cat", shared / "pipe"], stdout=file):
        assert _run(writer, shared / "pipe", some_records, cli)[0] == 0
    got = (tmp_path / "got").read_bytes()
    if writer not in ("save", "html", "flame", "svg", "png"):  # these have the time, or a name
        assert got == wanted == (shared / "file").read_bytes()
    assert got
    assert stat.S_ISFIFO((shared / "pipe").lstat().st_mode)


def _write_meanwhile(out: Path, act: Callable[[], None]) -> None:
    with whole_file(out) as file:
        file.write(b"mine")
        act()


@as_root
def test_what_lies_there_when_all_is_written_is_looked_at_again(
        shared: Path, victim: Path) -> None:
    out = shared / "out"

    def lay_a_link() -> None:
        out.symlink_to(victim)
        os.lchown(out, NOBODY, NOBODY)

    with pytest.raises(PageownerError, match=f"uid {NOBODY}"):
        _write_meanwhile(out, lay_a_link)
    assert victim.read_bytes() in [older(kind) + ROOTS for kind in KINDS]
    assert os.listdir(shared) == ["out"]


def test_a_file_that_somebody_replaces_at_once_is_no_success(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    out = tmp_path / "out"

    def replace() -> None:  # in a folder without the sticky bit anybody may
        (left,) = tmp_path.iterdir()
        left.unlink()
        left.write_bytes(b"theirs")

    with pytest.raises(PageownerError, match="somebody else"):
        _write_meanwhile(out, replace)


def test_set_user_id_is_not_kept(shared: Path, some_records: Path) -> None:
    out = shared / "out"
    out.write_bytes(b"")
    out.chmod(0o4755)
    assert sort([str(some_records), str(out)]) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o755


def test_standard_output_is_appended_to_if_it_was_so_opened(
        some_records: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    with log.open("ab") as file:
        done = subprocess.run([sys.executable, "-m", "pageowner", "dump", some_records, "-o",
                               "/dev/stdout"], stdout=file, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert log.read_bytes() == b"before\n" + some_records.read_bytes()


@pytest.mark.parametrize("name", ["missing/out", "file/out", "loop", "file/"])
def test_paths_that_lead_nowhere_fail_as_the_kernel_says(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r".") as kernels:
        os.close(os.open(tmp_path / name if name != "file/" else f"{tmp_path}/file/",
                         os.O_WRONLY))
    with pytest.raises(OSError, match=r".") as ours:
        find(f"{tmp_path}/{name}").close()
    assert ours.value.errno == kernels.value.errno


def test_paths_of_every_form_lead_where_the_kernel_goes(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"x")
    (tmp_path / "up").symlink_to("a/b/..")
    (tmp_path / "absolute").symlink_to(tmp_path / "up" / "file")
    monkeypatch.chdir(tmp_path)
    for path in ("a/file", "./a//file", "up/file", "absolute", f"{tmp_path}/a/b/../file",
                 "/proc/self/cwd/a/file", "/dev/null", "a/b/", ".", "/", ".."):
        with find(path) as found:
            handle = found.open()
            assert os.path.samestat(os.fstat(handle), os.stat(path)), path
            os.close(handle)


@pytest.mark.parametrize("words", [["flame", "--html"], ["flame", "--svg"], ["map", "--png"]])
@pytest.mark.parametrize("head", [b"PAR1", b"KDUMP   ", b"Page allocated via order 0, mask 0x1",
                                  b"\xfd7zXZ\0", b"notes"])
def test_a_picture_is_not_drawn_over_a_source(
        cli: Cli, tmp_path: Path, some_records: Path, words: list[str], head: bytes) -> None:
    target = tmp_path / "kept"
    target.write_bytes(head)
    done = cli(*words, target, some_records)
    assert (done.status, target.read_bytes()) == (2, head)
    assert b"refusing to overwrite it" in done.err


@pytest.mark.parametrize("words", [["dump"], ["export", "--format", "folded"],
                                   ["export", "--format", "pprof"]])
@pytest.mark.parametrize("head", [b"PAR1", b"KDUMP   ", b"\xfd7zXZ\0"])
def test_no_text_is_written_over_a_source(
        cli: Cli, tmp_path: Path, some_records: Path, words: list[str], head: bytes) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(head)
    own = tmp_path / "own.txt"
    own.write_bytes(some_records.read_bytes())
    for source, target in ((some_records, kept), (own, own)):
        before = target.read_bytes()
        done = cli(*words, source, "-o", target)
        assert (done.status, target.read_bytes()) == (2, before)
        assert b"overwr" in done.err
