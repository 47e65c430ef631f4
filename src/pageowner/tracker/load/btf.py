"""What the running kernel's types are, from its BTF (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pageowner.tracker.load import libbpf_abi as abi

if TYPE_CHECKING:
    from pageowner.tracker.load.libbpf import BpfError

__all__ = ["KernelTypes"]

_INT, _STRUCT, _TYPEDEF = 1, 4, 8
"""BTF_KIND_INT, BTF_KIND_STRUCT, BTF_KIND_TYPEDEF."""


class KernelTypes(ABC):
    """The part of `libbpf.Libbpf` that reads BTF."""

    lib: ctypes.CDLL
    _btf = 0

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
