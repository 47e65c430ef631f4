"""The owner of one page frame in a fraction of the time of a capture: a few records and words are
read, one by one, and neither NumPy nor Arrow is imported.

Only what is beyond doubt is answered here: a whole block of ours, a single early page, a free page,
where records and flags say the same. Anything else (blocks that overlap or never stand still, that
were split or freed unseen, memory that was added) is for `capture.capture_near` to judge. The rules
are those of `survey` and `accounts`; a test compares the answers.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pageowner.kernel import (
    cgroups,
    few_symbols,
    flag_bits,
    gfp,
    memory_ranges,
    procpages,
    zones,
)
from pageowner.kernel.limits import HIGHEST_ORDER, LISTED_ORDER
from pageowner.kernel.task_names import to_text
from pageowner.model.metadata import Metadata
from pageowner.system.container_names import container_names
from pageowner.tracker.read.layout import FREED, FREED_WRITTEN, QUESTION, RECORD, TASK
from pageowner.tracker.read.pinned import Pinned, open_pinned
from pageowner.tracker.read.records import (
    DIVIDED,
    EARLY,
    MIGRATE_REASONS,
    NONE,
    OWNED,
    STACK_HEAD,
    TASK_SLOT,
    LastFree,
    without_numpy,
    without_tracing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pageowner.tracker.read.records import Layout

__all__ = ["Answer", "look"]

_HEAD, _TAIL = flag_bits.mask("compound_head"), flag_bits.mask("compound_tail")
_BUDDY = flag_bits.mask("buddy")
_NOT_IN_USE = _BUDDY | flag_bits.mask("nopage") | flag_bits.NEVER_GIVEN

_TRIES = 8

_Fields = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is known of a page frame: the columns of its row in a snapshot, as Python's own values
    (``row``; None: it is free), who freed its block last, and the moment."""

    row: dict[str, Any] | None
    freed: LastFree | None
    meta: Metadata


def look(pfns: Sequence[int], columns: Iterable[str]) -> list[Answer] | None:
    """The answer for each page frame, its row with these columns; None where one is in doubt,
    or a second program that waits was needed.

    Raises PageownerError if tracking is off, or turned off meanwhile.
    """
    with open_pinned(_Frames) as frames:
        # A capture attaches the second program that was needed (tracker/waiting.py).
        if frames.left_out():
            return None
        # Frames first: what symbols say does not change so soon.
        found = [frames.judge(pfn) for pfn in pfns]
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        judged = [frame for frame in found if frame is not None]
        if len(judged) < len(found) or (symbols := few_symbols.read()) is None:
            return None
        # The types of pageblocks can be read there, and are believed if all of them add up.
        if symbols.address_of("mem_section") is not None:
            return None
        answers = [frames.answer(frame, symbols, columns, now) for frame in judged]
        frames.check_on()
        return answers


@dataclass(frozen=True)
class _Judged:
    """``first`` of the block, its record if it has one, the flags of its first frame, the number of
    its cgroup."""

    first: int
    state: str | None
    record: _Fields
    flags: int
    cgroup: int


class _Frames(Pinned):
    def judge(self, pfn: int) -> _Judged | None:
        """What the frame is, None where that is not plain."""
        if any(self.claims()) or not any(
                first <= pfn < end for first, end in self.facts["ranges"]):
            return None
        covering = self._covering(pfn)
        if covering is None or len(covering) > 1:
            return None
        first, record = covering[0] if covering else (pfn, self._record(pfn))
        if record is None or record["state"] not in (NONE, OWNED, EARLY):
            return None
        pages = 1 << record["order"] if covering else 1
        if pages > 1 << flag_bits.MAX_ORDER:
            return None
        before = procpages.words(procpages.KPAGEFLAGS, first, pages)
        if self._record(first) != record or any(
                self._state(frame) not in (NONE, EARLY) for frame in range(first + 1,
                                                                           first + pages)):
            return None
        after = procpages.words(procpages.KPAGEFLAGS, first, pages + 1)
        next_flags = after.pop() if len(after) > pages else 0
        if len(before) < pages or len(after) < pages:
            return None
        if not covering and record["state"] == NONE:
            return _Judged(first, None, {}, after[0], 0) if before[0] & after[0] & _BUDDY else None
        if any(flags & _NOT_IN_USE for flags in (*before, *after)):
            return None
        if not any(after) and not memory_ranges.is_present(first):  # survey._Walk._frames
            return None
        if covering:
            plain = self._is_whole(first, record, before, after)
        else:
            # Flags of 0 are of a page that may not be the page allocator's, see pageflags.deferred.
            plain = bool(after[0]) and not after[0] & (_HEAD | _TAIL) and not next_flags & _TAIL
        if not plain:
            return None
        cgroup = (procpages.words(procpages.KPAGECGROUP, first, 1)
                  if os.path.exists(procpages.KPAGECGROUP) else [])
        return _Judged(first, "owned" if covering else "early", record if covering else {},
                       after[0], cgroup[0] if cgroup else 0)

    def _covering(self, pfn: int) -> list[tuple[int, _Fields]] | None:
        """Blocks that this frame is in, by their records; None if one does not stand still."""
        found = []
        for head in sorted({pfn >> order << order for order in range(HIGHEST_ORDER + 1)}):
            record = self._record(head)
            if record is None:
                return None
            if record["state"] not in (NONE, EARLY) and head + (1 << record["order"]) > pfn:
                found.append((head, record))
        return found

    def _is_whole(self, first: int, record: _Fields, before: list[int], after: list[int]) -> bool:
        """accounts._take_apart, survey._freed_unseen"""
        order = record["order"]
        compound = gfp_names().bits.get("__GFP_COMP", 0x40000)
        if order and record["gfp_mask"] & compound:
            heads = sum(1 for a, b in zip(before, after, strict=True) if a & b & _HEAD)
            if not ((before[0] | after[0]) & _HEAD and (before[-1] | after[-1]) & _TAIL
                    and heads <= 1):
                return False
        silent = not before[0] and not after[0] and order <= LISTED_ORDER
        return not (silent and self._is_unused(first))

    # -- reading ---------------------------------------------------------------------------------

    @cached_property
    def _inner(self) -> dict[tuple[str, int], int | None]:
        return {}

    def close(self) -> None:
        for fd in self._inner.values():
            if fd is not None:
                os.close(fd)
        self._inner.clear()
        super().close()

    def _span(self, name: str, pfn: int) -> int | None:
        """The map of the span that the frame is in."""
        number = pfn >> self.span_shift
        if (name, number) not in self._inner:
            value = (self.bpf.lookup(self.fd(name), number.to_bytes(4, "little"), 4)
                     if number < self.span_count else None)
            self._inner[name, number] = None if value is None else self.bpf.map_by_id(
                int.from_bytes(value, "little"))
        return self._inner[name, number]

    def _entry(self, name: str, pfn: int, size: int) -> bytes:
        span = self._span(name, pfn)
        place = pfn & ((1 << self.span_shift) - 1)
        raw = None if span is None else self.bpf.lookup(span, place.to_bytes(4, "little"), size)
        return raw or bytes(size)

    def _twice(self, name: str, pfn: int, layout: Layout) -> _Fields | None:
        """An entry as it was at one moment, by the rule of `reading`; None: it never stood still.
        """
        shape = without_numpy(layout)
        for _ in range(_TRIES):
            once = self._entry(name, pfn, shape.size)
            _in_order()
            fields = _fields(layout, once)
            if self._entry(name, pfn, shape.size) == once and (
                    fields["ts"] != FREED_WRITTEN if layout is FREED
                    else fields["state"] < DIVIDED):
                return fields
        return None

    def _record(self, pfn: int) -> _Fields | None:
        return self._twice("spans", pfn, RECORD)

    def _state(self, pfn: int) -> int:
        return int(_fields(RECORD, self._entry("spans", pfn, without_numpy(RECORD).size))["state"])

    def _is_unused(self, pfn: int) -> bool:
        """`maps.Store.unused` of one frame."""
        questions, shape = self.fd("questions"), without_numpy(QUESTION)
        with self.alone():
            self.bpf.update(questions, bytes(4), shape.pack(pfn, 0, 0, 0))
            self.bpf.run(self.fd("look"), 1)
            raw = self.bpf.lookup(questions, bytes(4), shape.size) or bytes(shape.size)
        answer = _fields(QUESTION, raw)
        never = not answer["flags"] and not answer["type"]
        return not answer["refcount"] and (answer["type"] == 0xFFFFFFFF or never)

    # -- answering -------------------------------------------------------------------------------

    def answer(self, judged: _Judged, symbols: few_symbols.FewSymbols, columns: Iterable[str],
               now: int) -> Answer:
        """In the words of a snapshot."""
        freed = None
        if self.facts["options"]["free_side"]:
            freed = self._twice("freed_spans", judged.first, FREED)
            freed = freed if freed and freed["ts"] else None
        meta = Metadata(kind="tracker", clock_ns=now, page_size=os.sysconf("SC_PAGE_SIZE"),
                        pageblock_order=zones.pageblock_order(
                            "", zones.read_text("/proc/meminfo"), zones.max_order()))
        last = None if freed is None else LastFree(
            freed["ts"], *self._task(freed["task_id"]), self._stack(freed["stack_id"], symbols))
        if judged.state is None:
            return Answer(None, last, meta)
        path = cgroups.memory().path(judged.cgroup) if judged.cgroup else None
        if path and (containers := container_names([path])):
            meta.extra["containers"] = containers
        record, zone = judged.record, zones.running().zone_of(judged.first)
        known: dict[str, Any] = {
            "pfn": judged.first, "order": record.get("order", 0), "state": judged.state,
            "zone": zone and zone.name, "node": zone and zone.node, "page_flags": judged.flags,
            "memcg": path}
        if record:
            names, mask = gfp_names(), record["gfp_mask"]
            reason = min((record["moved"] & 15) - 1, len(MIGRATE_REASONS) - 1)
            pid, tgid, comm = self._task(record["task_id"])
            known |= {
                "gfp_mask": mask, "gfp_flags": names.decode(mask),
                "migratetype": gfp.MIGRATETYPES[names.migratetype_of(mask)],
                "pid": pid, "tgid": tgid, "comm": comm, "ts_ns": record["ts"],
                "stack": self._stack(record["stack_id"], symbols),
                "migrate_reason": MIGRATE_REASONS[reason] if reason >= 0 else None}
        if freed and not (record and freed["ts"] > record["ts"]):
            known["free_ts_ns"] = freed["ts"]
        return Answer({name: known.get(name) for name in columns}, last, meta)

    def _task(self, number: int) -> tuple[int | None, int | None, str | None]:
        """`reading.known_tasks` of one."""
        key, size = (number & TASK_SLOT).to_bytes(4, "little"), without_numpy(TASK).size

        def entry() -> _Fields:
            found = _fields(TASK, self.bpf.lookup(self.fd("tasks"), key, size) or bytes(size))
            _in_order()
            return found

        before, task, after = entry(), entry(), entry()
        if not number or {before["id"], task["id"], after["id"]} != {number}:
            return None, None, None
        return task["pid"], task["tgid"], to_text(task["comm"].rstrip(b"\0"))

    def _stack(self, number: int, symbols: few_symbols.FewSymbols) -> str | None:
        size = without_numpy(STACK_HEAD).size
        raw = number and self.bpf.lookup(self.fd("stacks"), number.to_bytes(4, "little"),
                                         size + 8 * self.depth)
        if not raw:
            return None
        depth = min(_fields(STACK_HEAD, raw[:size])["n"], self.depth)
        frames = list(memoryview(raw[size:]).cast("Q"))[:depth]
        frames = frames[:frames.index(0)] if 0 in frames else frames
        names = symbols.names(frames)
        return without_tracing([names[frame] for frame in frames])


_names: list[gfp.GfpFlags] = []


def gfp_names() -> gfp.GfpFlags:
    """Those of this kernel, read once."""
    if not _names:
        _names.append(gfp.running())
    return _names[0]


def _fields(layout: Layout, raw: bytes) -> _Fields:
    return dict(zip((name for name, _ in layout), without_numpy(layout).unpack(raw), strict=True))


def _in_order() -> None:
    """See reading._ordering; two system calls are not enough everywhere."""
    if os.uname().machine != "x86_64":
        os.sched_yield()
