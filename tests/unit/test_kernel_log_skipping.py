"""Lines of a log that are left out while no report is open change nothing that is reported."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from pageowner.model.kernel_log import KernelLog
from pageowner.sources import kernel_log, kernel_log_lines
from pageowner.sources.kernel_log_skipping import edges_of, runs

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import dumps

LOGS = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "data/logs").glob("*"))]
BODIES = [
    b"usb 1-1: new high-speed USB device number 5 using xhci_hcd", b"", b" ", b"eth0: [T12] link",
    b"audit[12]: type=1400 pid=7", b"kernel: page 7", b"[    1.000000] x", b"a\tb", b"a\rb", b"\0",
    b"a[  12.345678] make invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    b"", b"a[ 1.345678] b",
    b"a [12.345678] Mem-Info:", b"[T4] b", b"[    C4] Mem-Info:", b"#012 free:12 Mem-Info:",
    b"\x1b[1mMem\x1b[0m-Info:", b"x: 12 callbacks suppressed", b"warn_alloc: 3 callbacks suppressed"
    b"",
    b"** 7 printk messages dropped **", b"\xff\xfe\xe2\x82", "näïve".encode(), b"page:1 refcount:1",
    b"Killed process 7 (a) total-vm:1kB, anon-rss:1kB, file-rss:1kB", b"migrating pfn 12 failed",
    b"alloc_contig_range: [10, 20) PFNs busy", b"BUG: Bad page state in process a  pfn:12"]
PREFIXES = [
    (b"[%12.6f] ",), (b"Nov 26 10:00:00 host kernel: [%12.6f] ",), (b"<6>[%12.6f] ",),
    (b"2026-11-26T10:00:00.123456+01:00 host kernel: ",), (b"    [%12.6f] ",),
    (b"2026-11-26T10:00:00,123456+01:00 ",), (b"[%12.6f <    0.000012>] ",),
    (b"Thu 2026-11-26 10:00:00 CET host kernel: ", b"1764150000.123456 host kernel: "),
    (b">  ",), (b"[Thu Nov 26 10:00:00 2026] ",),
    (b"Nov 26 10:00:00 host kernel: ", b"Nov 26 10:00:00 host systemd[1]: "), (b"",),
    (b"[%12.6f] ", b"[%12.6f][    T7] ", b"", b"> ", b"  ", b"6,1,12345,-;")]


def read(text: bytes, skips: bool) -> KernelLog:
    with dumps.as_opened(text) as opened:
        return kernel_log._opened(opened, skips)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kernel_log, kernel_log_lines):
        monkeypatch.setattr(module, "SAMPLE", 10)
    monkeypatch.setattr(kernel_log, "_FEW", 0)
    monkeypatch.setattr(kernel_log, "_PIECE", 900)
    monkeypatch.setattr(kernel_log, "_MANY", 3600)


def in_front(prefix: bytes, number: int) -> bytes:
    return prefix % (number * 1.37) if b"%" in prefix else prefix


def made(chance: random.Random) -> bytes:
    """A log of lines of all sorts, and of reports, some of them damaged."""
    prefixes = chance.choice(PREFIXES)
    end = chance.choice([b"\n", b"\n", b"\r\n"])
    few = chance.choices(BODIES, k=3)
    lines: list[bytes] = []
    for _ in range(chance.randrange(4, 40)):
        kind = chance.randrange(10)
        if kind < 2:
            report = chance.choice(LOGS).split(b"\n")
            if chance.random() < 0.5:
                del report[(at := chance.randrange(len(report))):at + chance.randrange(9)]
            lines += report
        elif kind < 4:
            lines += [in_front(chance.choice(prefixes), 3) + chance.choice(BODIES)]
        else:
            lines += [in_front(prefix, at) for at, prefix in enumerate(
                chance.choices(prefixes, k=chance.randrange(60)))]
            lines[-30:] = [line + chance.choice(few[:1 + (kind > 8)]) for line in lines[-30:]]
    if chance.random() < 0.1:
        lines.insert(chance.randrange(len(lines) + 1), b"x" * chance.randrange(3000))
    return end.join(lines) + end * chance.randrange(2)


def test_no_line_that_is_left_out_tells_anything() -> None:
    chance, events = random.Random(5), 0
    for _ in range(250):
        text = made(chance)
        found = read(text, skips=True)
        assert found == read(text, skips=False), text
        events += len(found.events)
    assert events > 500


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("prefix", [one for several in PREFIXES for one in several])
def test_each_line_among_many_others(prefix: bytes, body: bytes) -> None:
    front = in_front(prefix, 1)
    line = front + b"usb 1-1: new device\n"
    noise = line * (5400 // len(line))  # into the second of the reads that leave out lines
    for begins in (noise, LOGS[6] + noise, b"> " + noise):
        text = begins + front + body + b"\n" + line * (1800 // len(line))
        assert read(text, skips=True) == read(text, skips=False)


def test_lines_are_left_out() -> None:
    noise = b"".join(b"[%12.6f] usb 1-1: new device\n" % number for number in range(500))
    text = noise + b"[    1.000000] Mem-Info:\n" + noise
    edges = edges_of(text)
    found = runs(text, edges, True)
    assert found == [(0, 500), (501, 1001)]
    assert len(edges) == 1002
    with dumps.as_opened(noise * 9) as opened:
        taken = list(kernel_log._Texts(opened, True).lines)
    assert len(taken) < 1500


@pytest.mark.parametrize("number", [39, 40, 41, 59, 60, 61, 200])
def test_a_page_that_other_lines_interrupt(number: int) -> None:
    text = (b"[    1.000000] page:ffffea0000000000 refcount:1 mapcount:0 index:0x0 pfn:0x12\n"
            + b"[    1.000000] usb 1-1: new device\n" * number
            + b"[    1.000000] flags: 0x200(head)\n")
    (event,) = read(text, skips=False).events
    assert (event.line, "its flags" in event.missing) == (1, number >= 60)
