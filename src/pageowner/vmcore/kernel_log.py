"""The kernel's log, out of its ring (kernel/printk/printk_ringbuffer.c of 5.10 to 7.3).

A descriptor has the id of its record and, in its highest two bits, its state; it says where in the
ring of texts the record's block begins and ends. A block that would reach beyond the end of the
ring lies at its beginning. Its first word is the id again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset
from pageowner.model.kernel_log import PANIC
from pageowner.vmcore.structs import value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["lines", "panic"]

_STATE, _KEPT = 62, (1, 2)
"""DESC_STATE of a 64-bit word; desc_committed and desc_finalized."""
_NO_TEXT = 1
"""LPOS_DATALESS."""
_MOST_BITS = 30
_ID = 8
_POSITIONS = (1 << 64) - 1
"""Positions count on in 64 bits and begin just below their end, at -(1 << bits), so that they start
anew once the ring does (BLK0_LPOS of printk_ringbuffer.h)."""


def lines(memory: Vmcore) -> list[str]:
    """Its lines with their times, as dmesg prints them, oldest first. Raises PageownerError if
    there is no such log."""
    pointer = memory.symbol("prb")
    if pointer is None:
        raise PageownerError("the kernel's log is not in it")
    ring = int.from_bytes(memory.read(pointer, 8), "little")
    bits = value(memory, ring, "printk_ringbuffer", "desc_ring.count_bits")
    text_bits = value(memory, ring, "printk_ringbuffer", "text_data_ring.size_bits")
    if not 0 < bits <= _MOST_BITS or not 0 < text_bits <= _MOST_BITS:
        raise PageownerError("the kernel's log in it is damaged")
    count = 1 << bits
    descs = _table(memory, value(memory, ring, "printk_ringbuffer", "desc_ring.descs"), count,
                   "prb_desc")
    infos = _table(memory, value(memory, ring, "printk_ringbuffer", "desc_ring.infos"), count,
                   "printk_info")
    data, _ = memory.fill(value(memory, ring, "printk_ringbuffer", "text_data_ring.data"),
                          1 << text_bits)
    text = data.tobytes()
    state = _column(memory, descs, "prb_desc", "state_var")
    begin = _column(memory, descs, "prb_desc", "text_blk_lpos.begin")
    end = _column(memory, descs, "prb_desc", "text_blk_lpos.next")
    times = _column(memory, infos, "printk_info", "ts_nsec")
    length = _column(memory, infos, "printk_info", "text_len", "<u2")
    number = _column(memory, infos, "printk_info", "seq")
    kept = np.flatnonzero(np.isin(state >> np.uint64(_STATE), _KEPT))
    found: list[str] = []
    for place in kept[np.argsort(number[kept], kind="stable")].tolist():
        record = _text(text, text_bits, int(begin[place]), int(end[place]), int(length[place]),
                       int(state[place]) & (1 << _STATE) - 1)
        if record is not None:
            seconds, rest = divmod(int(times[place]) // 1000, 10**6)
            found += [f"[{seconds:5d}.{rest:06d}] {line}" for line in record.split("\n")]
    return found


def panic(memory: Vmcore) -> str | None:
    """What the kernel said as it died, or None."""
    try:
        told = [match[1] for line in lines(memory)
                if (match := PANIC.match(line.partition("] ")[2]))]
    except PageownerError:
        return None
    return told[0] if told else None


def _table(memory: Vmcore, address: int, count: int, name: str) -> NDArray[np.uint8]:
    size = memory.types.size(name)
    if not size:
        raise PageownerError(f"the kernel's types (BTF) do not have struct {name}")
    found, _ = memory.fill(address, count * size)
    return found.reshape(count, size)


def _column(memory: Vmcore, table: NDArray[np.uint8], name: str, path: str,
            kind: str = "<u8") -> NDArray[np.uint64]:
    at = offset(memory.types, name, path)
    part = np.ascontiguousarray(table[:, at:at + np.dtype(kind).itemsize])
    return part.view(kind).ravel().astype(np.uint64)


def _text(text: bytes, bits: int, begin: int, end: int, length: int, record: int) -> str | None:
    """The text of a record; None if it was overwritten."""
    if begin & _NO_TEXT:
        return ""
    size = 1 << bits
    if not 0 < end - begin & _POSITIONS <= 2 * size:
        return None
    at, stop = begin % size, end % size or size
    if begin >> bits != (end - 1 & _POSITIONS) >> bits:
        at = 0
    if int.from_bytes(text[at:at + _ID], "little") & (1 << _STATE) - 1 != record:
        return None
    raw = text[at + _ID:min(at + _ID + length, stop)]
    return raw.decode("utf-8", "backslashreplace")
