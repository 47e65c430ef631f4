"""Write a snapshot as the text of the kernel's page_owner (mm/page_owner.c of 6.12).

Fields that an older kernel did not print are left out again, so that a dump of 4.6 or newer comes
out as it went in. Older ones get the form of 4.6, without the addresses of frames; what a snapshot
does not know is never made up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from pageowner.kernel.task_names import to_bytes
from pageowner.model.schema import LINES
from pageowner.model.source_kinds import check_pages
from pageowner.sources.page_owner_body import BEFORE_PFN, BEFORE_STACK, first_word
from pageowner.sources.page_owner_kinds import EARLY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.model.snapshot import Snapshot

__all__ = ["write"]

_ROWS = 1 << 16
_HEAD = ("order", "gfp_mask", "gfp_flags", "pid", "tgid", "comm")
_TAIL = ("block_migratetype", "flags", "page_flags")
_LINES = {column: line.form for column, line in LINES.items() if line.form}
_BODY = ("stack", "handle", "notes", *_LINES)
_NOTES = _BODY.index("notes")
_ROW = ("pfn", "ts_ns", "free_ts_ns", "migratetype", "state")
_DEFAULT_PAGEBLOCK_ORDER = 9


def write(snapshot: Snapshot, file: BinaryIO,
          encode: Callable[[str], bytes] = to_bytes) -> None:
    """All rows as records, each ended by an empty line.

    ``encode`` makes bytes of names and other texts: those of the dump, or, for a terminal, some
    that it does not act on.

    A page that was in use before tracking began has a record as in the kernel's file: mask 0, and
    for a stack the function that registers it (`page_owner_kinds.EARLY`). Its task and its time are
    left out, since nobody saw them; the kernel gives those of its own start. Pages that nobody
    is known to own (state ``untracked``) have no record.

    Raises PageownerError for a source of groups.
    """
    check_pages(snapshot.meta)
    shift = snapshot.meta.pageblock_order
    shift = _DEFAULT_PAGEBLOCK_ORDER if shift is None else shift
    pfn_form = b"PFN %d type %s Block %d " if snapshot.meta.dump_format.get("decimal_pfn") else (
        b"PFN 0x%x type %s Block %d ")
    heads: dict[tuple[Any, ...], bytes] = {}
    tails: dict[tuple[Any, ...], bytes] = {}
    bodies: dict[tuple[Any, ...], bytes] = {}
    table = snapshot.table.unify_dictionaries()
    labels = {name: _labels(table[name]) for name in (*_HEAD, *_TAIL, *_BODY, *_ROW)}
    above, front = (frozenset(
        word for place, _, word in (key.partition(":") for key in snapshot.meta.dump_format)
        if place == where) for where in (BEFORE_PFN, BEFORE_STACK))
    kinds = [encode(kind or "Unmovable") for kind in labels["migratetype"]]
    states = labels["state"]

    # Known of a running kernel's memory though its text leaves it out.
    prints_free_ts = snapshot.meta.dump_format.get("free_ts", True)

    def said(names: tuple[str, ...], values: tuple[Any, ...]) -> list[Any]:
        return [labels[name][value] if labels[name] else value
                for name, value in zip(names, values, strict=True)]

    for batch in table.to_batches(max_chunksize=_ROWS):
        values = {name: _values(batch.column(name)) for name in labels}
        parts = (zip(*(values[name] for name in names), strict=True)
                 for names in (_HEAD, _TAIL, _BODY, _ROW))
        out = []
        for h, t, b, (pfn, ts, free_ts, kind, state) in zip(*parts, strict=True):
            if states[state] == "untracked":
                continue
            head = heads.get((ts is None, *h))
            if head is None:
                head = heads[ts is None, *h] = _head(encode, ts is None, *said(_HEAD, h))
            out.append(head)
            if ts is not None:
                out.append(b", ts %d ns" % ts)
                if free_ts is not None and prints_free_ts:
                    out.append(b", free_ts %d ns" % free_ts)
            if pfn is not None:
                out.append(b"\n")
                if above and labels["notes"][b[_NOTES]] is not None:
                    out.append(_above(encode, labels["notes"][b[_NOTES]], above))
                out.append(pfn_form % (pfn, kinds[kind], pfn >> shift))
                tail = tails.get(t)
                if tail is None:
                    tail = tails[t] = _tail(encode, *said(_TAIL, t))
                out.append(tail)
            early = states[state] == "early"
            body = bodies.get((early, *b))
            if body is None:
                body = bodies[early, *b] = _body(encode, early, above, front, *said(_BODY, b))
            out.append(body)
        file.write(b"".join(out))


def _labels(column: pa.ChunkedArray) -> list[str | None]:
    """The texts of a dictionary column, and None as the last, for -1; no item for other columns."""
    if not pa.types.is_dictionary(column.type):
        return []
    return [*(column.chunk(0).dictionary.to_pylist() if column.num_chunks else ()), None]


def _values(column: pa.Array) -> list[Any]:
    """Items; those of a dictionary column as places in its `_labels`."""
    if pa.types.is_dictionary(column.type):
        column = column.indices.fill_null(-1)
    items: list[Any] = column.to_pylist() if column.null_count else column.to_numpy().tolist()
    return items


def _above(encode: Callable[[str], bytes], notes: str, words: frozenset[str]) -> bytes:
    """Those of the notes that stand in front of the PFN line."""
    return b"".join(encode(note) + b"\n" for note in notes.split("\n") if first_word(note) in words)


def _head(encode: Callable[[str], bytes], timeless: bool, order: int, mask: int | None,
          flags: str | None, pid: int | None, tgid: int | None, comm: str | None) -> bytes:
    # No kernel leaves the mask out; 0 says as little as no mask.
    text = b"Page allocated via order %d, mask 0x%x" % (order, mask or 0)
    if flags is not None:
        text += b"(%s)" % encode(flags)
    if pid is not None and not timeless:  # else it is from a line of its own
        text += b", pid %d" % pid
    if tgid is not None and not timeless:
        text += b", tgid %d (%s)" % (tgid, encode(comm or ""))
    elif comm is not None and pid is not None and not timeless:
        text += b" (%s)" % encode(comm)
    return text


def _tail(encode: Callable[[str], bytes], block_type: str | None, flags: str | None,
          page_flags: int | None) -> bytes:
    if flags is None:
        # Of a live machine the stable bits of /proc/kpageflags are known, not those of the build.
        from pageowner.kernel import pageflags

        known = page_flags or 0
        flags = f"{known:#x}({pageflags.names(known)})"
    return b"type %s Flags %s" % (encode(block_type or "Unknown"), encode(flags))


def _body(encode: Callable[[str], bytes], early: bool, above: frozenset[str],
          front: frozenset[str], stack: str | None, handle: int | None,
          notes: str | None, *lines_say: str | int | None) -> bytes:
    text = b"\n"
    if notes is not None and (above or front):
        lines = notes.split("\n")
        if stack is not None:
            text += b"".join(b"%s\n" % encode(note) for note in lines
                             if first_word(note) in front - above)
            lines = [note for note in lines if first_word(note) not in front]
        lines = [note for note in lines if first_word(note) not in above]
        notes = "\n".join(lines) if lines else ""
    if early and stack is None and handle is None:
        stack = EARLY
    if stack is not None:
        text += b"".join(b" %s\n" % encode(frame) for frame in stack.split("\n"))
    if handle is not None:
        text += b"handle: %d\n" % handle
    if notes is not None:
        text += b"".join(b"%s\n" % encode(note) for note in notes.split("\n") if note)
    else:
        text += b"".join(form.encode() % encode(str(value)) + b"\n"
                         for form, value in zip(_LINES.values(), lines_say, strict=True)
                         if value is not None)
    return text + b"\n"
