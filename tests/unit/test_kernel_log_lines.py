"""What others put around a kernel log's lines is taken off, and what they put in ends nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kept_paper import KeptPaper

from pageowner.analysis.explain import explained
from pageowner.model.kernel_log import MemoryReport, PageDump
from pageowner.report.explain_json import to_json
from pageowner.report.explain_view import draw, warnings
from pageowner.sources.kernel_log import parse
from pageowner.sources.kernel_log_lines import Stripped

LOGS = Path(__file__).parent.parent / "data/logs"


def lines_of(log: str) -> list[str]:
    return (LOGS / log).read_text().splitlines()


@pytest.mark.parametrize("line", [
    "[  123.456789] {}", "[  123.456789][   T77] {}", "[  123.456789][    C3] {}",
    "<6>[ 12.345678] {}",
    "Nov 26 10:00:01 host kernel: {}", "Jul  6 11:53:24 sau-3f kernel: [1310061.327439] {}",
    "2026-11-26T10:00:01.123456+00:00 host kernel: {}", "2026-11-26T10:00:01+0100 host kernel: {}",
    "[Mon Mar 25 23:35:17 2019] {}", "[Mar25 23:35] {}", "[  +0.000001] {}",
    "6,1234,5678901,-;{}", "4,1234,5678901,-,caller=T12;{}", "kern  :info  : [  1.234567] {}",
    "[  12.123456] host kernel: {}", "> > [  12.123456] {}",
    "Mar 06 19:25:03 [kernel] [1.801277] {}",
    "11-26 10:00:00.123     0     0 I KERNEL  : {}", "<4>[ 12.345678] (0)[123:kworker/0:1]{}",
    "\x1b[32m[   12.345678] \x1b[0m{}", "user: warning: [2026-01-12T20:27:31.913975631Z]: {}",
    "\0[   12.345678] {}\r", "[月  1月 26 01:49:41 2026] {}", "Dec 14 17:13:12 kernel: {}",
    "    [  123.456789] {}", "\t<6>[ 12.345678] {}", "  Nov 26 10:00:01 host kernel: {}",
    "    6,1234,5678901,-;{}", ">     [  123.456789] {}", "> >   kern  :info  : [  1.234567] {}",
    "2026-11-26T10:00:00,123456+01:00 {}", "kern  :info  : 2026-11-26T10:00:00,123456+01:00 {}",
    "[  100.123456 <    0.000012>] {}", "[<    0.000012>] {}",
    "[Thu Nov 26 10:00:00 2026 <    0.000012>] {}", "Thu 2026-11-26 10:00:00 CET host kernel: {}",
    "1764150000.123456 host kernel: {}", "[  100.123456 <    0.000012 >] host kernel: {}"])
def test_every_prefix_of_a_line_is_taken_off(line: str) -> None:
    for text in (" pipe_write+0x1f/0x90", "[ 1905]     0  1905     3236 sshd", "Mem-Info:",
                 "[  pid  ]   uid  tgid total_vm"):
        (found,) = Stripped([line.format(text)])
        assert found.text == text
        assert found.has_prefix


@pytest.mark.parametrize("front", ["> ", ">", "    ", "\t", "| "])
@pytest.mark.parametrize("log", ["kasan-7.3-dmesg-t.txt", "oom-6.12.txt"])
def test_a_log_that_is_quoted_or_indented_tells_the_same(log: str, front: str) -> None:
    (event,) = parse([front + line for line in lines_of(log)], "log").events
    assert [event] == parse(lines_of(log), "log").events


@pytest.mark.parametrize(("line", "time"), [
    ("2026-11-26T10:00:00,123456+01:00 x", "2026-11-26T10:00:00,123456+01:00"),
    ("[  100.123456 <    0.000012>] x", "100.123456"), ("[<    0.000012>] x", ""),
    ("Thu 2026-11-26 10:00:00 CET host kernel: x", "Thu 2026-11-26 10:00:00 CET")])
def test_the_time_of_a_line_is_kept(line: str, time: str) -> None:
    (found,) = Stripped([line])
    assert found.time == time


def test_lines_that_a_mail_wrapped_are_whole_again() -> None:
    lines = ["[1.000001] Node 0 Normal free:12652kB min:14344kB ", "high:23840kB present:6220656kB",
             "[1.000002] end", "", "and a word about it"]
    found = Stripped(lines)
    assert [line.text for line in found] == [
        "Node 0 Normal free:12652kB min:14344kB high:23840kB present:6220656kB", "end", "",
        "and a word about it"]
    assert found.joined == 1


def test_two_lines_that_a_console_ran_together_are_apart_again() -> None:
    line = "[  776.265406] lowmem_reserve[]: 0 0 [  776.268761] Normal: 7*4kB (H) = 28kB"
    assert [line.text for line in Stripped([line])] == [
        "lowmem_reserve[]: 0 0", "Normal: 7*4kB (H) = 28kB"]


def test_a_hostile_log_takes_no_long_time() -> None:
    for line in ("a: " * 20000, "[" * 50000, "Node 0 Normal free:1kB " + "x:1kB " * 9000,
                 "page last allocated via order 1, " * 1500, "> " * 30000, "x" * 60000,
                 "[ 1.000001] " * 5000, "toy invoked oom-killer: gfp_mask=0x1," + "order=" * 9000):
        parse([line, line], "log")


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 4500])
def test_numbers_that_no_kernel_has_end_nothing(digits: str) -> None:
    logs = ("oom-6.12", "oom-cgroup-6.1-journal", "low-and-bad-page-6.6-callers", "ranges-dmesg-T")
    texts = [line.text for log in logs for line in Stripped(lines_of(f"{log}.txt"))]
    for place in range(14):
        changed = []
        for text in texts:
            numbers = list(re.finditer(r"(?<![\w.])(?:0x)?[0-9a-f]*\d[0-9a-f]*(?![a-z_.])|\d+",
                                       text))[place:place + 1]
            changed += [text[:found.start()] + digits + text[found.end():] for found in numbers]
            if not numbers:
                changed.append(text)
        found = explained(parse(changed, "log"))
        draw(found, KeptPaper(80))
        json.dumps(to_json(found, warnings(found)))


@pytest.mark.parametrize("order", ["23", "2000", "9999999999", "9" * 5000])
@pytest.mark.parametrize("line", [
    "toy: page allocation failure: order:{}, mode:0xcc0(X), nodemask=(null)",
    "toy invoked oom-killer: gfp_mask=0xcc0(X), order={}, oom_score_adj=0",
    "toy: vmalloc error: size 4096, page order {}, failed to allocate pages, mode:0xcc0(X)",
    "page:ffffea0000000000 refcount:1 mapcount:0 index:0x0 pfn:0x12\n"
    "page last allocated via order {}, migratetype Movable, gfp_mask 0xcc0(X)"])
def test_an_order_that_no_block_has_is_damage(line: str, order: str) -> None:
    lines = line.format(order).split("\n")
    (event,) = parse([*lines, ""], "log").events
    assert [text for _, text in event.damaged] == lines[-1:]
    assert isinstance(event, MemoryReport | PageDump)
    assert event.order is None
