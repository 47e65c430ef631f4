"""What the running kernel's types are, from its BTF (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pageowner.tracker.load import libbpf_abi as abi

if TYPE_CHECKING:
    from pageowner.tracker.load.libbpf import BpfError

__all__ = ["KernelTypes"]

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _ENUM64 = 1, 2, 3, 4, 5, 6, 8, 19
_NAMES_OF_OTHERS = (_TYPEDEF, 9, 10, 11, 18)
"""BTF_KIND_INT and so on; of what only gives another type a name or a word: BTF_KIND_VOLATILE,
BTF_KIND_CONST, BTF_KIND_RESTRICT, BTF_KIND_TYPE_TAG."""
_POINTER_BYTES = 8
_MOST_NAMES = 64
_DEPTH = 16
"""Of arrays of arrays, and of structs without a name inside others."""


class KernelTypes(ABC):
    """The part of `libbpf.Libbpf` that reads BTF."""

    lib: ctypes.CDLL
    _btf = 0
    _found: dict[tuple[str, tuple[int, ...]], int]

    @abstractmethod
    def error(self, what: str, code: int) -> BpfError:
        """What a call of libbpf's that failed means."""

    def function_parameters(self, name: str) -> list[str] | None:
        """Names of the parameters of a kernel function; None if BTF has no such function."""
        address = self._prototype(name)
        if address is None:
            return None
        count = abi.BtfType.from_address(address).info & 0xFFFF
        parameters = (abi.BtfParameter * count).from_address(address + ctypes.sizeof(abi.BtfType))
        btf = self._kernel_btf()
        return [self.lib.btf__name_by_offset(btf, p.name_off).decode() for p in parameters]

    def result_bytes(self, name: str) -> int:
        """Bytes of the integer that a kernel function returns: above them its register may hold
        anything. 8 for what is no integer, and where BTF has no such function."""
        address, btf = self._prototype(name), self._kernel_btf()
        if address is None:
            return 8
        kind, found = _TYPEDEF, abi.BtfType.from_address(address)
        while kind == _TYPEDEF and found.size_or_type:
            found = abi.BtfType.from_address(self.lib.btf__type_by_id(btf, found.size_or_type))
            kind = found.info >> 24 & 0x1F
        return int(found.size_or_type) if kind == _INT else 8

    def type_size(self, name: str) -> int:
        """Bytes of a struct of the running kernel. Raises BpfError if it has none of this name."""
        btf = self._kernel_btf()
        number = self.lib.btf__find_by_name_kind(btf, name.encode(), _STRUCT)
        if number < 0:
            raise self.error(f"find struct {name}", number)
        return int(abi.BtfType.from_address(self.lib.btf__type_by_id(btf, number)).size_or_type)

    def has_type(self, name: str) -> bool:
        """Whether the running kernel has a struct of this name."""
        return bool(self.lib.btf__find_by_name_kind(
            self._kernel_btf(), name.encode(), _STRUCT) >= 0)

    # -- structs, unions and enums ---------------------------------------------------------------

    def size(self, name: str) -> int | None:
        """Bytes of a struct or union; None if there is none of this name."""
        found = self._find(name, _STRUCT, _UNION)
        return None if found is None else int(found.size_or_type)

    def member(self, name: str, path: str) -> tuple[int, int, int, int] | None:
        """A member of a struct or union, ``path`` with dots for members of members; those of
        unnamed structs and unions inside count as its own: its place and size in bytes, and of a
        bit field its first bit in the struct and how many there are. None if there is none."""
        at, place, inner = self._find(name, _STRUCT, _UNION), 0, 0
        found: tuple[int, int, int, int] | None = None
        for word in path.split("."):
            if at is None or (step := self._member(at, word.encode(), _DEPTH)) is None:
                return None
            bit, bits, inner = step
            place += bit
            found = place // 8, self._bytes(inner, _DEPTH), place if bits else 0, bits
            at = self._behind_names(inner)
        return found

    def enumerator(self, name: str, value: str) -> int | None:
        """A value of an enum, both by name; None if there is none."""
        for kind, words in ((_ENUM, 2), (_ENUM64, 3)):
            if (found := self._find(name, kind)) is None:
                continue
            count, is_signed = found.info & 0xFFFF, bool(found.info >> 31)
            table = (ctypes.c_uint32 * (words * count)).from_address(
                ctypes.addressof(found) + ctypes.sizeof(abi.BtfType))
            for at in range(0, words * count, words):
                if self._name(table[at]) == value.encode():
                    number = int(table[at + 1]) | (int(table[at + 2]) << 32 if words > 2 else 0)
                    sign = 1 << 32 * (words - 1) - 1
                    return number - 2 * sign if is_signed and number & sign else number
        return None

    def _find(self, name: str, *kinds: int) -> abi.BtfType | None:
        key = name, kinds  # the library goes through all types each time
        if key not in self._found:
            btf = self._kernel_btf()
            self._found[key] = next(
                (number for kind in kinds if (
                    number := self.lib.btf__find_by_name_kind(btf, name.encode(), kind)) > 0), 0)
        return self._type(self._found[key]) if self._found[key] else None

    def _type(self, number: int) -> abi.BtfType:
        return abi.BtfType.from_address(self.lib.btf__type_by_id(self._kernel_btf(), number))

    def _name(self, place: int) -> bytes:
        return bytes(self.lib.btf__name_by_offset(self._kernel_btf(), place))

    def _behind_names(self, number: int) -> abi.BtfType | None:
        found = self._type(number) if number else None
        for _ in range(_MOST_NAMES):  # in damaged types one may stand for itself
            if found is None or found.info >> 24 & 0x1F not in _NAMES_OF_OTHERS:
                return found
            found = self._type(found.size_or_type) if found.size_or_type else None
        return None

    def _bytes(self, number: int, depth: int) -> int:
        """Of a value of this type; 0 for what has none."""
        found = self._behind_names(number)
        if found is None or not depth:
            return 0
        kind = found.info >> 24 & 0x1F
        if kind == _PTR:
            return _POINTER_BYTES
        if kind == _ARRAY:
            array = abi.BtfArray.from_address(ctypes.addressof(found) + ctypes.sizeof(abi.BtfType))
            return int(array.count) * self._bytes(array.type, depth - 1)
        return int(found.size_or_type) if kind in (_INT, _STRUCT, _UNION, _ENUM, _ENUM64) else 0

    def _member(self, outer: abi.BtfType, name: bytes, depth: int) -> tuple[int, int, int] | None:
        """Where a member begins, in bits, how many bits it has (0: it is no bit field), and its
        type."""
        if outer.info >> 24 & 0x1F not in (_STRUCT, _UNION) or not depth:
            return None
        members = (abi.BtfMember * (outer.info & 0xFFFF)).from_address(
            ctypes.addressof(outer) + ctypes.sizeof(abi.BtfType))
        for found in members:
            bit, bits = found.offset, 0
            if outer.info >> 31:  # the flag of the kind: sizes of bit fields are here
                bit, bits = found.offset & 0xFFFFFF, found.offset >> 24
            own = self._name(found.name_off)
            if own == name:
                return bit, bits, found.type
            if not own and (inside := self._behind_names(found.type)) is not None and (
                    deeper := self._member(inside, name, depth - 1)) is not None:
                return bit + deeper[0], deeper[1], deeper[2]
        return None

    def _prototype(self, name: str) -> int | None:
        btf = self._kernel_btf()
        number = self.lib.btf__find_by_name_kind(btf, name.encode(), abi.KIND_FUNC)
        if number < 0:
            return None
        function = abi.BtfType.from_address(self.lib.btf__type_by_id(btf, number))
        address: int = self.lib.btf__type_by_id(btf, function.size_or_type)
        return address

    def _kernel_btf(self) -> int:
        if not self._btf:
            ctypes.set_errno(0)
            self._btf = self.lib.btf__load_vmlinux_btf() or 0
            if not self._btf:
                raise self.error("read the kernel's BTF", -1)
        return self._btf
