"""A line of a kernel log that was cut or damaged changes no answer without a word."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from pageowner.analysis.explain import explained
from pageowner.report.explain_json import to_json
from pageowner.report.explain_view import warnings
from pageowner.sources.kernel_log import parse

LOGS = sorted((Path(__file__).parent.parent / "data/logs").glob("*.txt"))

# What has no number of its rows, and so cannot tell that one is gone; frames; and free texts.
ROWS = re.compile(r"\]\s+\d+ .*\d+ \S|KB\s+\d+KB|func:|hugepages_|(?:Free|Total) swap|kB, failcnt"
                  r"|\b[a-z_]+ \d+$|page has been migrated|PFNs busy|offlining|migrating pfn"
                  r"|page dumped because: unmovable|oom-kill:|pages cma|pagecache|swap cache"
                  r"|hwpoisoned|HighMem|Killed process|raw: ")
FREE_TEXTS = re.compile(r"dumped because|due to unmovable|reason:|oom-kill:c|oom_reaper|aops")


def facts(text: str) -> tuple[Any, list[str]]:
    """What is told of a log, and what is said about its reading."""
    found = explained(parse(text.split("\n"), "log"))
    told = to_json(found, [])
    events = []
    for event in told["reports"]:
        answers = event["answers"]
        memory = event.get("memory") or {}
        events.append((
            event["type"], event.get("kind"), event.get("order"), event.get("gfp_mask"),
            answers["memory"], answers["blocks"], memory.get("code"),
            [(slab["used_kb"], slab["total_kb"]) for slab in memory.get("slabs", [])],
            [(task["pid"], task["pages"]) for task in event.get("tasks", [])],
            [(task["pid"], task["pages"]) for task in event.get("killed", [])],
            (event.get("flags") or "").partition("(")[0],
            [event.get(name) for name in ("pfn", "tracked", "first", "end", "times", "start",
                                          "last", "pages")],
            *({name: value for name, value in (event.get(who) or {}).items()
               if name not in ("frames", "comm")}
              for who in ("allocated", "freed"))))
    return events, [re.sub(r"line \d+", "line", line) for line in warnings(found)]


def mutants(lines: list[str], chance: random.Random) -> list[tuple[str, list[str]]]:
    made = []
    for number, line in enumerate(lines):
        head, tail = lines[:number], lines[number + 1:]
        prefix = re.match(r"(?:\S+ \S+ kernel: |<\d>)?(?:\w{3} \d+ \S+ \S+ kernel: )?"
                          r"(?:\[[^\]]*\.[^\]]*\]|\[\w{3} [^\]]*\])?(?:\[ *[TC]\d+\])? ?", line)
        assert prefix is not None
        start = prefix.end()
        if not ROWS.search(line) and not re.search(r"\+0x[0-9a-f]+/0x", line):
            made.append(("gone", [*head, *tail]))
        blanks = [place for place, c in enumerate(line) if c == " " and place > start]
        at = chance.choice(blanks) if blanks else 0
        if line[start:at].strip() and not FREE_TEXTS.search(line):
            made.append(("cut", [*head, line[:at], *tail]))
        digits = [place for place, c in enumerate(line) if c.isdigit() and place >= start]
        if digits and "oom-kill:" not in line and "+0x" not in line:
            place = chance.choice(digits)
            made.append(("damaged", [*head, f"{line[:place]}?{line[place + 1:]}", *tail]))
    return made


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_no_damage_to_a_line_changes_an_answer_silently(log: Path) -> None:
    text = log.read_bytes().decode()
    lines = text.split("\n")
    told, said = facts(text)
    chance = random.Random(log.name)
    silent = []
    tried = 0
    for what, mutant in [mutant for _ in range(2) for mutant in mutants(lines, chance)]:
        tried += 1
        told_now, said_now = facts("\n".join(mutant))
        if told_now != told and len(said_now) <= len(said) and said_now == said:
            changed = next((a, b) for a, b in zip([*lines, ""], [*mutant, ""], strict=False)
                           if a != b)
            silent.append((what, *changed))
    assert tried > 10
    assert not silent
