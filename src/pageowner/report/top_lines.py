"""What the live view shows, as lines of styled text for a width; nothing here knows of a screen.

Everything that a task, a cgroup or a module could have named itself goes through `printable`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pageowner.report.cells import cell_len, cut, cut_front, fitted
from pageowner.report.text import age, count, count_of, printable, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.analysis.live import Part, Row
    from pageowner.model.live import Health

__all__ = ["HELP", "KEYS_LINE", "Line", "details", "header", "name_of", "owner",
           "rest", "short", "sparkline", "state_line", "titles"]

Line = list[tuple[str, str]]
"""Parts of a line: text, printable, and the name of its style ("": none)."""

_BARS = "▁▂▃▄▅▆▇█"
_FLAT = 0.01
_WIDE, _WIDER = 110, 150
_STATES = {"owned": "good", "early": "", "untracked": "", "free": "dim", "filtered": "dim",
           "in_motion": "warn", "slabs": "dim"}
_NAMES = {"comm": "TASK", "memcg": "MEMCG"}

KEYS_LINE = "q quit  ? help  / filter  g group  o order  enter unfold  p pause  z zero"

HELP = """\
pageowner top: who owns memory now

 q, Ctrl-C       quit
 g               group by stack, task, subsystem, memcg in turn
 s t u m         group by stack, task, subsystem (use), memcg
 w               group by what uses the pages now (takes longer)
 c               with --objects: group by slab cache
 o               order: size, change, rate, allocations, frees
 /               filter; empty: show all. Words with = as in report,
                 others occur in name, stack or task:
                 comm=ba* order=0,1 older=5m ext4
 enter, space    unfold: the stack, or an owner's stacks
 up down, j k    move;  PgUp PgDn Home End
 p               pause     z  count changes from now on

 CHANGE since the view began or z; PER SEC over ten seconds; ALLOC/S and
 FREE/S: blocks since the last look, without those that came and went
 between two looks. Above, allocs/s and frees/s are all there were.
 missed: events that hooks could not see or keep; stale: records of free
 pages, of those checked so far.

 any key: back"""


def _fitting(parts: Line, width: int) -> Line:
    """The parts that fit a line whole, and of the first that does not what there is room for."""
    shown: Line = []
    left = width
    for text, style in parts:
        wide = cell_len(text)
        if wide > left:
            if left > 1:
                shown.append((cut(text, left), style))
            break
        shown.append((text, style))
        left -= wide
    return shown


def header(health: Health, name: str, now_ns: int, wall: float, every: float, paused: bool,
           width: int, page_size: int) -> list[Line]:
    """Three lines: where and when, pages by state, how the tracker itself does."""
    clock = time.strftime("%H:%M:%S", time.localtime(wall))
    first: Line = [("pageowner top", "bold"), (f"  {printable(name)}  {clock}", "")]
    if health.since_ns:
        first.append((f"  tracking for {age(max(now_ns - health.since_ns, 0))}", ""))
    first.append((f"  every {every:g} s", "dim"))
    if paused:
        first.append(("  paused", "warn"))
    second: Line = [("memory ", "dim")]
    for state, pages in health.pages.items():
        second.append((f" {state} ", "dim"))
        second.append((size(pages * page_size), _STATES.get(state, "")))
    if width >= _WIDE and health.pages:
        second += [("  ", ""), *_bar(health.pages, min(width - 76, 60))]
    missed = health.missed + health.lost
    third: Line = [("hooks ", "dim"), (f"{health.hooks}/{health.all_hooks}",
                   "" if health.hooks == health.all_hooks else "warn"),
                   (" missed ", "dim"), (short(missed), "warn" if missed else ""),
                   (" stale ", "dim"), (f"{short(health.stale)}/{short(health.checked)}",
                                        "warn" if health.stale else ""),
                   (" mem ", "dim"), (size(health.memory), ""),
                   ("  allocs/s ", "dim"), (short(health.allocs), ""),
                   (" frees/s ", "dim"), (short(health.frees), "")]
    return [_fitting(line, width) for line in (first, second, third)]


def _bar(pages: dict[str, int], cells: int) -> Line:
    """Shares of memory side by side."""
    total = max(sum(pages.values()), 1)
    marks = {"owned": ("█", "good"), "early": ("▓", ""), "untracked": ("▒", "warn"),
             "filtered": ("▒", "dim"), "free": ("░", "dim"),
             "slabs": ("░", "dim"), "in_motion": ("▒", "warn")}
    parts: Line = []
    done = drawn = 0
    for state, number in pages.items():
        done += number
        wide = round(done / total * cells) - drawn
        drawn += wide
        parts.append((marks[state][0] * wide, marks[state][1]))
    return parts


def state_line(total: tuple[int, int], owners: int, by: str, filter_text: str, seconds: float,
               width: int, page_size: int) -> Line:
    """What is shown: how many owners by what, their sum (`Live.total`), the filter."""
    noun = {"comm": "task name"}.get(by, by)
    line: Line = [(count_of(owners, "owner"), "bold"), (" by ", "dim"), (noun, "bold"),
                  (": ", "dim"), (size(total[0] * page_size), "bold"),
                  (f" ({_signed(total[1] * page_size)} in {age(seconds * 1e9)})",
                   _growth(total[1]))]
    if filter_text:
        line.append((f"  filter: {printable(filter_text)}", "warn"))
    return _fitting(line, width)


def short(number: float) -> str:
    """A number in five characters: ``0``, ``0.3``, ``731``, ``13.2k``, ``4.1M``."""
    if number < 10 and number != int(number):
        return f"{number:.1f}"
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if not unit or number >= 99.95 else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.0f}T"


def sparkline(series: Sequence[int], cells: int) -> str:
    """The last ``cells`` values as bars between the least and the most of them; hardly any
    difference is drawn as none."""
    shown = list(series[-cells:])
    if not shown:
        return " " * cells
    low, high = min(shown), max(shown)
    span = high - low
    if span <= high * _FLAT:
        drawn = (_BARS[3] if high else " ") * len(shown)
    else:
        drawn = "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)
    return drawn.rjust(cells)


def _signed(size_bytes: float) -> str:
    if round(size_bytes) == 0:
        return "0"
    return ("+" if size_bytes > 0 else "") + size(round(size_bytes))


def _growth(value: float) -> str:
    return "grows" if value > 0 else "shrinks" if value < 0 else "dim"


def _columns(by: str, width: int) -> tuple[int, int, int]:
    """Cells of the history, of what a stack is for (0: not shown), and of the owner's name."""
    history = 8 if width < _WIDE else 16 if width < _WIDER else 30
    what = 0 if by != "stack" or width < _WIDE else 22 if width < _WIDER else 28
    name = width - 46 - history - (what + 2 if what else 0)
    return history, what, max(name, 4)


def titles(by: str, order: str, width: int) -> Line:
    """The line above the rows; the column that orders them is marked."""
    history, what, name = _columns(by, width)
    line: Line = []
    for key, text in (("size", f"{'SIZE':>8} "), ("change", f"{'CHANGE':>10} "),
                      ("rate", f"{'PER SEC':>9} "), ("allocs", f"{'ALLOC/S':>7} "),
                      ("frees", f"{'FREE/S':>6} ")):
        line.append((text, "title_chosen" if key == order else "title"))
    line.append((f"{'HISTORY':<{history}} ", "title"))
    if what:
        line.append((f"{'WHAT':<{what}}  ", "title"))
    line.append((f"{_NAMES.get(by, by.upper()):<{name}}", "title"))
    return line


def name_of(label: Any, by: str) -> str:
    """An owner's name in one line."""
    if label is None:
        return {"memcg": "(not charged)", "stack": "(no stack)"}.get(by, "(unknown)")
    if by == "stack":
        from pageowner.analysis.subsystems import short_stack

        label = short_stack(label, 6)
    return printable(str(label)) or "(no name)"


def owner(row: Row, by: str, width: int, page_size: int) -> Line:
    """One owner in a line."""
    history, what, name = _columns(by, width)
    line: Line = [
        (f"{size(row.pages * page_size):>8} ", ""),
        (f"{_signed(row.change * page_size):>10} ", _growth(row.change)),
        (f"{_signed(row.rate * page_size):>9} ", _growth(round(row.rate * page_size))),
        (f"{short(row.allocs):>7} ", "" if row.allocs else "dim"),
        (f"{short(row.frees):>6} ", "" if row.frees else "dim"),
        (f"{sparkline(row.series, history)} ", "bars")]
    if what:
        from pageowner.analysis.subsystems import subsystem

        line.append((fitted("-" if row.label is None else printable(subsystem(row.label)), what)
                     + "  ", ""))
    # of a path the end says most
    label = name_of(row.label, by)
    line.append((fitted(cut_front(label, name) if by == "memcg" else label, name), "name"))
    return line


def details(row: Row, by: str, parts: Sequence[Part], number: int, width: int,
            page_size: int) -> list[Line]:
    """What an owner unfolds to: the frames of its stack, or the stacks it took memory through."""
    from pageowner.analysis.subsystems import short_stack, subsystem

    about = (f"{count_of(row.pages, 'page')} in {count_of(row.blocks, 'block')}"
             if page_size > 1 else f"{size(row.pages)} in {count_of(row.blocks, 'object')}")
    if by == "stack":
        what = "" if row.label is None else f"{printable(subsystem(row.label))}: "
        lines: list[Line] = [[(f"      {what}{about}", "bold")]]
        if row.label is not None:
            lines += [[(f"      {printable(frame)}", "dim")] for frame in row.label.split("\n")]
    else:
        lines = [[(f"      {about} through {count_of(number, 'stack')}", "bold")]]
        if by == "memcg" and row.label is not None:
            lines.insert(0, [(f"      {name_of(row.label, by)}", "bold")])
        for part in parts:
            text = "(no stack)" if part.stack is None else printable(
                f"{subsystem(part.stack)}: {short_stack(part.stack, 6)}")
            lines.append([(f"      {size(part.pages * page_size):>8} ", ""), (text, "dim")])
        if number > len(parts):
            lines.append([(f"      and {count_of(number - len(parts), 'more stack')}", "dim")])
    return [_fitting(line, width) for line in lines]


def rest(number: int) -> Line:
    """Below the last row: how many owners there is no line for."""
    return [(f"      and {count(number)} more; a filter finds them", "dim")]
