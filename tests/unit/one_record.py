"""A record as kernels print it now, from which tests make others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner import Snapshot

    Read = Callable[[bytes], Snapshot]


CURRENT = b"""\
Page allocated via order 2, mask 0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZERO), pid 87, tgid 86 \
(udevd), ts 5203445 ns
PFN 0x1a2b4 type Unmovable Block 209 type Movable Flags 0x200000000000040(head|node=0|zone=1)
 post_alloc_hook+0x61/0xb5
 __alloc_pages_noprof+0xe6/0x1ad
 nfs_alloc+0x1f/0x90 [nfs]

"""
