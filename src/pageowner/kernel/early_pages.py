"""Which stacks are of pages that were in use before page owner was ready.

It finds them when it starts, and gives each the stack of that search and a gfp mask of 0
(init_pages_in_zone, mm/page_owner.c).
"""

from __future__ import annotations

from pageowner.kernel.frames import UNWINDERS, frames

__all__ = ["EARLY", "is_early", "told_by"]

EARLY = "register_early_stack"
"""The innermost function of their stack since 4.14 or so (mm/page_owner.c of 6.12)."""

_SEARCH = frozenset((EARLY, "init_early_allocated_pages", "init_pages_in_zone",
                     "init_zones_in_node"))

_STARTING = frozenset(("init_page_owner", "page_ext_init", "page_ext_init_flatmem",
                       "invoke_init_callbacks", "kernel_init_freeable", "start_kernel"))
"""What called the search, and stands for it where a compiler put both into one (3.19 to 4.13);
with the mask of the search, for the kernel allocates pages in some of these."""

_RECORDING = UNWINDERS | frozenset((
    "save_stack", "__save_stack", "set_page_owner", "__set_page_owner", "__set_page_owner_handle",
    "__set_page_owner_init"))
"""Page owner's own functions and those that it takes stacks with, in front of what called them."""

_LOOKED_AT = 16


def is_early(stack: str, gfp_mask: int) -> bool:
    """Whether a record with this stack and mask is of a page in use before page owner was ready."""
    return told_by(stack, gfp_mask) is True


def told_by(frames_of: str, gfp_mask: int = -1) -> bool | None:
    """The same of the first frames of a stack; None if these do not tell."""
    for line in frames_of.split("\n", _LOOKED_AT)[:_LOOKED_AT]:
        # each line is looked up where it was parsed before
        for frame in frames(line):
            if frame.name not in _RECORDING:
                return frame.name in _SEARCH or (not gfp_mask and frame.name in _STARTING)
    return None
