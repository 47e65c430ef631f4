"""What a reader of the kernel's structures needs of the memory that it reads, live or in a dump."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import release

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AskedTypes", "Member", "Memory", "Types", "member", "numbers", "offset", "strings",
           "symbol", "version", "word"]


class Member(NamedTuple):
    """Where a member is in its struct: bytes; of a bit field ``bits`` from bit ``first_bit`` on,
    counted from the struct's first bit; ``bits`` is 0 for all others."""

    offset: int
    size: int
    first_bit: int = 0
    bits: int = 0


class Types(Protocol):
    """The kernel's types, of its BTF."""

    def size(self, name: str) -> int | None:
        """Bytes of a struct or union; None if there is none of this name."""

    def member(self, name: str, path: str) -> Member | None:
        """A member of a struct or union, ``path`` with dots for members of members; those of
        unnamed structs and unions inside count as its own. None if there is none."""

    def enumerator(self, name: str, value: str) -> int | None:
        """A value of an enum, both by name; None if there is none."""


class Btf(Protocol):
    """What reads BTF: as `Types`, a member as the four numbers of `Member`."""

    def size(self, name: str) -> int | None: ...

    def member(self, name: str, path: str) -> tuple[int, int, int, int] | None: ...

    def enumerator(self, name: str, value: str) -> int | None: ...


class AskedTypes:
    """`Types` of BTF, each question asked once."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._sizes: dict[str, int | None] = {}
        self._members: dict[tuple[str, str], Member | None] = {}

    def size(self, name: str) -> int | None:
        """See `Types.size`."""
        if name not in self._sizes:
            self._sizes[name] = self._btf.size(name)
        return self._sizes[name]

    def member(self, name: str, path: str) -> Member | None:
        """See `Types.member`."""
        key = name, path
        if key not in self._members:
            found = self._btf.member(name, path)
            self._members[key] = None if found is None else Member(*found)
        return self._members[key]

    def enumerator(self, name: str, value: str) -> int | None:
        """See `Types.enumerator`."""
        return self._btf.enumerator(name, value)


class Memory(Protocol):
    """The kernel's memory by its own addresses.

    ``live``: it changes while it is read. ``release``: the kernel's, as ``uname -r`` has it.
    ``machine``: as ``uname -m`` has it, such as ``x86_64``. ``section_size_bits``: of the bytes of
    a section of memory, where the kernel tells.
    """

    page_size: int
    release: str
    machine: str
    section_size_bits: int | None
    live: bool

    @property
    def types(self) -> Types:
        """The kernel's types."""

    def copy(self, addresses: NDArray[np.uint64], size: int, out: NDArray[np.uint8] | None = None
             ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """So many bytes (at most 128 KiB) from each address: an array of the shape (addresses,
        size), which is ``out`` if that is given, and which of them are there; of others zeros."""

    def symbol(self, name: str) -> int | None:
        """The address of a symbol of the kernel itself."""


def version(memory: Memory) -> tuple[int, int]:
    """The first two numbers of the kernel's release; (0, 0) if it does not begin with them."""
    return release.version(memory.release)


def symbol(memory: Memory, *names: str) -> int:
    """The address of the first of these that the kernel has. Raises PageownerError."""
    for name in names:
        if (address := memory.symbol(name)) is not None:
            return address
    raise PageownerError(f"the kernel's symbols do not have {' or '.join(names)}")


def member(types: Types, name: str, *paths: str) -> Member:
    """The first of these members that the struct has. Raises PageownerError."""
    for path in paths:
        if (found := types.member(name, path)) is not None:
            return found
    raise PageownerError(f"the kernel's types (BTF) do not have {name}.{' or .'.join(paths)}")


def offset(types: Types, name: str, *paths: str) -> int:
    """Where the first of these members is, in bytes. Raises PageownerError."""
    return member(types, name, *paths).offset


def word(memory: Memory, address: int, kind: str = "<u8") -> int:
    """A number at an address. Raises PageownerError if it cannot be read."""
    found = numbers(memory, np.array([address], np.uint64), kind)
    if found is None:
        raise PageownerError(f"the kernel's memory at {address:#x} cannot be read")
    return int(found[0])


def numbers(memory: Memory, addresses: NDArray[np.uint64], kind: str = "<u8"
            ) -> NDArray[np.uint64] | None:
    """Numbers at addresses, all as uint64; None if one of them cannot be read."""
    raw, good = memory.copy(addresses, np.dtype(kind).itemsize)
    if not good.all():
        return None
    return raw.view(kind).ravel().astype(np.uint64)


def strings(memory: Memory, addresses: NDArray[np.uint64], longest: int = 64) -> list[bytes | None]:
    """C strings at addresses, cut behind ``longest`` bytes; None for what cannot be read.

    A string near the end of what is there is read in steps, so that nothing beyond it is needed.
    """
    found: list[bytes | None] = [None] * len(addresses)
    left = np.arange(len(addresses))
    parts = [b""] * len(addresses)
    step = 16
    for start in range(0, longest, step):
        raw, good = memory.copy(addresses[left] + np.uint64(start), step)
        rest = []
        for place, bytes_, readable in zip(left.tolist(), raw, good.tolist(), strict=True):
            if not readable:
                # What is there may end within these bytes: one by one.
                single, fine = memory.copy(
                    addresses[place] + np.arange(start, start + step, dtype=np.uint64), 1)
                known = single.ravel()[:int(np.argmin(np.append(fine, False)))].tobytes()
                found[place] = parts[place] + known.partition(b"\0")[0] if b"\0" in known else None
                continue
            text, end, _ = bytes_.tobytes().partition(b"\0")
            parts[place] += text
            if end or start + step >= longest:
                found[place] = parts[place]
            else:
                rest.append(place)
        left = np.array(rest, np.int64)
        if not len(left):
            break
    return found
