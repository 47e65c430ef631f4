"""Members of many structs at once, in a dump."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import member, strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["Follow"]

_KINDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_MASK = (1 << 64) - 1


class Follow:
    """Numbers and pointers at members of structs by their addresses."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def has(self, name: str, path: str) -> bool:
        """Whether this kernel's struct has a member."""
        return self.memory.types.member(name, path) is not None

    def numbers(self, addresses: NDArray[np.uint64], name: str, *paths: str,
                among: NDArray[np.bool_] | None = None) -> tuple[
                    NDArray[np.uint64], NDArray[np.bool_]]:
        """The first of these members that the struct has, of each address, and which could be read;
        ``among``: of which it is asked. Of others 0."""
        wanted = addresses != 0 if among is None else among & (addresses != 0)
        found = np.zeros(len(addresses), np.uint64)
        good = np.zeros(len(addresses), bool)
        place = member(self.memory.types, name, *paths)
        if place.size not in _KINDS:
            raise PageownerError(f"{name}.{paths[0]} is no number in this kernel")
        raw, there = self.memory.copy(addresses[wanted] + np.uint64(place.offset), place.size)
        found[wanted] = raw.view(_KINDS[place.size]).ravel()
        good[wanted] = there
        return found, good

    def texts(self, addresses: NDArray[np.uint64], among: NDArray[np.bool_], longest: int
              ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """C strings, cut behind ``longest`` bytes, and which could be read."""
        found = np.zeros(len(addresses), f"S{longest}")
        good = np.zeros(len(addresses), bool)
        wanted = np.flatnonzero(among & (addresses != 0))
        for place, text in zip(wanted.tolist(), strings(
                self.memory, addresses[wanted], longest), strict=True):
            if text is not None:
                found[place], good[place] = text, True
        return found, good

    def several(self, addresses: Sequence[int], name: str, *paths: str | tuple[str, ...]
                ) -> tuple[list[tuple[int, ...]], list[bool]]:
        """Several members of each of these structs, which are read in one piece, and which could
        be read. A tuple of paths: the first of them that the struct has."""
        places = [member(self.memory.types, name, *((path,) if isinstance(path, str) else path))
                  for path in paths]
        first = min(place.offset for place in places)
        size = max(place.offset + place.size for place in places) - first
        raw, good = self.memory.copy(np.array(
            [(address + first) & _MASK for address in addresses], np.uint64), size)
        rows = []
        for row in raw:
            text = row.tobytes()
            rows.append(tuple(int.from_bytes(
                text[place.offset - first:place.offset - first + place.size], "little")
                for place in places))
        return rows, good.tolist()
