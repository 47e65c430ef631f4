"""A rule of `pageowner.kernel.subsystems`: which functions allocate for what."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Rule"]


class Rule(NamedTuple):
    """``name`` is the label; ``patterns`` function names, blank-separated.

    The patterns are for functions of the kernel proper, and of the modules that ``modules`` names:
    a function of any other module may share their names and nothing else (``dm_*`` is the device
    mapper in vmlinux, the display of the GPU in amdgpu). ``whole`` names modules of which every
    function is for this rule, whatever its name. Module names are written with ``_``, as the kernel
    prints them; a ``*`` at the end stands for any rest.
    """

    name: str
    patterns: str
    how: str = ""
    source: str = ""
    modules: str = ""
    whole: str = ""
