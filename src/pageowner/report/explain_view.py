"""The reports of a kernel log in words: ``pageowner explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.model.kernel_log import BusyRange, MemoryReport, OfflineFailure, PageDump
from pageowner.report.table import Column, draw_table
from pageowner.report.text import age, count, count_of, printable, size
from pageowner.report.wrapping import entry, prose

if TYPE_CHECKING:
    from pageowner.analysis.explain import Explained, Explanation
    from pageowner.analysis.log_blocks import Blocks
    from pageowner.analysis.log_memory import Growth, Memory
    from pageowner.model.kernel_log import Event, OwnerOfPage
    from pageowner.report.terminal import Paper

__all__ = ["draw", "warnings"]

_FEW = 5
_UNACCOUNTED = "not accounted for by any counter"


def draw(found: Explanation, paper: Paper) -> None:
    """The reports, one after the other, and what grew between them."""
    log = found.log
    title = f"{printable(log.source)}: {count_of(len(log.events), 'report')} about memory in" \
            f" {count_of(log.lines, 'line')}"
    if len(found.events) < len(log.events):
        title += f"; the last {len(found.events)}:"
    prose(paper, title, "title")
    for number, when, text in log.panics:
        paper.line()
        prose(paper, f"line {number}{f', {printable(when)}' if when else ''}: the kernel panicked:"
                     f" {printable(text)}", "title")
    for report in found.events:
        paper.line()
        _draw_report(report, paper, log.page_size)
    if found.grown:
        paper.line()
        _grown(found.grown, paper)


def warnings(found: Explanation) -> list[str]:
    """What could not be read, or not whole, a line each."""
    log, lines = found.log, []
    if log.joined:
        lines.append(f"{log.source}: {count_of(log.joined, 'line')} had been wrapped and was joined"
                     " to the line before" if log.joined == 1 else
                     f"{log.source}: {count(log.joined)} lines had been wrapped and were joined to"
                     " the lines before")
    if log.was_encoded:
        lines.append(f"{log.source}: was decoded from quoted-printable, as in the source of a mail")
    if log.quoted:
        lines.append(f"{log.source}: quote marks were removed from {count_of(log.quoted, 'line')}")
    if log.cut:
        lines.append(f"{log.source}: the last line has no end; the log may go on")
    for name, number in log.suppressed.items():
        lines.append(f"{log.source}: {count_of(number, 'message')} of {printable(name)}"
                     f" {'was' if number == 1 else 'were'} not printed, as the kernel says")
    if log.unread:
        number, text = log.unread[0]
        lines.append(f"{log.source}: {count_of(len(log.unread), 'line')} about ranges of pages"
                     f" could not be read; the first is line {number}: {text.strip()[:60]}")
    for report in found.events:
        event = report.event
        if event.damaged:
            number, text = event.damaged[0]
            lines.append(
                f"{log.source}: {count_of(len(event.damaged), 'line')} of the report in line"
                f" {event.line} could not be read completely; the first is line {number}:"
                f" {text.strip()[:60]}")
        if event.missing:
            lines.append(f"{log.source}: the report in line {event.line} lacks "
                         + "; ".join(event.missing))
        if event.mixed:
            lines.append(f"{log.source}: lines of another report are mixed with the one in line"
                         f" {event.line}; which stack belongs to which is not certain")
        if event.foreign:
            lines.append(f"{log.source}: {count_of(event.foreign, 'line')} within the report in"
                         f" line {event.line} {'is' if event.foreign == 1 else 'are'} not known"
                         " to belong to it")
    if not log.page_size_known and any(isinstance(report.event, MemoryReport | OfflineFailure)
                                       for report in found.events):
        lines.append(f"{log.source}: does not show the page size; assuming"
                     f" {size(log.page_size)}; --page-size overrides this")
    return lines


def _draw_report(explained: Explained, paper: Paper, page_size: int) -> None:
    event = explained.event
    where = f"line {event.line}" + (f", {printable(event.time)}" if event.time else "")
    what = (_report_title(event, page_size) if isinstance(event, MemoryReport) else
            _page_title(event) if isinstance(event, PageDump) else
            _range_title(event))
    prose(paper, f"{where}: {what}", "title")
    if isinstance(event, MemoryReport):
        _report(event, explained, paper, page_size)
    elif isinstance(event, PageDump):
        _page(event, explained, paper)
    if explained.next:
        paper.line("Next:", "columns")
        # Beside a long command no place is left for words: these go below it.
        most = paper.width // 2 - 4
        commands = [(printable(command), why) for command, why in explained.next]
        widest = max((len(command) for command, _ in commands if len(command) <= most), default=0)
        for command, why in commands:
            if len(command) <= most:
                entry(paper, f"  {command:<{widest}}  ", why)
            else:
                paper.line(f"  {command}")
                prose(paper, why, indent=4)


def _report_title(report: MemoryReport, page_size: int) -> str:
    what = {"cgroup out of memory": "a cgroup is out of memory",
            "allocation failure": "an allocation failed",
            "vmalloc failure": "an allocation of vmalloc failed",
            "memory state": "the state of memory"}.get(report.kind, "out of memory")
    if report.cgroup:
        what += f" ({printable(report.cgroup)})"
    if not report.comm:
        return what
    comm = printable(report.comm)
    if report.order is None:
        return f"{what}; {comm} asked"
    if report.order < 0:
        return f"{what}; {comm} was told to call the OOM killer (SysRq f)"
    block = size(page_size << report.order)
    flags = printable(report.gfp) or f"gfp mask {report.gfp_mask or 0:#x}"
    piece = " in one piece" if report.order else ""
    return f"{what}; {comm} asked for {block}{piece} (order {report.order}, {flags})"


def _report(report: MemoryReport, explained: Explained, paper: Paper, page_size: int) -> None:
    if explained.asked is not None and explained.asked.stack:
        entry(paper, "  asked for: ",
              printable(f"{explained.asked.what_for}; {explained.asked.stack}"))
    for task in report.killed:
        sizes = ", ".join(f"{name} {size(kb << 10)}" for name, kb in task.pages.items()
                          if name.endswith("-rss") and kb)
        entry(paper, "  killed: ", printable(f"{task.name} (pid {task.pid})")
              + (f": {sizes}" if sizes else ""))
    if report.no_victim:
        paper.line("  no task was left to kill")
    if report.panicked:
        paper.line("  no task was killed: the kernel panicked instead (vm.panic_on_oom)")
    if explained.memory is not None:
        _memory(report, explained.memory, paper, page_size)
    if explained.blocks is not None:
        _blocks(explained.blocks, paper, page_size)


def _memory(report: MemoryReport, memory: Memory, paper: Paper, page_size: int) -> None:
    whole = memory.total or sum(memory.kinds.values()) or 1
    title = "Who owns the memory?"
    if memory.total is not None:
        title += f" {size(memory.total)} " + (
            "is the limit" if report.kind == "cgroup out of memory" else "in all")
    paper.line(title, "columns")
    rows = list(memory.kinds.items())
    if memory.unaccounted is not None and memory.unaccounted > 0:
        rows.append((_UNACCOUNTED, memory.unaccounted))
        rows.sort(key=lambda row: -row[1])
    rows = [row for row in rows if 1000 * row[1] >= whole] or rows
    if rows:
        draw_table(paper, [
            Column("SIZE", [size(number) for _, number in rows]),
            Column("%", [f"{100 * number / whole:.1f}" for _, number in rows]),
            Column("WHAT", [name for name, _ in rows], text=True)], indent=2)
    if memory.unaccounted is None:
        prose(paper, "How much memory no counter includes is not known: counters are"
                     " missing.", indent=2)
    elif memory.unaccounted < 0:
        prose(paper, f"The counters add up to {size(-memory.unaccounted)} more than there is.",
              indent=2)
    _largest(report, paper, page_size)


def _largest(report: MemoryReport, paper: Paper, page_size: int) -> None:
    slabs = sorted(report.memory.slabs, key=lambda slab: -slab.total_kb)[:_FEW]
    if slabs:
        entry(paper, "  largest slab caches: ", ", ".join(
            f"{printable(slab.name)} {size(slab.total_kb << 10)}" for slab in slabs))
    tasks = sorted(report.tasks, key=lambda task: -task.pages.get("rss", 0))[:_FEW]
    if tasks:
        entry(paper, "  largest tasks: ", ", ".join(
            f"{printable(task.name)} (pid {task.pid}) {size(task.pages.get('rss', 0) * page_size)}"
            for task in tasks) + f"; {count_of(len(report.tasks), 'task')} in all, "
            + size(sum(task.pages.get("rss", 0) for task in report.tasks) * page_size)
            + " (shared pages count for each)")
    if report.memory.code:
        paper.line("  largest by line of code:")
        draw_table(paper, [
            Column("SIZE", [size(line.bytes) for line in report.memory.code]),
            Column("CALLS", [count(line.calls) for line in report.memory.code]),
            Column("WHERE", [printable(f"{line.function} {line.place}"
                                       + (f" [{line.module}]" if line.module else ""))
                             for line in report.memory.code], text=True)], indent=4)


def _blocks(blocks: Blocks, paper: Paper, page_size: int) -> None:
    wanted = size(page_size << blocks.order)
    paper.line(f"Why could it not get {wanted}{' in one piece' if blocks.order else ''}?",
               "columns")
    prose(paper, {
        "out of memory": "Out of memory: no zone that it may use has enough above its low mark.",
        "fragmented": "Fragmented: there is memory enough, but no free block is that large.",
        "enough": "A block was free when this was printed: it was freed just then, or the"
                  " allocation may not use it (its nodes, its cpuset).",
        "unknown": "The log does not have the free blocks of the zones that it may use.",
    }[blocks.verdict], indent=2)
    for zone in blocks.zones:
        why = {"low": f"{size(zone.free)} free, {size(zone.needed)} needed",
               "fragmented": f"{size(zone.free)} free, {size(zone.needed)} needed, but no block of"
                             f" {wanted}",
               "enough": f"{size(zone.free)} free, {size(zone.needed)} needed,"
                         f" {count_of(zone.large, 'block')} of {wanted} or more"}[zone.verdict]
        entry(paper, f"  node {zone.node}, zone {zone.name}: ", why)


def _page_title(page: PageDump) -> str:
    which = "a page" if page.pfn is None else f"page {page.pfn:#x}"
    what = {"bad page": f"{which} is in a bad state, found in {printable(page.process)}",
            "KASAN": f"KASAN found a bad access to {which}"}.get(page.kind, f"{which} was dumped")
    return what + (f": {printable(page.reason)}" if page.reason and page.kind != "KASAN" else "")


def _page(page: PageDump, explained: Explained, paper: Paper) -> None:
    if page.flags:
        entry(paper, "  flags: ", printable(page.flags))
    if page.tracked is not None:
        paper.line("  page owner has it as " + page.tracked)
    if page.allocated is not None:
        _owner("allocated", page.allocated,
               explained.asked.what_for if explained.asked else "", paper)
    if page.freed is not None:
        when = None if page.freed.ts_ns is not None else page.free_ts_ns
        _owner("freed", page.freed, "", paper, when)
    if page.migrated:
        paper.line(f"  last migrated: {printable(page.migrated)}")
    if page.allocated is None:
        prose(paper, "Who allocated it is not known: page owner was off, or has no record of"
                     " the page.", indent=2)


def _owner(what: str, owner: OwnerOfPage, what_for: str, paper: Paper,
           when_ns: int | None = None) -> None:
    when_ns = owner.ts_ns if owner.ts_ns is not None else when_ns
    words = [f"by {printable(owner.comm)}" if owner.comm else "",
             "" if owner.pid is None else f"{'(' if owner.comm else 'by '}pid {owner.pid}"
                                          f"{')' if owner.comm else ''}",
             "" if owner.order is None else f"as a block of order {owner.order}"
                                            f" ({printable(owner.gfp)})",
             f"for {printable(what_for)}" if what_for and not what_for.endswith("other") else "",
             "" if when_ns is None else f"{age(when_ns)} after boot"]
    entry(paper, f"  {what}: ", " ".join(word for word in words if word) or "by an unknown task")
    for frame in owner.frames:
        paper.line(f"      {printable(frame)}")


def _range_title(event: Event) -> str:
    if isinstance(event, BusyRange):
        return (f"pages {event.first:#x} to {event.end - 1:#x} could not be allocated in one piece:"
                f" some of them are in use{_times(event.times)}")
    if isinstance(event, OfflineFailure):
        if event.last < event.start:
            return f"{count_of(len(event.pages), 'page')} could not be migrated"
        reason = f": {printable(event.reason)}" if event.reason else ""
        return (f"memory at {event.start:#x} to {event.last:#x}"
                f" ({size(event.last - event.start + 1)}) could not be taken"
                f" offline{reason}{_times(event.times)}")
    return "a report"


def _times(number: int) -> str:
    return "" if number == 1 else f" ({count(number)} times)"


def _grown(grown: list[Growth], paper: Paper) -> None:
    paper.line("What leaks? From the first of these reports to the last grew:", "columns")
    draw_table(paper, [
        Column("CHANGE", [f"+{size(kind.after - kind.before)}" for kind in grown]),
        Column("BEFORE", [size(kind.before) for kind in grown]),
        Column("AFTER", [size(kind.after) for kind in grown]),
        Column("WHAT", [kind.kind for kind in grown], text=True)], indent=2)
