"""OOM reports and failed allocations in a kernel log.

Forms: mm/oom_kill.c (dump_header, oom_kill_process), mm/page_alloc.c (warn_alloc; "page allocation
failure. order:" until 2.6), mm/vmalloc.c, mm/memcontrol.c; of 6.12, and older ones by logs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.kernel.limits import HIGHEST_ORDER
from pageowner.model.kernel_log import MemoryReport, Task
from pageowner.sources.kernel_log_lines import HEX, NUMBER
from pageowner.sources.kernel_log_memory import MemoryParts, missing_of
from pageowner.sources.kernel_log_traces import frame_of, is_of_a_processor

if TYPE_CHECKING:
    from pageowner.sources.kernel_log_lines import Line

__all__ = ["ReportReader", "begins_report", "continues_report"]

_OOM = re.compile(rf"(?P<comm>.+?) invoked oom-killer: gfp_mask=(?P<mask>0x{HEX})"
                  rf"(?:\((?P<gfp>[^)]*)\))?,.*?\border=(?P<order>-?\d+)")
_FAILURE = re.compile(
    r"(?P<comm>.+?): (?P<what>page allocation failure[:.]|page allocation stalls for \d+ms,"
    r"|vmalloc: allocation failure[,:]|vmalloc error:|vmalloc size \d+ allocation failure:)"
    rf".*?(?:\border:\s?(?P<order>\d+))?(?:, [^,]*)?, mode:\s?(?P<mask>0x{HEX})"
    r"(?:\((?P<gfp>[^)]*)\))?(?=[,\s]|$)")
_ORDER_DIGITS = 3
_FAILURE_ORDER = re.compile(r"\b(?:page )?order:?\s?(\d+)")
_KILLED = re.compile(rf"(?:.*: )?(?:Killed|Kill) process (?P<pid>{NUMBER})"
                     r"(?:, UID \d+,)?,? \((?P<comm>.*?)\)(?P<rest>,? .*)?$")
_KILLED_KB = re.compile(rf"(total-vm|[a-z]+-rss):({NUMBER})kB")
_KILLED_REST = re.compile(rf"[a-z-]+:{NUMBER}kB|UID:\d+|oom_score_adj:-?\d+"
                          r"|score \d+ or sacrifice child|[, ]+(?=\S)")
_CONSTRAINT = re.compile(r"oom-kill:\s?constraint=(?P<constraint>\w+),(?P<rest>.*)$")
_SHOW_MEMORY = re.compile(r"[sS]ys[rR]q ?: (?:HELP : )?Show Memory")
_TASK_IN = re.compile(r"Task in (?P<task>.*) killed as a result of limit of (?P<cgroup>.*)$")
_USAGE = re.compile(rf"(?P<what>memory|swap|memory\+swap|kmem): usage (?P<usage>{NUMBER})kB,"
                    rf" limit (?P<limit>{NUMBER})kB, failcnt \d+$")
_STATS = re.compile(r"Memory cgroup stats for (?P<cgroup>.*?):(?P<rest>.*)$")
_STAT = re.compile(rf"([a-z_0-9]+) ({NUMBER})(?=\s|$)")
_ALL_STATS = re.compile(rf"{_STAT.pattern}(?:\s+{_STAT.pattern})*$")
"""One message until 6.3, of which most logs have each line without a prefix, or all in one."""
_OLD_STAT = re.compile(rf"([a-z_]+):({NUMBER})KB")
_NO_VICTIM = ("Out of memory and no killable processes", "System is deadlocked on memory")
_PANICS = re.compile(r"Out of memory: (?:compulsory|system-wide) panic_on_oom is enabled")
"""check_panic_on_oom() in mm/oom_kill.c of 6.1 to 7.3."""
_PANIC = "Kernel panic - not syncing: "
_TELLS = re.compile(r"Kill|oom-kill:|killable|deadlocked|panic_on_oom|Task in |usage|cgroup stats")
"""What no line of the OOM killer itself is without."""
_LEAST_FOREIGN = 100
"""Lines that are not its own, one after the other, after which a report is over."""


def begins_report(line: Line) -> MemoryReport | None:
    """A report that begins with this line."""
    text = line.text
    if not ("allocation" in text or "oom-killer" in text or "vmalloc" in text
            or "Show Memory" in text):
        return None
    for pattern in (_OOM, _FAILURE):
        if found := pattern.match(line.text):
            report = MemoryReport(line.number, line.time, line.caller)
            report.comm = found["comm"].strip()
            report.gfp_mask, report.gfp = int(found["mask"], 16), found["gfp"] or ""
            order = found["order"] or (None if pattern is _OOM else next(
                iter(_FAILURE_ORDER.findall(line.text)), None))
            report.order = None if order is None else _order(order)
            report.kind = "out of memory" if pattern is _OOM else (
                "vmalloc failure" if "vmalloc" in found["what"] else "allocation failure")
            if report.order is None and (order or report.kind != "vmalloc failure"):
                report.damaged.append((line.number, line.text))
            return report
    if _SHOW_MEMORY.search(line.text):
        return MemoryReport(line.number, line.time, line.caller)
    for words, kind in (("invoked oom-killer", "out of memory"),
                        ("page allocation failure", "allocation failure")):
        if words in line.text:
            report = MemoryReport(line.number, line.time, line.caller, kind=kind)
            report.comm = line.text.partition(words)[0].strip().rstrip(":")
            report.damaged.append((line.number, line.text))
            return report
    return None


def _order(digits: str) -> int | None:
    """None for one that no block has."""
    if len(digits) > _ORDER_DIGITS or not -1 <= int(digits) <= HIGHEST_ORDER:
        return None
    return int(digits)


_INSIDE = re.compile(
    r"(?:Node \d+ )?(?:DMA|DMA32|Normal|HighMem|Movable) free:\d|oom-kill:\s?constraint="
    r"|(?:Memory cgroup )?[Oo]ut of memory.*: Kill|Killed process \d+ \(|Unreclaimable slab info:"
    r"|active_anon:\d+ |\[ *pid *\] +uid|Tasks state \(memory|Memory cgroup stats for "
    r"|Mem-Info:")


def continues_report(line: Line) -> MemoryReport | None:
    """A report of which this is a line, but which did not begin in the log; after "Mem-Info:"
    alone, the state of memory that somebody asked for."""
    if not _INSIDE.match(line.text.strip()):
        return None
    report = MemoryReport(line.number, line.time, line.caller)
    if line.text.strip() == "Mem-Info:":
        report.missing.append("what it was printed for")
    else:
        report.kind = "out of memory"
        report.missing.append("its beginning (who asked for how much)")
    return report


class ReportReader:
    """Takes the lines of one report."""

    def __init__(self, report: MemoryReport) -> None:
        self.event = report
        self._parts = MemoryParts(report.memory)
        self._strangers = 0
        self._in_stats = self._is_cgroups = self._ends = self._is_group = False

    @property
    def is_over(self) -> bool:
        """Whether all of it was there, or what follows cannot be its own."""
        return self._ends or (self._parts.has_totals and self.event.kind.endswith("failure"))

    def own(self, line: Line) -> bool:
        """Whether the line can only be of such a report, and was taken."""
        report, text = self.event, line.text
        if self._ends and not self._after_the_end(text):
            return False
        found = "whole" if self._told(line) else self._parts.take(text)
        if found == "broken":
            report.damaged.append((line.number, text))
        if found == "other":
            return False
        self._strangers = 0
        return True

    def other(self, line: Line) -> bool:
        """Whether the report goes on with a line that can be of others too; if not, it is over."""
        report, text = self.event, line.text
        if self._ends and not self._after_the_end(text):
            return False
        if self._is_group and text.startswith("Tasks in "):
            return True
        frame = frame_of(text)
        if frame is not None:
            if frame and not self._parts.memory.kinds:
                report.frames.append(frame)
            return True
        if not text.strip() or is_of_a_processor(text):
            return True
        if (self._parts.has_totals and report.kind.endswith("failure")) or (
                report.kind == "memory state" and self._parts.has_totals):
            return False
        self._strangers += 1
        report.foreign += 1
        return self._strangers < _LEAST_FOREIGN

    def _after_the_end(self, text: str) -> bool:
        plain = text.strip()
        if plain.startswith("Tasks in ") and "memory.oom.group" in plain:
            self._is_group = True
        return plain.startswith(("Killed process", "oom_reaper:", "Tasks in ")) or not plain or (
            self._is_group and "out of memory: Killed process" in plain)

    def _told(self, line: Line) -> bool:
        """Lines of the OOM killer itself."""
        report, text = self.event, line.text.strip()
        if not (self._in_stats or _TELLS.search(text)):
            return False
        if found := _CONSTRAINT.match(text):
            report.constraint = found["constraint"]
            if "CONSTRAINT_MEMCG" in text:
                self._is_cgroups = True
                named = re.search(r"oom_memcg=(.*?),task_memcg=", found["rest"])
                report.cgroup = named[1] if named else report.cgroup
            return True
        text = text.removeprefix(_PANIC)  # with which the kernel says most of these
        if _PANICS.match(text):
            report.panicked = self._ends = True
            return True
        if text.startswith(_NO_VICTIM) or "no killable processes" in text:
            report.no_victim = True
            return True
        if found := _KILLED.match(text):
            self._kill(line, found)
            return True
        return self._of_cgroup(line, text)

    def _kill(self, line: Line, found: re.Match[str]) -> None:
        kb = {name: int(number) for name, number in _KILLED_KB.findall(found["rest"] or "")}
        report, pid = self.event, int(found["pid"])
        if "Memory cgroup" in line.text:
            self._is_cgroups = True
        known = [task for task in report.killed if task.pid == pid]
        for task in known:
            task.pages.update(kb)
        if not known:
            report.killed.append(Task(pid, pid, found["comm"], kb))
        if kb:
            self._ends = True
            # Until 5.0 a line without sizes says whose turn it is: that task is killed, or a child
            # of it, as the next line tells (oom_kill_process in mm/oom_kill.c).
            report.killed = [task for task in report.killed if task.pages]
            rest = _KILLED_REST.sub("", found["rest"] or "").strip(" ")
            if not {"total-vm", "anon-rss", "file-rss"} <= kb.keys() or rest.strip(",") or (
                    rest.endswith(",") and line.text.endswith(",")):
                report.damaged.append((line.number, line.text))

    def _of_cgroup(self, line: Line, text: str) -> bool:
        report = self.event
        if found := _TASK_IN.match(text):
            report.cgroup, self._is_cgroups = found["cgroup"], True
        elif found := _USAGE.match(text):
            report.cgroup_kb[found["what"]] = int(found["usage"]), int(found["limit"])
            self._is_cgroups = True
        elif found := _STATS.match(text):
            self._is_cgroups = self._in_stats = True
            report.cgroup = report.cgroup or found["cgroup"].strip()
            # Until 5.2 each cgroup of the tree has a line, without those below (mm/memcontrol.c).
            for name, kb in _OLD_STAT.findall(found["rest"]):
                report.cgroup_bytes[name] = report.cgroup_bytes.get(name, 0) + (int(kb) << 10)
            for name, number in _STAT.findall(found["rest"]):
                report.cgroup_bytes.setdefault(name, int(number))
        elif self._in_stats and _ALL_STATS.match(text):
            report.cgroup_bytes.update((name, int(size)) for name, size in _STAT.findall(text))
        elif re.match(r"(?:memory|swap|kmem|memory\+swap): usage", text):
            report.damaged.append((line.number, line.text))
        else:
            return False
        return True

    def close(self) -> MemoryReport:
        """The report, with what is missing."""
        report = self.event
        report.tasks = self._parts.tasks
        if report.kind == "memory state" and (report.killed or report.tasks):
            report.kind = "out of memory"
            report.missing = ["its beginning (who asked for how much)"]
        if self._is_cgroups:
            report.kind = "cgroup out of memory"
            if "memory" not in report.cgroup_kb:
                report.missing.append("usage and limit of the cgroup")
            if not report.cgroup_bytes:
                report.missing.append("the statistics of the cgroup")
        else:
            report.missing += missing_of(report.memory)
        if "out of memory" in report.kind:
            if not (report.killed or report.no_victim or report.panicked):
                report.missing.append("which task was killed")
            if not report.tasks:
                report.missing.append("the table of tasks (or vm.oom_dump_tasks is 0)")
            elif not self._parts.has_tasks:
                report.missing.append("the head of the table of tasks")
        if self._strangers >= _LEAST_FOREIGN:  # those behind it
            report.foreign -= self._strangers
        return report
