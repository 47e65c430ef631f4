"""What the kernel says of each page frame of this machine, by files of /proc."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from pageowner.kernel import pageflags, procpages, zones
from pageowner.kernel.memory_ranges import present_ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Frames"]

_FLAGS, _CGROUP = (path.removeprefix("/proc") for path in (procpages.KPAGEFLAGS,
                                                           procpages.KPAGECGROUP))


class Frames:
    """Flags and cgroups of frames, for as long as this is open; use it with ``with``."""

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        """``proc``, ``sys``: where these file systems are."""
        self._proc, self._sys = proc, sys
        self._flags_file: int | None = None
        self._cgroup_file: int | None = None

    def __enter__(self) -> Self:
        """Raises PageownerError if a file cannot be read."""
        self._flags_file = procpages.opened(self._proc + _FLAGS)
        if os.path.exists(self._proc + _CGROUP):  # not in a kernel without memory cgroups
            self._cgroup_file = procpages.opened(self._proc + _CGROUP)
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._flags_file, self._cgroup_file):
            if file is not None:
                os.close(file)
        self._flags_file = self._cgroup_file = None

    @property
    def max_order(self) -> int:
        """The largest order of the page allocator."""
        return zones.max_order(self._proc)

    def ranges(self) -> list[tuple[int, int]]:
        """Frames (first, behind the last) that there are; none where that is hidden."""
        return present_ranges(self._proc, self._sys)

    def flags(self, first: int, count: int) -> NDArray[np.uint64]:
        """Bits of /proc/kpageflags of so many frames, fewer where memory ends."""
        assert self._flags_file is not None
        return pageflags.words(self._flags_file, first, count)

    def cgroups(self, first: int, count: int) -> NDArray[np.uint64] | None:
        """The inode of the cgroup that each frame is charged to, fewer where memory ends; None
        where the kernel does not tell."""
        if self._cgroup_file is None:
            return None
        return pageflags.words(self._cgroup_file, first, count)
