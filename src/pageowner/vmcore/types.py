"""A kernel's types, of the BTF that lies in its memory (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import ctypes
import ctypes.util

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import AskedTypes
from pageowner.tracker.load.btf import KernelTypes
from pageowner.tracker.load.libbpf import BpfError, LibbpfMissing, libbpf

__all__ = ["BtfTypes"]

_MOST_ERRNO = 4095


class _Btf(KernelTypes):
    """BTF in bytes, by libbpf, which checks them."""

    def __init__(self, data: bytes) -> None:
        library = libbpf()
        self.lib = library.lib
        self._library = library
        ctypes.set_errno(0)
        found = self.lib.btf__new(data, len(data)) or 0
        if not found or found > (1 << 64) - 1 - _MOST_ERRNO:
            raise self.error("read BTF", -1)
        self._btf = found
        self._found = {}

    def error(self, what: str, code: int) -> BpfError:
        return self._library.error(what, code)

    def close(self) -> None:
        """Free it."""
        if self._btf:
            self.lib.btf__free(self._btf)
            self._btf = 0


class BtfTypes(AskedTypes):
    """`pageowner.kernel_memory.access.Types` of BTF in bytes."""

    def __init__(self, data: bytes) -> None:
        """Raises PageownerError where there is no libbpf, or these bytes are no BTF."""
        try:
            self._bytes = _Btf(data)
        except LibbpfMissing as error:
            raise PageownerError(str(error)) from error
        except BpfError as error:
            raise PageownerError("the kernel's type information (BTF) in it is damaged") from error
        super().__init__(self._bytes)

    def close(self) -> None:
        """Free it."""
        self._bytes.close()
