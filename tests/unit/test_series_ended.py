"""What is left of a series whose writer was killed, or whose disk was full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from changing import Machine, same

from pageowner.storage import series

_WRITER = """
import sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from changing import BEGAN, Machine
from pageowner.storage.recording import Recorder
machine, recorder = Machine(), Recorder(Path(sys.argv[1]), 600, 7 * 86400)
number = 0
while True:
    machine.step(0.02)
    print(recorder.add(machine.now(), BEGAN + number * 600).name, flush=True)
    number += 1
"""


@pytest.mark.parametrize("after", [0.0, 0.013, 0.03, 0.05])
def test_kill_9_loses_no_capture_that_was_written(tmp_path: Path, after: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path, Path(__file__).parent],
                              stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    written = [writer.stdout.readline().strip() for _ in range(4)]
    time.sleep(after)
    writer.send_signal(signal.SIGKILL)
    written += writer.communicate()[0].split()
    there = series.captures(tmp_path)
    names = [one.path.name for one in there]
    assert names[:len(written)] == written
    assert len(names) <= len(written) + 1  # one may be written and not told
    for one in there:
        assert series.read(one.path).table.num_rows
    machine = Machine()
    for one in there:
        machine.step(0.02)
        same(series.read(one.path), machine.now())


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system in memory of 1 MiB, in a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    return tmp_path


_ON_A_SMALL_DISK = """
import sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from changing import BEGAN, Machine, same
from pageowner.errors import PageownerError
from pageowner.storage import series
from pageowner.storage.recording import Recorder
folder = Path(sys.argv[1])
machine, recorder, made, lost = Machine(), Recorder(folder, 600, 7 * 86400), {}, 0
for number in range(30):
    machine.step(0.05)
    now = machine.now()
    try:
        made[recorder.add(now, BEGAN + number * 600)] = now
    except PageownerError as error:
        assert "No space left" in str(error), error
        assert not list(folder.glob(".pageowner.*"))
        lost += 1
    if lost == 3:
        (folder / "ballast").unlink(missing_ok=True)
assert lost == 3, lost
assert len(series.captures(folder)) == 27
for path, snapshot in made.items():
    same(series.read(path), snapshot)
print("ok")
"""


def test_a_full_disk_loses_only_what_does_not_fit(small_disk: Path) -> None:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c",
         'mount -t tmpfs -o size=4m none "$1" && dd if=/dev/zero of="$1/ballast" bs=64k count=57'
         ' 2>/dev/null && exec "$2" -c "$3" "$1" "$4"', "sh", small_disk, sys.executable,
         _ON_A_SMALL_DISK, Path(__file__).parent], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or done.stderr.startswith("unshare: "):
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("ok\n", "")
