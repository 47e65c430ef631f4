"""A kernel log as the reports about memory that it holds.

Lines of several processors may be mixed. Where the log has their callers, each has reports of its
own; where it has not, a report takes the lines that can be its own and counts the others.
"""

from __future__ import annotations

import codecs
import os
import re
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.model.kernel_log import (
    PANIC,
    BusyRange,
    Event,
    KernelLog,
    MemoryReport,
    OfflineFailure,
)
from pageowner.model.source_kinds import PARQUET
from pageowner.sources import vmcore
from pageowner.sources.kernel_log_lines import NUMBER, SAMPLE, Line, Stripped
from pageowner.sources.kernel_log_pages import (
    PageReader,
    begins_page,
    busy_range,
    failed_migration,
    is_alone,
    offline_failure,
)
from pageowner.sources.kernel_log_reports import ReportReader, begins_report, continues_report
from pageowner.sources.opening import ahead, open_source, reading
from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from pageowner.sources.kernel_log_skipping import Piece
    from pageowner.sources.opening import Opened

__all__ = ["parse", "read"]

_KMSG = "/dev/kmsg"
_RECORD = 1 << 13
"""More than a record of /dev/kmsg can have (PRINTK_MESSAGE_MAX, 2,048)."""
_MAY_BEGIN = re.compile(
    r"oom-kill|allocation (?:failure|stalls)|vmalloc error|Mem-Info|Kill|slab info:|active_anon:"
    r"| free:|pid \]|Tasks state|Memory cgroup|[pP]age state|belongs to the|^ ?page|PFNs busy"
    r"|alloc_contig_range:|Show Memory|offlining|migrating pfn")
"""What no report begins without."""

_SUPPRESSED = (
    re.compile(r"\b(?P<name>warn_alloc|oom_kill_process|dump_header|alloc_contig_\w+|offline_\w+"
               rf"|__alloc_pages_slowpath): (?P<number>{NUMBER}) callbacks suppressed"),
    re.compile(rf"(?P<name>Bad page state): (?P<number>{NUMBER}) messages suppressed"),
    re.compile(rf"\*\* ?(?P<number>{NUMBER}) printk messages dropped"))
"""lib/ratelimit.c, bad_page() of mm/page_alloc.c, kernel/printk/printk.c."""

_A_WHILE = 60
"""Lines after which the rest of a page's dump is no longer expected."""

_PIECE = 1 << 16
"""Bytes that are read at a time; a longer line is several."""

_FEW = 16
"""Pieces up to which none of their lines is left out: imports that take as long are not needed."""

_LARGE = 8 << 20
"""Bytes of a file from which on these imports pay in any case."""

_BINARY = 20
"""A text has at most one control character in so many; consoles leave some in logs."""

_OF_TEXT = bytes(byte for byte in range(256) if byte >= ord(" ") or byte in b"\t\n\r\x1b")

_MANY = 16 * _PIECE
"""Bytes that are read at a time thereafter."""


def read(source: str | os.PathLike[str] | None = None) -> KernelLog:
    """The reports of a log: a path (also .gz, .xz, .zst), ``-`` for standard input, or nothing for
    this machine's own log.

    Raises PageownerError if it cannot be read.
    """
    if source is None:
        return parse(_own(), "this machine")
    with open_source(source) as opened:
        if vmcore.is_vmcore(opened.head):
            with vmcore.opened_memory(opened) as memory:
                return parse(vmcore.kernel_log(memory), opened.name)
        return _opened(opened)


def _opened(opened: Opened, skips: bool = True) -> KernelLog:
    texts = _Texts(opened, skips)
    log = _parse(texts.lines, texts.streams, opened.name)
    log.cut = bool(texts.rest)
    if log.events:
        return log
    if what := _other_kind(opened.head):
        raise PageownerError(f"{opened.name}: is {what}, not a kernel log; for that: pageowner"
                             f" report {opened.name}")
    if not texts.is_wide and _is_binary(opened.head):
        raise PageownerError(f"{opened.name}: is a binary file, not a kernel log")
    return log


class _Texts:
    """The lines of an open file. While no report is open, that is while ``streams`` is empty, those
    that have nothing to do with memory are left out and counted, if the file ``skips``."""

    def __init__(self, opened: Opened, skips: bool) -> None:
        self._opened = opened
        self.is_wide = opened.head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        self._skips = skips and not self.is_wide
        self._pieces = 0
        self._few = min(_FEW, 1) if (opened.size or 0) >= _LARGE else _FEW
        self.rest = ""
        self.streams: dict[str, _Stream] = {}
        self.lines = Stripped(self._texts())

    def _texts(self) -> Iterator[str | int]:
        decode = codecs.getincrementaldecoder("utf-16" if self.is_wide else "utf-8-sig")(
            "replace" if self.is_wide else "backslashreplace").decode
        number, is_end = 0, False
        looked_at: Iterator[Piece] | None = None
        while not is_end:
            may_skip, edges = number >= SAMPLE and self._may_skip(), None
            if looked_at is None and may_skip:
                looked_at = ahead(self._look, self._opened.name)
            if looked_at is None:
                with reading(self._opened.name):
                    text = self._opened.stream.read(_PIECE)
            elif (piece := next(looked_at, None)) is None:
                text = b""
            else:
                text = piece.text
                if len(self.rest) + piece.longest <= _PIECE:  # else one of the lines is several
                    edges = piece.edges
            self._pieces, is_end = self._pieces + 1, not text
            if may_skip and edges is not None and piece is not None:
                first, last = int(edges[0]), int(edges[-1])
                yield self.rest + decode(text[:first])[:-1]
                yield from self._skipping(text[first:last], edges - first, piece.idle, decode)
                text, self.rest = text[last:], ""
            for at in range(0, len(text) or 1, _PIECE):
                more = decode(text[at:at + _PIECE], is_end)
                *whole, self.rest = (self.rest + more).split("\n")
                number += len(whole)
                yield from whole
                if len(self.rest) > _PIECE and not is_end:
                    yield self.rest
                    self.rest = ""
        if self.rest:
            yield self.rest

    def _look(self) -> Piece | None:
        """The next piece of the text, looked at by another thread; None at its end."""
        from pageowner.sources.kernel_log_skipping import looked_at

        text = self._opened.stream.read(_MANY)
        return looked_at(text, self.lines.has_prefixes, _PIECE) if text else None

    def _may_skip(self) -> bool:
        """Whether whoever takes the lines is done with those behind him, and enough follow."""
        return self._skips and self._pieces > self._few and not self.lines.was_encoded

    def _skipping(self, text: bytes, begins: np.ndarray, idle: list[tuple[int, int]],
                  decode: Callable[[bytes], str]) -> Iterator[str | int]:
        """Whole lines, without those that are ``idle``. The first and the last of these are given
        too: what stands in front and behind may be joined to them."""
        edges, at = begins.tolist(), 0
        for begin, end in (*idle, (len(edges) - 1,) * 2):
            yield from decode(text[edges[at]:edges[begin]]).split("\n")[:-1]
            for at in range(begin, end):
                yield decode(text[edges[at]:edges[at + 1]])[:-1]
                if at + 2 < end and not self.streams:
                    yield end - at - 2
                    yield decode(text[edges[end - 1]:edges[end]])[:-1]
                    break
            at = end


def _other_kind(head: bytes) -> str:
    """What a file that begins so is, where no report about memory is in it; empty if it may be a
    log."""
    if head.startswith(PARQUET):
        return "a saved snapshot"
    if head.startswith(START):
        return "a page_owner dump"
    return ""


def _is_binary(head: bytes) -> bool:
    """Whether a file that begins so is no text."""
    known = head.replace(b"\0", b"")  # every second byte of UTF-16, which may have no mark
    return len(known.translate(None, _OF_TEXT)) * _BINARY > len(known)


def _own() -> Iterator[str]:
    """The records of /dev/kmsg that are there now."""
    try:
        file = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PageownerError(f"cannot read this machine's log, {_KMSG}: {error.strerror}; run it as"
                             " root, or name a file") from error
    try:
        while True:
            try:
                record = os.read(file, _RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten meanwhile; the next read goes on
                continue
            except OSError as error:
                raise PageownerError(f"cannot read this machine's log, {_KMSG}: {error.strerror}"
                                     ) from error
            # the lines behind the first are what devices add, " SUBSYSTEM=pci"
            yield record.split(b"\n", 1)[0].decode("utf-8", "backslashreplace")
    finally:
        os.close(file)


def parse(texts: Iterable[str], name: str) -> KernelLog:
    """The reports in the lines of a log."""
    return _parse(Stripped(texts), {}, name)


def _parse(lines: Stripped, streams: dict[str, _Stream], name: str) -> KernelLog:
    """``streams`` is what is open by the caller that the log names; it changes with each line."""
    log = KernelLog(name)
    busy: dict[tuple[int, int], BusyRange] = {}
    for line in lines:
        stream = streams.get(line.caller)
        if "suppressed" in line.text or "messages dropped" in line.text:
            _count_suppressed(line.text, log)
        if "Kernel panic" in line.text and (died := PANIC.match(line.text)):
            log.panics.append((line.number, line.time, died[1].strip()))
        if stream is None:
            if not _MAY_BEGIN.search(line.text):
                continue
            stream = streams[line.caller] = _Stream(log)
        if not _alone(line, log, busy):
            stream.take(line)
        if not stream.readers:
            del streams[line.caller]
    for stream in streams.values():
        for reader in stream.readers:
            reader.close()
    log.lines, log.joined, log.quoted = lines.number, lines.joined, lines.quoted
    log.was_encoded = lines.was_encoded
    _join_pages(log)
    _find_page_size(log)
    return log


def _count_suppressed(text: str, log: KernelLog) -> None:
    for pattern in _SUPPRESSED:
        if (found := pattern.search(text)) and int(found["number"]):
            name = found.groupdict().get("name") or "the log"
            log.suppressed[name] = log.suppressed.get(name, 0) + int(found["number"])
            return


class _Stream:
    """Lines of one caller, or of all where the log does not have them: the reports that are open,
    the one that had the last line first."""

    def __init__(self, log: KernelLog) -> None:
        self._log = log
        self.readers: list[PageReader | ReportReader] = []

    def take(self, line: Line) -> None:
        readers = self.readers
        report = begins_report(line)
        if report is None:
            for reader in readers:
                if reader.own(line):
                    if reader is not readers[0]:
                        readers[0].event.mixed = reader.event.mixed = True
                        readers.remove(reader)
                        readers.insert(0, reader)
                    return
        page = begins_page(line) if report is None else None
        if report is None and page is None:
            # a line that can be of any: of the one that had the line before
            if readers and readers[0].other(line):
                return
            left = readers.pop(0) if readers else None
            if left is not None:
                self._leave(left, line)
            report = continues_report(line)
            # One that was left for a while only waits for lines of its own.
            if report is None and readers and readers[0] is not left and not readers[0].is_over:
                self.take(line)
                return
        if report is not None:
            self._open(ReportReader(report), line)
        elif page is not None:
            self._open(PageReader(page), line)

    def _leave(self, reader: PageReader | ReportReader, line: Line) -> None:
        """A report whose lines others interrupt is kept for a while: the rest may follow."""
        if isinstance(reader, PageReader) and line.number - reader.last_line < _A_WHILE:
            self.readers.append(reader)
        else:
            reader.close()

    def _open(self, new: PageReader | ReportReader, line: Line) -> None:
        """Another report of the same kind ends one; of another kind, they may be mixed."""
        for reader in [reader for reader in self.readers if type(reader) is type(new)]:
            self.readers.remove(reader)
            reader.close()
        self.readers.insert(0, new)
        self._log.events.append(new.event)
        if isinstance(new, PageReader) or new.event.missing or new.event.kind == "memory state":
            new.own(line)


def _alone(line: Line, log: KernelLog, busy: dict[tuple[int, int], BusyRange]) -> bool:
    """Events of one line."""
    if not is_alone(line):
        return False
    if (pfn := failed_migration(line)) is not None:
        log.events.append(OfflineFailure(line.number, line.time, line.caller, pages=[pfn], last=-1))
        return True
    event: Event | None = busy_range(line) or offline_failure(line)
    if event is None:
        log.unread.append((line.number, line.text))
        return True
    if isinstance(event, BusyRange):
        known = busy.setdefault((event.first, event.end), event)
        if known is not event:
            known.times += 1
            return True
    log.events.append(event)
    return True


def _join_pages(log: KernelLog) -> None:
    """Failed migrations belong to the range that could not be taken offline thereafter."""
    pending: list[int] = []
    joined: dict[tuple[int, int, str], OfflineFailure] = {}
    events: list[Event] = []
    for event in log.events:
        if not isinstance(event, OfflineFailure):
            events.append(event)
        elif event.last < 0:
            pending += event.pages
        else:
            known = joined.setdefault((event.start, event.last, event.reason), event)
            if known is event:
                events.append(event)
            else:
                known.times += 1
            known.pages += [pfn for pfn in pending if pfn not in known.pages]
            pending = []
    if pending:
        events.append(OfflineFailure(log.lines, last=-1, pages=sorted(set(pending)),
                                     missing=["which memory was to go offline"]))
    log.events = events


def _find_page_size(log: KernelLog) -> None:
    """The smallest free block is a page; else nodes are in kB and the whole machine in pages."""
    for event in log.events:
        if not isinstance(event, MemoryReport):
            continue
        if event.memory.page_kb:
            log.page_size, log.page_size_known = event.memory.page_kb << 10, True
            return
    for event in log.events:
        if isinstance(event, MemoryReport) and event.memory.nodes:
            in_kb = sum(node.get("active_file", 0) + node.get("active_anon", 0)
                        for node in event.memory.nodes.values())
            pages = event.memory.kinds.get("active_file", 0) + event.memory.kinds.get(
                "active_anon", 0)
            for size_kb in (4, 16, 64):
                if pages and in_kb == pages * size_kb:
                    log.page_size, log.page_size_known = size_kb << 10, True
                    return


