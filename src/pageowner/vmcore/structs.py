"""Walks over the kernel's structures: members by name, lists, with an end to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import member, offset, word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.kernel_memory.access import Memory

__all__ = ["MOST", "has", "hlist", "indexed", "linked", "place", "text", "value"]

MOST = 1 << 20
"""Links of a list, at most: what has more is a circle in damaged memory."""
_NODE, _LARGEST = 2, 4096
_MOST_LEVELS = 17
"""64 bits, of which a node of the smallest kind tells four (XA_CHUNK_SHIFT), and the pointers."""
_KINDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def has(memory: Memory, name: str, path: str) -> bool:
    """Whether this kernel's struct has a member."""
    return memory.types.member(name, path) is not None


def place(memory: Memory, address: int, name: str, *paths: str) -> int:
    """The address of the first of these members that the struct has. Raises PageownerError."""
    return address + offset(memory.types, name, *paths)


def value(memory: Memory, address: int, name: str, *paths: str) -> int:
    """Its number or pointer. Raises PageownerError if it cannot be read."""
    found = member(memory.types, name, *paths)
    kind = _KINDS.get(found.size)
    if kind is None:
        raise PageownerError(f"{name}.{paths[0]} is no number in this kernel")
    return word(memory, address + found.offset, kind)


def text(memory: Memory, address: int, name: str, path: str) -> bytes:
    """Its array of characters, up to the first zero. Raises PageownerError."""
    found = member(memory.types, name, path)
    raw = b"".join(word(memory, address + found.offset + at, "<u1").to_bytes(1, "little")
                   for at in range(min(found.size, 256)))
    return raw.partition(b"\0")[0]


def linked(memory: Memory, head: int) -> Iterator[int]:
    """The addresses of the links of a struct list_head, without its head. Raises PageownerError."""
    link, ends = word(memory, head), _Ends(head)
    while link != head:
        ends.pass_(link)
        yield link
        link = word(memory, link)


def hlist(memory: Memory, head: int) -> Iterator[int]:
    """The addresses of the links of a struct hlist_head. Raises PageownerError."""
    link, ends = word(memory, head), _Ends(head)
    while link:
        ends.pass_(link)
        yield link
        link = word(memory, link)


def indexed(memory: Memory, head: int) -> Iterator[int]:
    """The pointers in a struct xarray, whose ``xa_head`` is at this address, in order. Raises
    PageownerError.

    include/linux/xarray.h of 4.20 to 7.3: of an entry's lowest two bits 0 are of a pointer, 2 of a
    node if it is not one of the small numbers that stand for something else.
    """
    slots = member(memory.types, "xa_node", "slots")
    level, passed = [word(memory, head)], 0
    for _ in range(_MOST_LEVELS):
        nodes = [entry - _NODE for entry in level if entry & 3 == _NODE and entry > _LARGEST]
        if not nodes:
            yield from (entry for entry in level if entry and entry & 3 == 0)
            return
        passed += len(nodes)
        if len(set(nodes)) < len(nodes) or passed > MOST:
            break
        found, good = memory.copy(np.array(nodes, np.uint64) + np.uint64(slots.offset), slots.size)
        if not good.all():
            raise PageownerError(f"the kernel's tree at {head:#x} is not all in it")
        rows = iter(found.view("<u8").tolist())
        level = [below for entry in level for below in (
            next(rows) if entry & 3 == _NODE and entry > _LARGEST else [entry])]
    raise PageownerError(f"the kernel's tree at {head:#x} has no end")


class _Ends:
    """Whether a walk comes to an end: it does not if it passes a link again, which is found within
    three rounds of the circle (Brent's way)."""

    def __init__(self, head: int) -> None:
        self._head, self._mark, self._passed, self._until = head, 0, 0, 1

    def pass_(self, link: int) -> None:
        """One more link. Raises PageownerError."""
        if not link or link == self._mark or self._passed == MOST:
            raise PageownerError(f"the kernel's list at {self._head:#x} has no end")
        self._passed += 1
        if self._passed == self._until:
            self._mark, self._until = link, 2 * self._until
