"""What dump_page() prints to a kernel log, and other lines about single pages or ranges of them.

Forms: mm/debug.c (__dump_page) and mm/page_owner.c (__dump_page_owner) of 6.12 and 7.3; from 4.6 to
5.3 page owner printed "page allocated via order %u, migratetype %s, gfp_mask" and one stack.
mm/page_alloc.c (bad_page, alloc_contig_range), mm/memory_hotplug.c (offline_pages).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.kernel.limits import HIGHEST_ORDER, TIME_BITS
from pageowner.model.kernel_log import BusyRange, OfflineFailure, OwnerOfPage, PageDump
from pageowner.sources.kernel_log_lines import HEX, NUMBER
from pageowner.sources.kernel_log_traces import frame_of, is_of_a_processor

if TYPE_CHECKING:
    from pageowner.sources.kernel_log_lines import Line

__all__ = ["PageReader", "begins_page", "busy_range", "failed_migration", "is_alone",
           "offline_failure"]

_BAD = re.compile(r"(?:BUG: )?Bad page state in process '?(?P<process>.*?)'?"
                  rf"(?:  ?pfn:(?P<pfn>{HEX}))?$")
_PAGE = re.compile(r"page: ?(?:[0-9a-f]{6,16} |\(____ptrval____\) )?"
                   r"(?:refcount|count|flags):(?=\S)")
_KASAN = re.compile(r"The buggy address belongs to the (?:physical )?page:$")
_PFN = re.compile(rf"\bpfn:(?:0x)?({HEX})$")
_HEAD = re.compile(rf"head: ?(?:[0-9a-f]{{6,16}} )?order:({NUMBER}) ")
_FLAGS = re.compile(r"(?:anon |ksm |page )?flags: (0x[0-9a-f]+(?:\(.*\))?(?: CMA)?)$")
_TYPE = re.compile(r"page_type: (.*)$")
_REASON = re.compile(r"page dumped because: (.*)$")
_TRACKED = re.compile(r"page_owner tracks the page as (allocated|freed)$")
_ALLOCATED = re.compile(
    rf"page (?:last )?allocated via order (?P<order>{NUMBER}), migratetype (?P<migratetype>\w+),"
    rf" gfp_mask (?P<mask>0x{HEX})(?:\((?P<gfp>[^)]*)\))?"
    rf"(?:, pid (?P<pid>-?{NUMBER}))?(?:, tgid (?P<tgid>-?{NUMBER}) \((?P<comm>.*)\))?"
    rf"(?:, ts (?P<ts>{NUMBER})(?: ns)?)?(?:, free_ts (?P<free_ts>{NUMBER})(?: ns)?)?$")
_FREED = re.compile(
    rf"page last free(?: pid (?P<pid>-?{NUMBER}) tgid (?P<tgid>-?{NUMBER}))?"
    rf"(?: ts (?P<ts>{NUMBER}))? stack trace:$")
_MIGRATED = re.compile(r"page has been migrated, last migrate reason: (.*)$")
_KNOWN = re.compile(
    r"(?:raw|head): [0-9a-f]{8,16}|(?:memcg:|page->mem_cgroup:)|bad because of flags:"
    r"|\S*aops(?::\S+)?(?: ino:.*)?$|name:\"|aops:"
    r"|page_owner (?:allocation|free) stack trace missing|page_owner info is not (?:present|active)"
    r"|There is not page extension available"
    r"|page does not match folio|compound_mapcount|ksm|anon|(?:has|non-NULL) ")
_BROKEN = re.compile(r"(?:page last |page allocated via|page_owner tracks|page dumped because"
                     r"|page has been migrated|(?:anon |ksm |page )?flags: |head: )")
_BEGINS_STACK = re.compile(r"page (?:last |allocated via)")
_BUSY = re.compile(rf"alloc_contig_range(?:_noprof)?: \[({HEX}), ?({HEX})\) PFNs busy")
_OFFLINE = re.compile(rf"memory offlining \[mem (0x{HEX})-(0x{HEX})\] failed"
                      r"(?: due to (.*))?$")
_MIGRATING = re.compile(rf"migrating pfn ({HEX}) failed")
_REASON_OF_BAD = re.compile(r"nonzero |non-NULL mapping|PAGE_FLAGS_CHECK|page still charged")
"""mm/page_alloc.c, page_bad_reason()."""
_MANY = 40


def begins_page(line: Line) -> PageDump | None:
    """A page whose dump begins with this line."""
    text = line.text.strip()
    if not text.startswith("page") and "ad page state" not in text and "buggy" not in text:
        return None
    if _KASAN.match(text):
        return PageDump(line.number, line.time, line.caller, kind="KASAN")
    if "ad page state" in text:
        found = _BAD.match(text)
        page = PageDump(line.number, line.time, line.caller, kind="bad page")
        if found is None or (text.startswith("BUG:") and not found["pfn"]):
            page.damaged.append((line.number, line.text))
        if found is not None:
            page.process = found["process"].rstrip()
            page.pfn = int(found["pfn"], 16) if found["pfn"] else None
        return page
    if any(pattern.match(text) for pattern in (_PAGE, _TRACKED, _ALLOCATED, _FREED, _REASON)):
        return PageDump(line.number, line.time, line.caller)
    return None


class PageReader:
    """Takes the lines of one dump."""

    def __init__(self, page: PageDump) -> None:
        self.event = page
        self._has_page = self._is_over = self._has_owner = False
        self.last_line = page.line
        self._stack: list[str] | None = None
        self._no_stack: set[str] = set()
        self._strangers = 0

    @property
    def is_over(self) -> bool:
        """Whether what follows is about who found the page."""
        return self._is_over

    def own(self, line: Line) -> bool:
        """Whether the line can only be of such a dump, and was taken."""
        text = line.text.strip()
        if _PAGE.match(text):
            if self._has_page:
                return False
            self._page(line, text)
        elif not (self._owner(line, text) or self._rest(text)):
            if not _BROKEN.match(text):
                return False
            if _BEGINS_STACK.match(text):
                self._stack = None
            self.event.damaged.append((line.number, line.text))
        self.event.mixed |= self._is_over
        self._strangers, self.last_line = 0, line.number
        return True

    def other(self, line: Line) -> bool:
        """Whether the dump goes on with a line that can be of others too; if not, it is over."""
        text = line.text.strip()
        if self._is_over:
            return False
        if _PAGE.match(text) or _KASAN.match(text) or _BAD.match(text):
            return not self._has_page
        frame = frame_of(line.text)
        if frame is not None and self._stack is not None:
            if frame:
                self._stack.append(frame)
            return True
        if not text or is_of_a_processor(text):
            # a call trace of who found the page follows, not one of its owner
            self._stack = None
            self._is_over = bool(text) or self._has_owner
            return True
        self._strangers += 1
        self.event.foreign += 1
        return self._strangers < _MANY

    def _page(self, line: Line, text: str) -> None:
        self._has_page = True
        if pfn := _PFN.search(text):
            self.event.pfn = int(pfn[1], 16)
        elif text.startswith("page: ") or ("index:" not in text and "mapcount:" not in text):
            self.event.damaged.append((line.number, line.text))

    def _owner(self, line: Line, text: str) -> bool:
        """What page owner prints."""
        page = self.event
        if (found := _TRACKED.match(text)) and page.tracked is None:
            page.tracked = found[1]
        elif (found := _possible(_ALLOCATED.match(text))) and page.allocated is None:
            page.allocated = OwnerOfPage(
                int(found["order"]), found["migratetype"], found["gfp"] or found["mask"],
                _number(found["pid"]), _number(found["tgid"]), found["comm"] or "",
                _number(found["ts"]))
            page.free_ts_ns = _number(found["free_ts"])
            self._stack = page.allocated.frames
        elif (found := _possible(_FREED.match(text))) and page.freed is None:
            page.freed = OwnerOfPage(pid=_number(found["pid"]), tgid=_number(found["tgid"]),
                                     ts_ns=_number(found["ts"]))
            self._stack = page.freed.frames
        elif "stack trace missing" in text:
            self._no_stack.add("free" if "free" in text else "allocation")
        elif found := _MIGRATED.match(text):
            page.migrated, self._stack = found[1], None
        else:
            return False
        self._has_owner = True
        return True

    def _rest(self, text: str) -> bool:
        page = self.event
        if (found := _REASON.match(text)) and not page.reason:
            page.reason = found[1]
        elif (found := _FLAGS.match(text)) and not page.flags:
            page.flags = found[1]
        elif (found := _HEAD.match(text)) and int(found[1]) <= HIGHEST_ORDER:
            page.order = int(found[1])
        elif found := _TYPE.match(text):
            page.page_type = found[1]
        elif not _KNOWN.match(text):
            return False
        return True

    def close(self) -> PageDump:
        """The dump, with what is missing."""
        page, missing = self.event, self.event.missing
        if not self._has_page:
            missing.append("the line of the page itself")
        elif not page.flags:
            missing.append("its flags")
        if page.reason.startswith("kasan:"):
            page.kind = "KASAN"
        elif page.kind == "page dump" and _REASON_OF_BAD.match(page.reason):
            page.kind = "bad page"
            missing.append("in which process the page was found bad")
        if page.kind != "page dump" and self._has_page and not page.reason:
            missing.append("why it was dumped")
        if page.tracked and page.allocated is None:
            missing.append("who allocated it")
        if page.allocated and not page.tracked and (page.allocated.ts_ns is not None):
            missing.append("whether it is allocated or free")
        if page.allocated and not page.allocated.frames and "allocation" not in self._no_stack:
            missing.append("the stack of its allocation")
        if page.tracked and "free" not in self._no_stack:
            if page.freed is None:
                missing.append("who freed it last")
            elif not page.freed.frames:
                missing.append("the stack of its last free")
        if self._strangers >= _MANY:
            page.foreign -= self._strangers
        return page


def _possible(found: re.Match[str] | None) -> re.Match[str] | None:
    """What was found, unless one of its numbers is beyond what a kernel has."""
    if found is None:
        return None
    said = found.groupdict("0")
    if int(said.get("order", 0)) > HIGHEST_ORDER or any(
            int(said.get(time, 0)) >> TIME_BITS for time in ("ts", "free_ts")):
        return None
    return found


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def is_alone(line: Line) -> bool:
    """Whether the line begins like one of those that stand alone."""
    text = line.text
    return ("PFNs busy" in text or "alloc_contig_range:" in text or "memory offlining [" in text
            or "migrating pfn " in text)


def busy_range(line: Line) -> BusyRange | None:
    """A range that could not be had."""
    found = _BUSY.search(line.text)
    return found and BusyRange(line.number, line.time, line.caller, first=int(found[1], 16),
                               end=int(found[2], 16))


def offline_failure(line: Line) -> OfflineFailure | None:
    """Memory that could not be taken offline."""
    found = _OFFLINE.search(line.text)
    return found and OfflineFailure(
        line.number, line.time, line.caller, start=int(found[1], 16), last=int(found[2], 16),
        reason=(found[3] or "").strip())


def failed_migration(line: Line) -> int | None:
    """A page that could not be migrated, while memory was taken offline."""
    found = _MIGRATING.search(line.text)
    return int(found[1], 16) if found else None
