"""The tracker's own state: since when, through which hooks, at what price, with what gaps."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from pageowner.model.hook_states import ACTIVE, in_words, is_whole
from pageowner.model.unexplained import gone_owners
from pageowner.model.unexplained import in_words as unexplained_in_words
from pageowner.report.json_text import Json
from pageowner.report.objects_view import about_followed, started
from pageowner.report.objects_view import missed as missed_objects
from pageowner.report.text import age, count, count_of, printable, size
from pageowner.report.wrapping import entry, prose

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pageowner.model.tracking import Finding, Status
    from pageowner.report.terminal import Paper

__all__ = ["draw_at_boot", "draw_findings", "draw_start", "draw_status", "early_share",
           "findings_to_json", "to_json"]

_MISSED = {
    "out_of_range": "events on pages outside the store (memory added since, until the next report)",
    "stacks_full": "allocations whose stack did not fit into the table",
    "stacks_failed": "allocations for which the kernel returned no stack",
    "tasks_full": "allocations whose task did not fit into the table",
    "bulk_missed": "pages of very large bulk allocations",
    "extfrag_full": "fragmentation events that did not fit into the table",
    "contended": "reads and writes given up since another CPU was writing the record",
    "overwritten": "allocations of pages whose last free was missed",
}
"""Counters of what could not be tracked, in the order shown."""


def _hooks(status: Status) -> list[tuple[str, str]]:
    return _in_order({**status.hooks, **status.objects.get("hooks", {})})


def _in_order(hooks: Mapping[str, str]) -> list[tuple[str, str]]:
    """Hooks and their states, those that work first."""
    return sorted(hooks.items(), key=lambda item: (
        item[1] != ACTIVE, not is_whole(item[1]), item[0]))


_UNREMEMBERED = {
    "other_stack": "on an interrupt stack",
    "deep": "too far from the top of their stack",
    "ambiguous": "with an address in several places",
    "varies": "through a function whose frame varies",
    "pointers": "with too many pointers to frames",
    "traced": "with return addresses that a tracer replaced",
    "lost": "with an address that is not on their stack",
    "long": "postponed because learning took too long",
}
"""The memo's counters of stacks that cannot be remembered, in the order shown."""


def _memo(status: Status) -> list[tuple[str, str, str]]:
    """Lines on the memo: title, text, style."""
    if status.memo not in ("on", "stopped"):
        why = "" if status.memo == "off" else f": {status.memo}"
        return [("stacks", f"each one unwound{why}", "warn" if why else "")]
    counters = status.memo_counters
    stacks = counters["hits"] + counters["misses"]
    share = f"{100 * counters['hits'] / stacks:.1f} % recognised, " if stacks else ""
    lines = [("stacks", f"{count(stacks)}: {share}{count(counters['misses'])} unwound;"
                        f" checked {count(counters['checks'])},"
                        f" different {count(counters['differences'])}", "")]
    if status.memo == "stopped":
        lines.append(("", "one was recognised wrongly, so every stack is unwound now;"
                          " please report this kernel", "bad"))
    why = ", ".join(f"{count(counters[name])} {text}" for name, text in _UNREMEMBERED.items()
                    if counters[name])
    if why:
        lines.append(("", f"not remembered: {why}", "dim"))
    return lines


def _preemption(status: Status) -> tuple[str, str]:
    """What is said of programs that other tasks may interrupt, and its style."""
    how = status.facts.get("preemption", "held off by the kernel")
    if how.startswith("held off"):
        return f"not preempted: {how}", ""
    return (f"can be preempted on this kernel: what other tasks allocate meanwhile may be missed"
            f" ({how})", "warn")


def early_share(pages: dict[str, int], untracked: int | None, at_start: int) -> str:
    """How much of the pages in use were allocated before tracking began, now and at its start.
    ``untracked``: how many have no record; None if they were not counted."""
    used = sum(pages.values()) + (untracked or 0)
    share = 100 * pages.get("early", 0) / used if used else 0
    left_out = ", without untracked ones" if untracked is None else ""
    return (f"{share:.1f} % of the pages in use{left_out}; {count_of(at_start, 'page')} when"
            " tracking began")


def draw_start(status: Status, paper: Paper) -> None:
    """What `on` says."""
    def line(text: str, style: str = "") -> None:
        prose(paper, printable(text), style)

    if status.already_on:
        line("tracking is already on, with these options")
    whole = sum(map(is_whole, status.hooks.values()))
    line(f"tracking {count_of(status.frames, 'page frame')} through {whole} of"
         f" {count_of(len(status.hooks), 'hook')}, {size(status.memory_bytes)} of kernel memory")
    if not status.already_on:
        early = status.facts["early_pages"]
        line(f"{count_of(early, 'page')} ({size(early * os.sysconf('SC_PAGE_SIZE'))}) in use since"
             " before are early: without an owner")
    if status.memo not in ("on", "off"):
        line(f"every stack is unwound: {status.memo}", "warn")
    missing = [name for name, state in _in_order(status.hooks) if not is_whole(state)]
    if missing:
        line(f"not hooked, or not fully: {', '.join(missing)}; pages that only these see count as"
             " untracked (see pageowner status)", "dim")
    if status.objects:
        line(started(status), "dim")


def draw_status(status: Status, paper: Paper) -> None:
    """What `status` says."""
    def line(name: str, text: str, style: str = "") -> None:
        entry(paper, f"{name:<10}", printable(text), style)

    if not status.on:
        if status.left:
            line("tracking", "neither on nor off: on or off is still running, or was killed and"
                             " left programs behind; to remove them: sudo pageowner off", "warn")
        else:
            line("tracking", "off; start it with: sudo pageowner on")
        return
    passed = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - status.since_ns
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.since_wall))
    line("tracking", f"on since {began}, for {age(passed)}")
    if words := status.options.words():
        line("options", " ".join(words))
    if status.process_ended:
        line("", f"process {status.options.tgid} has ended; what is tracked since is another's with"
                 " its number, if anything", "warn")
    page = os.sysconf("SC_PAGE_SIZE")
    pages = " ".join(f"{name} {count(number)} ({size(number * page)})"
                     for name, number in status.pages.items() if number or name == "owned")
    if status.untracked is not None:
        pages += f" untracked {count(status.untracked)} ({size(status.untracked * page)})"
    line("pages", pages)
    counters = status.counters
    unseen = {"unseen_frees": status.unseen_frees or 0}
    if text := unexplained_in_words(status.unexplained, platform.release(), unseen):
        line("", text, "warn")
    line("early", early_share(status.pages, status.untracked, status.facts["early_pages"]))
    line("memory", f"{size(status.memory_bytes)} of kernel memory:"
                   f" {status.memory_bytes / max(status.frames, 1):.1f} bytes per page frame,"
                   f" {count_of(status.frames, 'frame')} covered")
    nested = counters["nested_allocs"] + counters["nested_frees"]
    line("events", f"{count_of(counters['allocs'] + counters['nested_allocs'], 'allocation')},"
                   f" {count_of(counters['frees'] + counters['nested_frees'], 'free')},"
                   f" bulk {count(counters['bulk'])},"
                   f" migrated {count(counters['migrated'])}, split {count(counters['splits'])},"
                   f" fragmenting {count(counters['extfrag'])};"
                   f" of them {count(nested)} by interrupts of the tracker, seen by its second"
                   " programs")
    line("programs", *_preemption(status))
    for title, text, style in _memo(status):
        line(title, text, style)
    if status.objects:
        line("objects", about_followed(status))
    title, hooks = "hooks", _hooks(status)
    widest = max([24, *(len(name) + 2 for name, _ in hooks)])
    for name, state in hooks:
        entry(paper, f"{title:<10}{name:<{widest}}", printable(in_words(state)),
              "" if state == ACTIVE else "dim")
        title = ""
    title = "missed"
    for text in _missed(status) or ["nothing"]:
        line(title, text, "" if text == "nothing" else "warn")
        title = ""


def _missed(status: Status) -> list[str]:
    """What could not be tracked, a line for each kind."""
    lines = []
    if status.missed:
        lines.append(f"{count_of(status.missed, 'event')} that found the tracker's programs at work"
                     " on their CPU")
    if text := gone_owners(status.missed_frees):
        lines.append(text)
    if status.unseen_frees:
        lines.append(f"{count_of(status.unseen_frees, 'page')} freed unseen, by the kernel's own"
                     " count; those that had an owner keep it until they are seen allocated again")
    lines += missed_objects(status.counters | status.objects)
    return lines + [f"{count(status.counters[name])} {what}" for name, what in _MISSED.items()
                    if status.counters.get(name)]


def draw_at_boot(unit: Path, ours: bool, enabled: bool, word: str, wanted: bool,
                 paper: Paper) -> None:
    """What `status` says of a unit that is installed; ``ours``: it is as `on --at-boot` wrote it;
    ``enabled``: systemd starts it; ``wanted``: this boot had the word."""
    if not enabled:
        entry(paper, f"{'at boot':<10}", f"no: {unit.name} is there, but not enabled; to enable it:"
                                         f" systemctl enable {unit.name}", "warn")
        return
    says = (f"with {word} on the kernel's command line ({'as in' if wanted else 'not in'} this"
            " boot)" if ours else "which is not as 'pageowner on --at-boot' writes it; see:"
            f" systemctl cat {unit.name}")
    entry(paper, f"{'at boot':<10}", f"by {unit.name}, {says}")


_NO_GAP = ("pageblock types", "/proc/kpagecount", "/proc/kpagecgroup", "memory")
"""Findings that concern what is shown, not what is tracked."""


def draw_findings(found: list[Finding], paper: Paper) -> None:
    """What `doctor` says: each finding in a line, and what follows from those that are not well."""
    for finding in found:
        mark, style = ("ok", "good") if finding.ok else (
            ("no", "bad") if finding.needed else ("--", "warn"))
        entry(paper, f"{mark}  {finding.name:<24}", printable(finding.detail), "", style)
        if finding.follows:
            entry(paper, " " * 28, f"so {printable(finding.follows)}", "dim")
    broken = [finding.name for finding in found if finding.needed and not finding.ok]
    lacking = [finding for finding in found if not finding.needed and not finding.ok
               and finding.name not in _NO_GAP]
    paper.line()
    if broken:
        prose(paper, f"Tracking is not possible here: {', '.join(broken)}.", "bad")
    elif lacking:
        prose(paper, "Tracking works here, with gaps: they are counted as untracked, never hidden.",
              "bold")
    else:
        prose(paper, "Tracking works here without gaps.", "well")


def to_json(status: Status, at_boot: bool = False) -> Json:
    """The same for programs; ``at_boot``: tracking is turned on when the machine boots."""
    facts = asdict(status) if status.on else {"on": False, "left": status.left}
    return Json({**facts, "at_boot": at_boot})


def findings_to_json(findings: list[Finding]) -> Json:
    """What `doctor` says, for programs."""
    return Json([asdict(finding) for finding in findings])
