"""Areas of vmalloc by who asked for them: /proc/vmallocinfo, which needs root."""

from __future__ import annotations

import re

__all__ = ["is_stack_caller", "parse_vmallocinfo"]

_AREA = re.compile(
    r"^\S+ +\d+ (?:(?P<caller>[^\s=+]+)(?:\+0x\S+)? )?.*?\bpages=(?P<pages>\d+).*$", re.MULTILINE)
_STACKS = frozenset(("kernel_clone", "_do_fork", "dup_task_struct", "copy_process",
                     "alloc_thread_stack_node"))
"""Where kernel/fork.c asks for stacks, inlined to different depths by different compilers."""


def parse_vmallocinfo(text: str) -> dict[str, int]:
    """Pages of the areas that have pages of their own, by caller; the callers are functions.

    Only areas with ``pages=`` hold pages that VmallocUsed counts (mm/vmalloc.c, s_show and
    __vmalloc_area_node); ioremap, the areas of percpu chunks and areas not yet purged have none,
    and those of ``vmap`` show other people's.
    """
    found: dict[str, int] = {}
    for area in _AREA.finditer(text):
        if re.search(r" vmap(?: |$)", area[0]):
            continue
        caller = area["caller"] or "unknown"
        found[caller] = found.get(caller, 0) + int(area["pages"])
    return found


def is_stack_caller(caller: str) -> bool:
    """Whether the areas of this caller are kernel stacks."""
    return caller.partition(".")[0] in _STACKS  # .isra.0, .part.0: clones that compilers make
