"""What is said on stderr."""

from __future__ import annotations

import subprocess
import sys

SAYING = """
import sys, threading
from pageowner.cli.messages import say
sys.setswitchinterval(1e-6)
def act(text):
    for _ in range(3000):
        say(text)
threads = [threading.Thread(target=act, args=(text * 9,)) for text in ("one ", "two ", "three ")]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_lines_of_several_threads_stay_whole() -> None:
    done = subprocess.run([sys.executable, "-c", SAYING], stderr=subprocess.PIPE, check=True)
    lines = done.stderr.split(b"\n")
    assert set(lines) == {b"", *(b"pageowner: " + word * 9 for word in (
        b"one ", b"two ", b"three "))}
    assert len(lines) == 9001
