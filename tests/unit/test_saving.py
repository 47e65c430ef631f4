"""A snapshot is saved whole or not at all, whatever ends it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner import PageownerError
from pageowner.storage.whole_file import whole_file

if TYPE_CHECKING:

    from pageowner import Snapshot


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(
        sample61: Snapshot, tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "x.parquet", tmp_path):
        with pytest.raises(PageownerError, match=re.escape(str(path))):
            sample61.save(path)
    assert list(tmp_path.iterdir()) == []


def save(snapshot: Path, path: Path, limit: int | None = None,
         wrapper: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    def before() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run([*wrapper, sys.executable, "-m", "pageowner", "save", path, snapshot],
                          capture_output=True, preexec_fn=before)


def test_a_write_that_fails_midway_leaves_the_older_file_as_it_was(
        few_saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept.parquet"
    path.write_bytes(b"PAR1older")
    done = save(few_saved, path, limit=4096)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"kept.parquet: cannot write: File too large" in done.stderr
    assert path.read_bytes() == b"PAR1older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_older_file_as_it_was(few_saved: Path, tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("a small file system can be mounted by root only")
    script = ('mount -t tmpfs -o size=16k none "$1" && echo PAR1older >"$1/x" || exit 77;'
              ' "$3" -m pageowner save "$1/x" "$2"; echo $?; cat "$1/x"; ls -A "$1"')
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", tmp_path, few_saved,
                           sys.executable], capture_output=True)
    if done.returncode == 77 or b"unshare" in done.stderr:
        pytest.skip("mounting is forbidden here")
    assert done.stdout == b"1\nPAR1older\nx\n"
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_save_that_is_ended_leaves_the_older_file_and_no_other(
        tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "kept.parquet"
    path.write_bytes(b"PAR1older")
    # A write takes milliseconds: this one waits when it has written something.
    code = ("import sys, time; from pageowner.storage import parquet; from pageowner import cli\n"
            "def slow(file, *_, **__):\n"
            "    file.write(b'PAR1' * 5000); file.flush(); print('writing', flush=True)\n"
            "    time.sleep(60)\n"
            "parquet.pq.ParquetWriter = slow\n"
            "sys.exit(cli.main(sys.argv[1:]))")
    dump = tmp_path.parent / f"{tmp_path.name}.txt"
    dump.write_bytes(b"Page allocated via order 0, mask 0x0(), pid 0, tgid 0 (x), ts 5 ns\n"
                     b"PFN 0x100 type Unmovable Block 0 type Unmovable Flags 0x0()\n\n")
    # a shell, or nohup, may have told us, and so our children, to ignore these
    with subprocess.Popen(["env", "--default-signal=INT,HUP", sys.executable, "-c", code, "save",
                           path, dump], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert path.read_bytes() == b"PAR1older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_is_killed_outright_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.parquet"
    path.write_bytes(b"PAR1older")
    child = os.fork()
    if not child:
        with whole_file(path) as file:
            file.write(b"newer")
            file.flush()
            time.sleep(60)
        os._exit(0)
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_bytes() == b"PAR1older"


def test_a_link_is_followed_and_a_long_name_is_no_obstacle(
        sample61: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/target")
    sample61.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert pageowner.read(tmp_path / "folder" / "target").table.equals(sample61.table)
    sample61.save(tmp_path / ("x" * 255))
    assert pageowner.read(tmp_path / ("x" * 255)).table.equals(sample61.table)
