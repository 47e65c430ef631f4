"""Write a snapshot as the text of the kernel's page_owner (mm/page_owner.c of 6.12).

Fields that an older kernel did not print are left out again, so that a dump comes out as it went
in; what a snapshot does not know is never made up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from pageowner.formats.names import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.snapshot import Snapshot

__all__ = ["write"]

_ROWS = 1 << 16
_HEAD = ("order", "gfp_mask", "gfp_flags", "pid", "tgid", "comm")
_TAIL = ("block_migratetype", "flags", "page_flags")
_BODY = ("stack", "handle", "notes", "migrate_reason", "memcg")
_DEFAULT_PAGEBLOCK_ORDER = 9


def write(snapshot: Snapshot, file: BinaryIO,
          encode: Callable[[str], bytes] = to_bytes) -> None:
    """All rows as records, each ended by an empty line.

    ``encode`` makes bytes of names and other texts: those of the dump, or, for a terminal, some
    that it does not act on.

    Pages that nobody is known to own (state ``untracked``, and ``early`` ones without a stack)
    have no record, as in the kernel's file.
    """
    said = snapshot.meta.dump_format
    shift = snapshot.meta.pageblock_order
    shift = _DEFAULT_PAGEBLOCK_ORDER if shift is None else shift
    pfn_form = b"PFN %d type %s Block %d " if said.get("decimal_pfn") else (
        b"PFN 0x%x type %s Block %d ")
    heads: dict[tuple[Any, ...], bytes] = {}
    tails: dict[tuple[Any, ...], bytes] = {}
    bodies: dict[tuple[Any, ...], bytes] = {}
    for batch in snapshot.table.to_batches(max_chunksize=_ROWS):
        columns = {name: batch.column(name).to_pylist() for name in (
            *_HEAD, *_TAIL, *_BODY, "pfn", "ts_ns", "free_ts_ns", "migratetype", "state")}
        head_rows = zip(*(columns[name] for name in _HEAD), strict=True)
        tail_rows = zip(*(columns[name] for name in _TAIL), strict=True)
        body_rows = zip(*(columns[name] for name in _BODY), strict=True)
        rest = zip(columns["pfn"], columns["ts_ns"], columns["free_ts_ns"],
                   columns["migratetype"], columns["state"], strict=True)
        out = []
        for h, t, b, (pfn, ts, free_ts, kind, state) in zip(
                head_rows, tail_rows, body_rows, rest, strict=True):
            if state == "untracked" or (b[0] is None and b[1] is None and state == "early"):
                continue
            out.append(heads.get(h) or heads.setdefault(h, _head(encode, *h)))
            if ts is not None:
                out.append(b", ts %d ns" % ts)
                if free_ts is not None:
                    out.append(b", free_ts %d ns" % free_ts)
            if pfn is not None:
                out.append(b"\n")
                out.append(pfn_form % (pfn, encode(kind or "Unmovable"), pfn >> shift))
                out.append(tails.get(t) or tails.setdefault(t, _tail(encode, *t)))
            out.append(bodies.get(b) or bodies.setdefault(b, _body(encode, *b)))
        file.write(b"".join(out))


def _head(encode: Callable[[str], bytes], order: int, mask: int, flags: str | None,
          pid: int | None, tgid: int | None, comm: str | None) -> bytes:
    text = b"Page allocated via order %d, mask 0x%x" % (order, mask)
    if flags is not None:
        text += b"(%s)" % encode(flags)
    if pid is not None:
        text += b", pid %d" % pid
    if tgid is not None:
        text += b", tgid %d (%s)" % (tgid, encode(comm or ""))
    return text


def _tail(encode: Callable[[str], bytes], block_type: str | None, flags: str | None,
          page_flags: int | None) -> bytes:
    if flags is None:
        # Of a live machine the stable bits of /proc/kpageflags are known, not those of the build.
        from pageowner.kernel import pageflags

        known = page_flags or 0
        flags = f"{known:#x}({pageflags.names(known)})"
    return b"type %s Flags %s" % (encode(block_type or "Unknown"), encode(flags))


def _body(encode: Callable[[str], bytes], stack: str | None, handle: int | None,
          notes: str | None, reason: str | None, memcg: str | None) -> bytes:
    text = b"\n"
    if stack is not None:
        text += b"".join(b" %s\n" % encode(frame) for frame in stack.split("\n"))
    if handle is not None:
        text += b"handle: %d\n" % handle
    if notes is not None:
        text += b"".join(b"%s\n" % encode(note) for note in notes.split("\n"))
    else:
        if reason is not None:
            text += b"Page has been migrated, last migrate reason: %s\n" % encode(reason)
        if memcg is not None:
            text += b"Charged to memcg %s\n" % encode(memcg)
    return text + b"\n"
