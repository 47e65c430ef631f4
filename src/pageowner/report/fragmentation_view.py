"""The answers of ``pageowner frag`` for people, and as JSON for programs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pageowner.analysis.blocks import STATES
from pageowner.kernel.free_area import NO_INDEX
from pageowner.model.hook_states import ACTIVE, is_whole
from pageowner.model.live import TASK
from pageowner.model.schema import BY_KEY, COLUMNS, NUMERIC
from pageowner.report.json_text import Json
from pageowner.report.stack_lines import one_line_each
from pageowner.report.table import Column, draw_table, natural_width
from pageowner.report.terminal import PIPE_WIDTH
from pageowner.report.text import UNKNOWN, age, count, count_of, printable, size, titled
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pageowner.model.metadata import Metadata
    from pageowner.report.terminal import Paper

__all__ = ["draw", "draw_huge", "to_json"]

_HEADING = "heading"
_WIDE = 120
_KINDS = {"Unmovable": "unmovable", "Reclaimable": "reclaimable", "Movable": "movable",
          "unknown": "type unknown", "free": "free",
          "held": "reserved"}


def draw(answer: Mapping[str, Any], by: Sequence[str], meta: Metadata, now_ns: int | None,
         top: int | None, paper: Paper) -> None:
    """What fragments memory."""
    order = answer["pageblock_order"]
    states = {state: sum(zone["states"][state] for zone in answer["zones"]) for state in STATES}
    prose(paper, f"{_named(meta)}: {_blocks(sum(states.values()), order, meta)}")
    _notes(answer["notes"], paper)
    _mixed(answer, paper)
    paper.line()
    prose(paper, "Pageblocks by what fills them, and how much of it", _HEADING)
    shares = {kind: answer["contents"][kind] for kind in _KINDS
              if any(answer["contents"][kind][1:])}
    if "free" in shares and not answer["sees_free"]:
        shares["without a record"] = shares.pop("free")
    columns = [Column("", [_KINDS.get(kind, kind) for kind in shares], True)]
    columns += [Column(title.upper(), [count(numbers[place]) for numbers in shares.values()])
                for place, title in enumerate(answer["bins"])]
    draw_table(paper, columns, 2)
    _free(answer["free"], order, meta, paper)
    paper.line()
    prose(paper, f"As huge pages (order {order})", _HEADING)
    _say(paper, _states(states))
    if answer["single"]:
        _say(paper, f"{count_of(answer['single'], 'block')} would be free or clearable without"
                    " a single page")
    _aside(paper, f"to see what blocks them and which owners to stop: frag --order {order} --want"
                  " N")
    paper.line()
    polluters = answer["polluters"]
    what = ("Owners of pages in pageblocks of another type" if answer["mixed_exact"] else
            "Owners of movable pages among unmovable ones, or the reverse")
    prose(paper, f"{what}: {count_of(answer['polluters_in_all'], 'owner')} by {', '.join(by)}",
          _HEADING)
    if polluters:
        columns = [Column("BLOCKS", [count(owner["blocks"]) for owner in polluters]),
                   Column("PAGES", [count(owner["foreign_pages"]) for owner in polluters]),
                   Column("ONE PAGE", [count(owner["single"]) for owner in polluters]),
                   Column("OWNER SIZE", [_size(owner["pages"], meta) for owner in polluters])]
        draw_table(paper, [*columns, *_who(polluters, by, meta, paper)], 2)
        _more(answer["polluters_in_all"] - len(polluters), paper)
        _aside(paper, "PAGES: the owner's pages in them; ONE PAGE: blocks with one foreign page")
        _no_stack(polluters, by, meta, paper)
    _events(answer["events"], by, now_ns, top, meta, paper)


def draw_huge(answer: Mapping[str, Any], meta: Metadata, paper: Paper,
              planned: int | None = None) -> None:
    """What is in the way of blocks of an order, and of whom. ``planned``: at most so many owners to
    stop are listed; None for all."""
    order, states, by = answer["order"], answer["states"], answer["by"]
    prose(paper, f"{_named(meta)}: {_blocks(sum(states.values()), order, meta)}")
    _notes(answer["notes"], paper)
    paper.line()
    zones = {name: numbers for name, numbers in answer["zones"].items() if any(numbers.values())}
    rows = {**zones, "all": states} if len(zones) > 1 else zones
    columns = [Column("ZONE", [printable(name) for name in rows], True)]
    columns += [Column(state.upper(), [count(numbers[state]) for numbers in rows.values()])
                for state in STATES if state != "unknown" or states["unknown"]]
    draw_table(paper, columns, 2)
    reach = answer["reachable"]
    if states["clearable"]:
        _say(paper, f"of the clearable, compaction can empty about {count(reach['now'])} with the"
                    f" present free memory, {count(reach['reclaim'])} if page cache is dropped")
    if answer["taken"]:
        _say(paper, f"of the blocked, {count(answer['taken'])} {_be(answer['taken'])} already"
                    " large pages: page cache or anonymous memory of this order or larger")
    if answer["held"]:
        hold = "holds" if answer["held"] == 1 else "hold"
        _say(paper, f"of the blocked, {count(answer['held'])} {hold} memory that does not"
                    " belong to the page allocator")
    if answer["single"]:
        _say(paper, f"{count(answer['single'])} would be free or clearable without a single page")
    if answer["unsure_pages"]:
        _say(paper, f"whether {count_of(answer['unsure_pages'], 'page')} in"
                    f" {count_of(answer['unsure'], 'block')} can be moved is not known")
    paper.line()
    blockers = answer["blockers"]
    prose(paper, f"What blocks them: {count_of(answer['blockers_in_all'], 'owner')} by"
          f" {', '.join(by)}", _HEADING)
    if blockers:
        columns = [Column("BLOCKS", [count(owner["blocks"]) for owner in blockers]),
                   Column("SOLE OWNER", [count(owner["alone"]) for owner in blockers]),
                   Column("ONE PAGE", [count(owner["single"]) for owner in blockers]),
                   Column("PAGES", [count(owner["blocking_pages"]) for owner in blockers]),
                   Column("OWNER SIZE", [_size(owner["pages"], meta) for owner in blockers])]
        draw_table(paper, [*columns, *_who(blockers, by, meta, paper)], 2)
        _more(answer["blockers_in_all"] - len(blockers), paper)
        _aside(paper, "SOLE OWNER: blocks that no other owner blocks; ONE PAGE: of these, those"
                      " with one blocking page; PAGES: the owner's pages that block")
        _no_stack(blockers, by, meta, paper)
    if answer["plan"] is not None:
        _plan(answer["plan"], planned, states, reach, by, meta, paper)


def _plan(plan: Mapping[str, Any], most: int | None, states: Mapping[str, int],
          reach: Mapping[str, int], by: Sequence[str], meta: Metadata, paper: Paper) -> None:
    paper.line()
    owners = plan["owners"]
    wanted = count_of(plan["want"], "more block")
    if not owners:
        prose(paper, f"To free {wanted}: stopping owners does not help", _HEADING)
        _hopeless(plan["hopeless"], states, by, meta, paper)
        return
    gain = plan["gain"]
    short = gain < plan["want"]
    why = f"; {count(plan['want'])} cannot be freed by stopping owners" if short else ""
    prose(paper, f"Stop {count_of(len(owners), 'owner')} ({_size(plan['pages'], meta)}) to free"
          f" {count_of(gain, 'more block')}{why}", _HEADING)
    shown = owners[:most]
    columns = [Column("PAGES", [count(owner["pages"]) for owner in shown]),
               Column("SIZE", [_size(owner["pages"], meta) for owner in shown])]
    draw_table(paper, [*columns, *_who(shown, by, meta, paper)], 2)
    _more(len(owners) - len(shown), paper)
    after = plan["states"]
    for when, counts, reach_then in (("then:", after, plan["reachable"]), ("now: ", states, reach)):
        clear = (f"; compaction can empty about {count(reach_then['reclaim'])} of the clearable"
                 if counts["clearable"] else "")
        _say(paper, f"{when} {_states(counts)}{clear}")
    if short:
        _hopeless(plan["hopeless"], states, by, meta, paper)
    _aside(paper, "Assumes that page cache is dropped. A greedy choice (most blocks for each page"
                  " first), perhaps not the cheapest.")
    if set(TASK) & set(by):
        _aside(paper, "Ending a task frees its own memory, not page cache, tmpfs or anything else"
                      " that outlives it.")


_WHY = {
    "nameless": "pages without a known owner",
    "kernel": "pages of the kernel itself or of init",
    "ended": "pages of kernel threads or of tasks that have ended",
    "cache": "large pages of page cache or tmpfs, which outlive their task",
    "unsure": "pages that may or may not be movable",
    "held": "memory that does not belong to the page allocator",
}


def _hopeless(reasons: Mapping[str, int], states: Mapping[str, int], by: Sequence[str],
              meta: Metadata, paper: Paper) -> None:
    """Why blocks stay blocked whichever owners stop."""
    if not states["blocked"]:
        _say(paper, "none is blocked: there is too little free memory to move pages to, or the"
                    " state of the blocks is not known")
        return
    why = sorted((name for name in _WHY if reasons[name]), key=lambda name: -reasons[name])
    if not why:
        return
    _say(paper, "Blocks that stay blocked whichever owners stop (one can count more than once):")
    draw_table(paper, [Column("BLOCKS", [count(reasons[name]) for name in why]),
                 Column("CONTAIN", [_WHY[name] for name in why], True)], 4)
    if reasons["nameless"] and meta.kind == "tracker" and "subsystem" not in by:
        _aside(paper, "To see what pages without a known owner are: --by subsystem")


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _say(paper: Paper, text: str) -> None:
    prose(paper, text, indent=2)


def _aside(paper: Paper, text: str) -> None:
    prose(paper, text, "dim", 2)


def _named(meta: Metadata) -> str:
    return titled(meta)


def _size(pages: int, meta: Metadata) -> str:
    return size(pages * meta.page_size)


def _blocks(number: int, order: int, meta: Metadata) -> str:
    noun = "pageblock" if order == (meta.pageblock_order or 9) else "block"
    return f"{count_of(number, noun)} of order {order} ({_size(1 << order, meta)})"


def _notes(notes: Sequence[str], paper: Paper) -> None:
    for note in notes:
        prose(paper, f"note: {printable(note)}", "warn")


def _states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count(states[state])} {state}" for state in STATES
                     if state != "unknown" or states[state])


def _mixed(answer: Mapping[str, Any], paper: Paper) -> None:
    paper.line()
    prose(paper, "Mixed pageblocks, as the kernel counts them" if answer["mixed_exact"]
          and not answer["mixed_unjudged"] else "Mixed pageblocks" if answer["mixed_exact"] else
          "Mixed pageblocks: both movable and unmovable pages", _HEADING)
    zones = [zone for zone in answer["zones"] if any(zone["states"].values())]
    columns = [Column("ZONE", [printable(zone["name"]) for zone in zones], True),
               Column("BLOCKS", [count(sum(zone["states"].values())) for zone in zones])]
    kinds = ["Unmovable", "Movable"]
    kinds += sorted({kind for zone in zones for kind in zone["mixed"]} - set(kinds))
    columns += [Column(kind.upper() if answer["mixed_exact"] else f"MOSTLY {kind.upper()}",
                       [count(zone["mixed"].get(kind, 0)) for zone in zones]) for kind in kinds]
    draw_table(paper, columns, 2)
    if not answer["mixed_exact"]:
        _aside(paper, "pageblock types are not known here: the kernel may count more")
    elif answer["mixed_unjudged"]:
        _aside(paper, f"without {count(answer['mixed_unjudged'])} pages whose type (early or"
                      " untracked) or whose block's type (blocks after an allocation's first) is"
                      " not known: the kernel may count more")


def _free(zones: Sequence[Mapping[str, Any]], wanted: int, meta: Metadata, paper: Paper) -> None:
    for zone in zones:
        if not any(zone["blocks"]):
            continue
        paper.line()
        prose(paper, f"Free memory of {printable(zone['zone'])} by order:"
              f" {_size(zone['pages'], meta)} in {count_of(sum(zone['blocks']), 'block')}",
              _HEADING)
        orders = [str(order) for order in range(len(zone["blocks"]))]
        rows = [("blocks", [count(number) for number in zone["blocks"]]),
                ("unusable", [f"{number / 10:.1f}" for number in zone["unusable"]]),
                ("index", [UNKNOWN if number == NO_INDEX else f"{number / 1000:.3f}"
                           for number in zone["fragmentation"]])]
        across = [Column("ORDER", [title for title, _ in rows], True)]
        across += [Column(order, [cells[at] for _, cells in rows])
                   for at, order in enumerate(orders)]
        down = [Column(title.upper(), cells) for title, cells in [("order", orders), *rows]]
        draw_table(paper, across if natural_width(across) <= paper.width - 2 else down, 2)
    if zones:
        _aside(paper, "unusable: % of free memory in blocks too small for the order; index: why a"
                      " request would fail, 0 for lack of memory, 1 for fragmentation; - if it"
                      " would not")


def _who(owners: Sequence[Mapping[str, Any]], by: Sequence[str], meta: Metadata,
         paper: Paper) -> list[Column]:
    """The columns that say who: the keys, and tasks and cgroups where there is room for them."""
    columns = []
    for place, name in enumerate(by):
        values = [owner[name] for owner in owners]
        if name == "stack":
            from pageowner.analysis.subsystems import subsystem

            columns.append(Column("WHAT", [
                UNKNOWN if stack is None else printable(subsystem(stack))
                for stack in values], True))
            values = one_line_each(values, "(no stack)", PIPE_WIDTH)
        unknown = UNKNOWN if place or not _is_recorded(name, meta) else "(not tracked)"
        columns.append(Column(name.upper(), [
            unknown if value is None else printable(str(value)) for value in values],
            name not in NUMERIC))
    if paper.width >= _WIDE:
        extra = [("TASKS", "tasks"), ("CGROUPS", "cgroups")]
        for title, word in extra:
            if {"tasks": "comm", "cgroups": "memcg"}[word] in by:
                continue
            cells = [", ".join(map(printable, owner[word])) + (
                f" and {owner[f'more_{word}']} more" if owner[f"more_{word}"] else "")
                for owner in owners]
            if any(cells):
                columns.append(Column(title, [cell or UNKNOWN for cell in cells], True))
    return columns


def _is_recorded(name: str, meta: Metadata) -> bool:
    """Whether who has none of this key was not tracked."""
    return meta.kind == "tracker" and COLUMNS[BY_KEY[name].source].recorded


def _more(number: int, paper: Paper) -> None:
    if number > 0:
        _aside(paper, f"and {count_of(number, 'more owner')}")


def _no_stack(owners: Sequence[Mapping[str, Any]], by: Sequence[str], meta: Metadata,
              paper: Paper) -> None:
    if "subsystem" not in by and any(_is_recorded(name, meta) for name in by) and any(
            all(owner[name] is None for name in by) for owner in owners):
        _aside(paper, "To see what early and untracked pages are: --by subsystem")


def _events(events: Sequence[Mapping[str, Any]], by: Sequence[str], now_ns: int | None,
            top: int | None, meta: Metadata, paper: Paper) -> None:
    if meta.kind != "tracker":
        return
    paper.line()
    if not is_whole(meta.hooks.get("mm_page_alloc_extfrag", ACTIVE)):
        prose(paper, "Fragmentation events: not counted here", _HEADING)
        return
    total = sum(event["count"] for event in events)
    prose(paper, "Allocations since 'on' that took pages from a block of another type:"
          f" {count(total)}", _HEADING)
    shown = events[:top]
    if shown:
        columns = [Column("EVENTS", [count(event["count"]) for event in shown])]
        if now_ns is not None:
            columns.append(Column("LAST", [
                age(max(now_ns - event["last_ns"], 0)) for event in shown]))
        plain = [{**event, "tasks": [], "cgroups": [], "more_tasks": 0, "more_cgroups": 0}
                 for event in shown]
        # Each was seen, so that what is not known of one has another reason.
        draw_table(paper, [*columns, *_who(plain, by, replace(meta, kind=""), paper)], 2)
        _more(len(events) - len(shown), paper)


def to_json(answer: Mapping[str, Any], by: Sequence[str], meta: Metadata) -> Json:
    """The same facts for programs, stacks as lists of frames."""
    def plain(owners: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value.split("\n") if key == "stack" and value is not None else value
                 for key, value in owner.items() if key != "owner"} for owner in owners]

    result = {"source": meta.source, "kind": meta.kind, "kernel": meta.kernel,
              "page_size": meta.page_size, **answer, "by": list(by), **meta.as_read()}
    for name in ("polluters", "blockers", "events"):
        if name in result:
            result[name] = plain(result[name])
    if result.get("plan"):
        result["plan"] = {**result["plan"], "owners": plain(result["plan"]["owners"])}
    return Json(result)
