"""What a kernel log says about memory is told rightly, in the words that people ask with."""

from __future__ import annotations

import gzip
import io
import json
import quopri
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from said import one_line

import pageowner
from pageowner.analysis.explain import explained
from pageowner.model.kernel_log import BusyRange, MemoryReport, OfflineFailure, PageDump
from pageowner.sources.kernel_log import parse
from pageowner.sources.kernel_log_traces import frame_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.analysis.explain import Explained, Explanation

    Cli = Callable[..., Any]
    Run = Callable[..., "Done"]

class Done:
    """What a command printed, as text."""

    def __init__(self, done: Any) -> None:
        self.status, self.out, self.err = done.status, done.out.decode(), done.err.decode()


@pytest.fixture
def explain(cli: Cli) -> Callable[..., Done]:
    return lambda *words: Done(cli("explain", *words))


LOGS = Path(__file__).parent.parent / "data/logs"
PAGE = 4096


def only(log: str) -> Explained:
    (event,) = pageowner.explain(LOGS / log).events
    return event


def told_by(found: Explained) -> tuple[MemoryReport, Any]:
    assert isinstance(found.event, MemoryReport)
    assert found.memory is not None
    return found.event, found.memory


def lines_of(log: str) -> list[str]:
    return (LOGS / log).read_text().splitlines()


def test_the_source_of_a_mail_is_decoded(tmp_path: Path, explain: Run) -> None:
    plain = "\n".join(f"> {line}" for line in lines_of("oom-6.12.txt")) + "\n"
    mail = tmp_path / "mail"
    mail.write_bytes(quopri.encodestring(plain.encode()))
    assert b"=3D" in mail.read_bytes()
    done = explain(mail)
    assert done.out.splitlines()[3:] == explain(LOGS / "oom-6.12.txt").out.splitlines()[3:]
    assert "was decoded from quoted-printable" in done.err
    assert "lacks" not in done.err


def test_running_out_of_memory_is_told_by_kinds_that_add_up() -> None:
    found = only("oom-6.12.txt")
    report, memory = told_by(found)
    assert memory.total == (524288 - 16384) * PAGE
    assert memory.kinds == {
        "slab, unreclaimable": 300000 * PAGE, "anonymous memory": 68000 * PAGE,
        "free": 12250 * PAGE, "shared memory (tmpfs)": 12000 * PAGE,
        "slab, reclaimable": 5000 * PAGE, "page tables": 2500 * PAGE, "page cache": 2000 * PAGE,
        "kernel stacks": 8000 << 10}
    assert memory.unaccounted == memory.total - sum(memory.kinds.values()) == 104154 * PAGE
    assert [slab.name for slab in report.memory.slabs] == ["toy_desc", "kmalloc-4k", "task_struct"]
    assert report.memory.code[0].bytes == int(1.02 * 2**30)
    assert (report.memory.code[0].place, report.memory.code[0].module) == (
        "drivers/toy/toy_ring.c:412", "toy")
    assert [(task.pid, task.name, task.pages["rss"]) for task in report.tasks] == [
        (301, "systemd-journal", 900), (917, "firefox bin", 41000), (2101, "make", 1200)]
    assert [(task.name, task.pages["anon-rss"]) for task in report.killed] == [
        ("firefox bin", 163200)]
    assert found.asked is not None
    assert found.asked.what_for == "pipes"
    assert found.blocks is not None
    assert found.blocks.verdict == "out of memory"
    commands = [command for command, _ in found.next]
    assert "sudo pageowner report --allocator slab --by subsystem" in commands
    assert "sudo pageowner report --by module,subsystem" in commands
    assert (report.missing, report.damaged, report.foreign) == ([], [], 0)


def test_an_old_kernel_tells_the_same_in_other_lines() -> None:
    found = only("oom-4.4-syslog.txt")
    report, memory = told_by(found)
    assert memory.kinds["huge pages (hugetlb)"] == 400 << 21
    assert memory.kinds["kernel stacks"] == 4000 << 10
    assert memory.kinds["anonymous memory"] == 2500 * PAGE
    assert memory.unaccounted == ((1048576 - 23576) * PAGE - (400 << 21) - (4000 << 10)
                                  - (100000 + 1100 + 20000 + 2250 + 11350) * PAGE)
    assert report.time == "88210.200000"
    assert (report.missing, report.damaged, report.foreign) == ([], [], 0)


def test_a_cgroup_out_of_memory_is_told_by_its_own_statistics() -> None:
    found = only("oom-cgroup-6.1-journal.txt")
    report, memory = told_by(found)
    assert (report.kind, report.cgroup) == ("cgroup out of memory", "/kubepods/pod7/shop")
    assert memory.total == 524288 << 10
    assert memory.kinds["anonymous memory"] == 483183820
    assert memory.kinds["page cache"] == 8388608 - 4194304
    assert memory.unaccounted == (524288 << 10) - sum(memory.kinds.values())
    assert any("--memcg '*shop*'" in command for command, _ in found.next)


def test_a_cgroup_that_is_killed_whole_is_one_report() -> None:
    lines = lines_of("oom-cgroup-6.1-journal.txt")
    prefix = lines[0].partition("java")[0]
    lines += [f"{prefix}Tasks in /kubepods/pod7/shop are going to be killed due to"
              " memory.oom.group set",
              *(f"{prefix}Memory cgroup out of memory: Killed process {pid} (helper) total-vm:9kB,"
                f" anon-rss:8kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0"
                for pid in (9121, 9122))]
    (event,) = parse(lines, "log").events
    assert isinstance(event, MemoryReport)
    assert [task.pid for task in event.killed] == [9120, 9121, 9122]
    assert (event.missing, event.damaged, event.foreign) == ([], [], 0)


def of_cgroup(*lines: str) -> MemoryReport:
    (event,) = parse([
        "[    1.000000] bash invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0,"
        " oom_score_adj=0",
        "[    1.000000] memory: usage 51200kB, limit 51200kB, failcnt 37", *lines], "log").events
    assert isinstance(event, MemoryReport)
    assert (event.damaged, event.foreign) == ([], 0)
    return event


def test_before_5_3_each_cgroup_below_has_its_own_statistics() -> None:
    event = of_cgroup(*(
        f"[    1.00000{place}] Memory cgroup stats for /a{below}: cache:{8 * place}KB"
        f" rss:{100 * place}KB mapped_file:0KB" for place, below in enumerate(
            ["", "/b", "/b/c"], start=1)))
    assert (event.cgroup, event.cgroup_bytes) == (
        "/a", {"cache": 48 << 10, "rss": 600 << 10, "mapped_file": 0})


@pytest.mark.parametrize("stats", [
    ["[    1.000001] anon 48000000", "file 4096", "kernel_stack 16384"],  # dmesg, journalctl
    ["Nov 26 10:00:00 host kernel: anon 48000000#012file 4096#012kernel_stack 16384"],  # rsyslog
    ["6,7,1000001,-;anon 48000000\\x0afile 4096\\x0akernel_stack 16384\\x0a"]])  # /dev/kmsg
def test_statistics_of_a_cgroup_that_are_one_message_are_read(stats: list[str]) -> None:
    event = of_cgroup("[    1.000000] Memory cgroup stats for /a:", *stats)
    assert event.cgroup_bytes == {"anon": 48000000, "file": 4096, "kernel_stack": 16384}


def test_a_task_whose_child_was_killed_instead_was_not_killed() -> None:
    event = of_cgroup(
        "[    1.000001] Memory cgroup out of memory: Kill process 62685 (bash) score 0 or"
        " sacrifice child",
        "[    1.000002] Killed process 62769 (cp) total-vm:9kB, anon-rss:8kB, file-rss:0kB")
    assert [task.pid for task in event.killed] == [62769]


def test_a_cgroup_without_statistics_shows_no_empty_table(tmp_path: Path, explain: Run) -> None:
    log = tmp_path / "log"
    log.write_text("java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
                   "memory: usage 51200kB, limit 51200kB, failcnt 37\n")
    done = explain(log)
    assert "50 MiB is the limit" in done.out
    assert "WHAT" not in done.out
    assert "lacks the statistics of the cgroup" in done.err


@pytest.mark.parametrize(("line", "frame"), [
    (" pipe_write+0x39a/0x640", "pipe_write+0x39a/0x640"),
    (" ? pipe_write+0x39a/0x640", ""),
    (" [<ffffffff811e2d2c>] alloc_pages_current+0x8c/0x110 [toy]",
     "alloc_pages_current+0x8c/0x110 [toy]"),
    ("[c00000037540fae0] [c000000000641914] alloc_anon_folio+0x2b4/0x5a0",
     "alloc_anon_folio+0x2b4/0x5a0"),
    ("[<c0014200>] (dump_backtrace) from [<c0015020>] (show_stack+0x20/0x28)", "dump_backtrace"),
    (" dump_backtrace from show_stack+0x20/0x28", "dump_backtrace"),
    (" prep_new_page mm/page_alloc.c:1544 [inline]", "prep_new_page mm/page_alloc.c:1544 [inline]"),
    ("ret_from_fork (kbuild/arch/x86/kernel/process.c:159) ",
     "ret_from_fork (kbuild/arch/x86/kernel/process.c:159)"),
    ("CPU: 1 PID: 0 Comm: swapper/1 Not tainted", None), ("Mem-Info:", None),
    ("RIP: 0033:0x7f4d1c714a77", None)])
def test_frames_of_every_machine_are_read(line: str, frame: str | None) -> None:
    assert frame_of(line) == frame


def test_a_failed_allocation_is_fragmentation_or_too_little_memory() -> None:
    fragmented = only("fragmented-5.15-serial.txt")
    assert fragmented.blocks is not None
    assert fragmented.blocks.verdict == "fragmented"
    (zone,) = fragmented.blocks.zones
    # 280,000 kB less CMA and the reserve for atomic allocations; min and a block less a page
    assert (zone.free, zone.needed, zone.large) == (
        (280000 - 12000 - 4096) << 10, (20000 + 64 - 4) << 10, 0)
    assert ("sudo pageowner frag --order 4" in [command for command, _ in fragmented.next])
    assert fragmented.asked is not None
    assert fragmented.asked.what_for == "module toy"
    low, _ = pageowner.explain(LOGS / "low-and-bad-page-6.6-callers.txt").events
    assert low.blocks is not None
    assert low.blocks.verdict == "out of memory"
    assert low.blocks.zones[0].needed == 4096 << 10  # half of min: GFP_ATOMIC


def _failure(order: int, mask: str, zones: list[str]) -> Explanation:
    return explained(parse([
        f"toy: page allocation failure: order:{order}, mode:{mask}(X), nodemask=(null)",
        "Mem-Info:", *zones], "log"))


def _zone(name: str, free: int, least: int, blocks: str, reserve: str = "0 0 0 0",
          more: str = "") -> list[str]:
    return [f"Node 0 {name} free:{free}kB min:{least}kB low:{least}kB high:{least}kB{more}"
            f" active_file:0kB present:99999kB managed:99999kB", f"lowmem_reserve[]: {reserve}",
            f"Node 0 {name}: {blocks} = {free}kB"]


@pytest.mark.parametrize(("order", "mask", "verdict"), [
    (0, "0xcc0", "enough"),  # GFP_KERNEL from Normal
    (1, "0xcc0", "enough"),
    (2, "0xcc0", "fragmented"),  # of 16 kB there is only CMA
    (2, "0x100cca", "enough"),  # movable memory may lie in CMA
    (0, "0xcc4", "out of memory"),  # DMA32 alone: its reserve is not for GFP_KERNEL only
    (3, "0xcc1", "unknown"),  # there is no zone DMA
])
def test_zones_and_blocks_that_an_allocation_may_not_use_do_not_count(
    order: int, mask: str, verdict: str
) -> None:
    found = _failure(order, mask, [
        *_zone("DMA32", 400, 500, "100*4kB (U) 0*8kB 0*16kB", "0 9 9 9"),
        *_zone("Normal", 12000, 500, "2000*4kB (UM) 250*8kB (E) 125*16kB (C)", "0 0 0 0",
               " free_cma:2000kB")])
    assert found.events[0].blocks is not None
    assert found.events[0].blocks.verdict == verdict


def test_the_reserve_for_lower_zones_counts() -> None:
    zones = _zone("DMA", 9000, 100, "2250*4kB (U)", "0 2500 2500 2500")
    assert _failure(0, "0xcc0", zones).events[0].blocks.verdict == "out of memory"  # type: ignore[union-attr]
    assert _failure(0, "0xcc1", zones).events[0].blocks.verdict == "enough"  # type: ignore[union-attr]


def test_what_grew_between_two_reports_is_said(explain: Run) -> None:
    (grown,) = pageowner.explain(LOGS / "oom-twice.txt").grown
    assert (grown.kind, grown.after - grown.before) == ("slab, unreclaimable", 100000 * PAGE)
    out = explain(LOGS / "oom-twice.txt").out
    assert "What leaks?" in out
    assert "+391 MiB  781 MiB  1.1 GiB  slab, unreclaimable" in out
    out = explain(LOGS / "oom-twice.txt", "--last", "1").out
    assert out.count("Who owns") == 1
    assert "What leaks?" not in out
    last = json.loads(explain(LOGS / "oom-twice.txt", "--last", "1", "--json").out)
    assert (last["reports_in_all"], len(last["reports"]), last["grown"]) == (2, 1, [])


@pytest.mark.parametrize(("log", "expected"), [
    ("kasan-7.3-dmesg-t.txt", ("KASAN", 0x12340, "freed", "kworker/3:1", 77, 5 * 10**9, 78,
                               6500000000)),
    ("bad-page-5.3.txt", ("bad page", 0x2a41c, None, "", None, None, None, None)),
    ("../texts/14-dump-page-kasan.txt", ("KASAN", 0x25dfe, "freed", "swapper/0", 1, 8881199979, 9,
                                         None)),
])
def test_who_allocated_a_page_and_who_freed_it(log: str, expected: tuple[Any, ...]) -> None:
    page = only(log).event
    assert isinstance(page, PageDump)
    owner, freed = page.allocated, page.freed
    assert owner is not None
    assert (page.kind, page.pfn, page.tracked, owner.comm, owner.pid, owner.ts_ns,
            freed and freed.pid, freed and freed.ts_ns) == expected
    assert owner.frames
    assert freed is None or freed.frames
    assert (page.missing, page.damaged, page.foreign) == ([], [], 0)


def test_the_stack_below_a_damaged_line_is_not_that_of_the_allocation() -> None:
    log = lines_of("kasan-7.3-dmesg-t.txt")
    (place,) = [place for place, line in enumerate(log) if line.startswith("page last free")]
    whole, spoilt = only("kasan-7.3-dmesg-t.txt").event, [*log]
    spoilt[place] = log[place].replace("pid", "p?d")
    (page,) = parse(spoilt, "log").events
    assert isinstance(page, PageDump)
    assert isinstance(whole, PageDump)
    assert [number for number, _ in page.damaged] == [place + 1]
    assert page.freed is None
    assert page.allocated == whole.allocated


def test_a_task_may_call_itself_anything(tmp_path: Path, explain: Run) -> None:
    _, found = pageowner.explain(LOGS / "low-and-bad-page-6.6-callers.txt").events
    assert isinstance(found.event, PageDump)
    assert found.event.allocated is not None
    assert (found.event.allocated.comm, found.event.allocated.tgid) == ("evil), pid 1, ts 9", 700)
    out = explain(LOGS / "low-and-bad-page-6.6-callers.txt")
    assert "Who owns the memory?" in out.out
    hostile = tmp_path / "log"
    hostile.write_text((LOGS / "oom-6.12.txt").read_text().replace(
        "firefox bin", "a\x1b]0;x\x07b\u202e").replace("toy_desc", "\u202etoy").replace(
            "toy_ring_grow", "\x9bm").replace("make invoked", "\x07 invoked"))
    done = explain(hostile)
    assert all(c.isprintable() or c == "\n" for c in done.out + done.err)
    hostile.write_text(re.sub(r"oom_memcg=/[^,]*", "oom_memcg=/a/b[*\x1bc\x9bm",
                              (LOGS / "oom-cgroup-6.1-journal.txt").read_text()))
    again = explain(hostile)
    assert all(c.isprintable() or c == "\n" for c in again.out + again.err)
    assert "--memcg '*b[[][*]\\x1bc" in again.out
    assert "u202e" in done.out


def test_reports_of_several_processors_are_told_apart_by_their_callers(explain: Run) -> None:
    low, bad = pageowner.explain(LOGS / "low-and-bad-page-6.6-callers.txt").events
    assert (low.event.caller, bad.event.caller) == ("C1", "T4242")
    assert low.asked is not None
    assert low.asked.what_for == "network buffers"
    assert (low.event.mixed, bad.event.mixed, bad.event.missing) == (False, False, [])
    # without callers nothing is said that frames of the other might have made up
    mixed = explain(LOGS / "low-and-bad-page-no-callers.txt", "--json")
    found = json.loads(mixed.out)
    assert [report["mixed"] for report in found["reports"]] == [True, True]
    assert [report["answers"]["asked"] for report in found["reports"]] == [None, None]
    assert found["reports"][1]["allocated"]["pid"] == 701
    assert "which stack belongs to which is not certain" in mixed.err
    assert [f"pageowner: {line}" for line in found["notes"]] == mixed.err.splitlines()


def test_what_the_kernel_did_not_print_is_said(explain: Run, tmp_path: Path) -> None:
    assert "2 messages of warn_alloc were not printed" in explain(
        LOGS / "fragmented-5.15-serial.txt").err
    log = tmp_path / "log"
    log.write_text("BUG: Bad page state: 17 messages suppressed\n** 5 printk messages dropped **\n"
                   "net_ratelimit: 9 callbacks suppressed\n")
    err = explain(log).err
    assert "17 messages of Bad page state were not printed" in err
    assert "5 messages of the log were not printed" in err
    assert "9" not in err.replace(str(log), "")


def test_the_last_reports_alone_are_shown_and_noted(explain: Run) -> None:
    log = LOGS / "low-and-bad-page-no-callers.txt"
    done = explain(log, "--last", "1", "--json")
    found = json.loads(done.out)
    assert (len(found["reports"]), found["reports_in_all"]) == (1, 2)
    assert "line 1;" not in done.err
    assert "2 reports about memory in 60 lines; the last 1:" in explain(log, "--last", "1").out


def test_ranges_are_told_once_and_with_how_to_ask_for_them() -> None:
    events = pageowner.explain(LOGS / "ranges-dmesg-T.txt").events
    first, second, page, offline = events
    assert isinstance(first.event, BusyRange)
    assert isinstance(second.event, BusyRange)
    assert (first.event.first, first.event.end, first.event.times) == (0x45fe0, 0x45fff, 3)
    assert first.next[0][0] == "sudo pageowner who '[45fe0, 45fff)'"
    assert isinstance(page.event, PageDump)
    assert page.event.reason == "unmovable page"
    assert isinstance(offline.event, OfflineFailure)
    assert (offline.event.start, offline.event.last, offline.event.times, offline.event.pages) == (
        0x88000000, 0x8fffffff, 2, [0x88013])
    assert [command for command, _ in offline.next] == [
        "sudo pageowner who 0x88013", "sudo pageowner who 0x88000-0x8ffff"]


def test_why_the_kernel_died_is_said(explain: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("[    5.000000] usb 1-1: new device\n"
                   "[  464.577531] Kernel panic - not syncing: sysrq triggered crash\n"
                   "[  464.602043] ---[ end Kernel panic - not syncing: it did ]---\n")
    said = "line 2, 464.577531: the kernel panicked: sysrq triggered crash"
    assert explain(log).out.count("panicked") == 1
    assert said in explain(log).out
    (found,) = json.loads(explain(log, "--json").out)["panics"]
    assert found == {"line": 2, "time": "464.577531", "text": "sysrq triggered crash"}


def test_a_kernel_that_panics_instead_of_killing_lacks_no_victim(
        explain: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("hog invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), "
                   "order=0, oom_score_adj=1000\n"
                   "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled\n"
                   "CPU: 0 UID: 0 PID: 1181 Comm: hog Not tainted 6.12.118+deb13-amd64 #1\n"
                   "Kernel Offset: 0x7000000 from 0xffffffff81000000\n")
    found = explain(log)
    assert "the kernel panicked instead (vm.panic_on_oom)" in found.out
    assert "which task was killed" not in found.err
    assert "not known to belong" not in found.err


def test_what_others_write_of_a_panic_is_none(explain: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "Nov 26 10:00:00 host kernel: usb 1-1: new device\n"
        "Nov 26 10:00:01 host sshd[55]: Invalid user Kernel panic - not syncing: hello\n"
        "Nov 26 10:00:02 host root: Kernel panic - not syncing: logger\n"
        "Nov 26 10:00:03 host kernel: usb 1-1: called Kernel panic - not syncing: device\n")
    assert json.loads(explain(log, "--json").out)["panics"] == []
    with log.open("a") as more:
        more.write("Nov 26 10:00:04 host kernel: Kernel panic - not syncing: true\n"
                   "Nov 26 10:00:05 host sshd[55]: Invalid user of another line\n")
    (found,) = json.loads(explain(log, "--json").out)["panics"]
    assert (found["line"], found["text"]) == (5, "true")


def test_what_is_cut_off_is_said(explain: Run) -> None:
    done = explain(LOGS / "oom-6.12-cut.txt")
    for missing in ("its beginning", "the counters of the whole machine", "which task was killed",
                    "the table of tasks"):
        assert missing in done.err
    lines = lines_of("oom-6.12.txt")
    for number in range(2, len(lines) - 2, 5):
        assert parse(lines[:number], "log").events[0].missing, number


@pytest.mark.parametrize("size_kb", [16, 64])
def test_the_size_of_a_page_is_that_of_the_smallest_free_block(size_kb: int) -> None:
    lines = [line.replace("*4kB", f"*{size_kb}kB") for line in lines_of("oom-6.12.txt")
             if "DMA:" not in line and "DMA32:" not in line]
    lines.insert(40, f"[ 5021.103] Node 0 DMA: 3*{size_kb}kB (U) = {3 * size_kb}kB")
    log = parse(lines, "log")
    assert (log.page_size, log.page_size_known) == (size_kb << 10, True)


def test_a_log_without_a_page_size_takes_it_from_the_user(explain: Run) -> None:
    done = explain(LOGS / "ranges-dmesg-T.txt", "--page-size", "65536")
    assert "0x8800-0x8fff" in done.out
    assert "assuming" not in done.err
    assert "--page-size overrides this" in explain(LOGS / "ranges-dmesg-T.txt").err


def test_packed_logs_and_pipes_are_read(
        tmp_path: Path, explain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress((LOGS / "oom-6.12.txt").read_bytes()))
    assert explain(packed).out.splitlines()[1:] == explain(
        LOGS / "oom-6.12.txt").out.splitlines()[1:]
    utf16 = tmp_path / "utf16.txt"
    utf16.write_bytes((LOGS / "oom-6.12.txt").read_text().encode("utf-16"))
    assert explain(utf16).out.splitlines()[1:] == explain(
        LOGS / "oom-6.12.txt").out.splitlines()[1:]
    with (LOGS / "oom-6.12.txt").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert "out of memory" in explain("-").out


def test_a_log_without_reports_and_one_that_is_none(tmp_path: Path, explain: Run) -> None:
    empty = tmp_path / "empty"
    empty.write_text("")
    done = explain(empty)
    assert (done.status, "0 reports about memory in 0 lines" in done.out) == (0, True)
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 999)
    assert explain(tmp_path / "noise").status == 1
    done = explain(tmp_path / "missing")
    assert done.status == 1
    one_line(done.err.encode())
    assert explain(tmp_path).status == 1


@pytest.mark.parametrize("log", sorted((Path(__file__).parent.parent / "data/logs").iterdir()),
                         ids=lambda path: path.name)
def test_a_report_of_a_log_names_the_verb_that_reads_logs(cli: Cli, log: Path) -> None:
    done = cli("report", str(log))
    assert done.status == 1
    assert "pageowner explain" in one_line(done.err)


def test_a_binary_file_is_no_log(cli: Cli) -> None:
    done = cli("explain", sys.executable)
    assert (done.status, done.out) == (1, b"")
    assert "is a binary file, not a kernel log" in one_line(done.err)


def test_text_of_another_alphabet_is_no_binary_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("привет, мир\n" * 9, encoding="utf-16")
    assert cli("explain", tmp_path / "log").status == 0


@pytest.mark.parametrize("kind", ["a page_owner dump", "a saved snapshot"])
def test_what_is_no_log_is_refused_with_the_verb_for_it(
        cli: Cli, some_records: Path, tmp_path: Path, kind: str) -> None:
    file = some_records
    if "snapshot" in kind:
        file = tmp_path / "saved.parquet"
        assert cli("save", str(file), str(some_records)).status == 0
    done = cli("explain", str(file))
    assert done.status == 1
    assert f"is {kind}, not a kernel log; for that: pageowner report" in one_line(done.err)
