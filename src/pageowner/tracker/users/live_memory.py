"""This machine's kernel memory for those who read structures by their types and symbols
(`pageowner.kernel_memory`)."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import AskedTypes
from pageowner.system.closing import Closing
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.users.memory import Copies

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pageowner.kernel.kallsyms import Kallsyms

__all__ = ["LiveMemory"]


class LiveMemory(Closing):
    """The memory, for as long as this is open; use it with ``with``. It is a
    `pageowner.kernel_memory.access.Memory`.

    ``symbols``: those of the running kernel.
    """

    live = True

    def __init__(self, symbols: Kallsyms) -> None:
        """Raises PageownerError where the kernel or this user may not read it."""
        self.page_size = os.sysconf("SC_PAGE_SIZE")
        self.release = platform.release()
        self.machine = platform.machine()
        self.section_size_bits: int | None = None
        self._symbols = symbols
        self._copies = Copies()
        self.types = AskedTypes(self._copies.bpf)
        try:
            self.types.size("page")
        except BpfError as error:
            self.close()
            raise PageownerError("this kernel has no type information (/sys/kernel/btf/vmlinux)"
                                 ) from error

    def close(self) -> None:
        """End the programs that read."""
        self._copies.close()

    def copy(self, addresses: NDArray[np.uint64], size: int, out: NDArray[np.uint8] | None = None
             ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """So many bytes (at most 128 KiB) from each address: an array of the shape (addresses,
        size), which is ``out`` if that is given, and which of them are there; of others zeros."""
        return self._copies.copy(addresses, size, out)

    def symbol(self, name: str) -> int | None:
        """The address of a symbol of the kernel itself."""
        return self._symbols.address_of(name)
