"""Looks at a small machine that was made up: what a tally of the records would count."""

from __future__ import annotations

import numpy as np

from pageowner.model.live import Look

S = 10**9
START = 5000 * S

CACHE = ("__alloc_frozen_pages_noprof+0x1/0x2\nfolio_alloc_noprof+0x1/0x2\n"
         "page_cache_ra_unbounded+0x1/0x2\nfilemap_fault+0x1/0x2")
ANON = "vma_alloc_folio_noprof+0x1/0x2\nalloc_anon_folio+0x1/0x2\ndo_anonymous_page+0x1/0x2"
PIPE = "alloc_pages_noprof+0x1/0x2\nanon_pipe_write+0x1/0x2\nvfs_write+0x1/0x2"
DENTRY = "allocate_slab+0x1/0x2\n__d_alloc+0x1/0x2\nd_alloc_parallel+0x1/0x2"

HOSTILE = "[bold]x[/] \x1b[2J\n\u202e"

# stack, task (comm, tgid, pid), memcg, order
KINDS = (
    (CACHE, ("cc1", 100, 100), "/build.slice", 0),
    (CACHE, ("tar", 200, 200), "/", 2),
    (ANON, ("cc1", 100, 101), "/build.slice", 0),
    (ANON, (HOSTILE, 300, 300), "/user.slice/\\x1b[31mevil", 0),
    (PIPE, ("leaker", 400, 400), "/user.slice/session-1.scope", 0),
    (DENTRY, ("tar", 200, 200), "/", 1),
    (None, None, None, 0),
)


def look(at: float, blocks: list[int], born: list[int] | None = None) -> Look:
    """So many blocks of each of `KINDS` at ``at`` seconds."""
    number = np.array(blocks, np.int64)
    orders = np.array([kind[3] for kind in KINDS], np.int64)
    fields = {}
    for place, name in enumerate(("stack", "task", "memcg", "order")):
        labels = list(dict.fromkeys(kind[place] for kind in KINDS))
        fields[name] = (np.array([labels.index(kind[place]) for kind in KINDS], np.int32), labels)
    return Look(START + int(at * S), fields, number << orders, number,
                np.array(born or [0] * len(KINDS), np.int64))


def series(number: int = 12, every: float = 2) -> list[Look]:
    """The pipe leaks; anonymous memory breathes, cache grows at first, dentries shrink."""
    return [look(every * n,
                 [4000 + 50 * min(n, 6), 300, 2000 + (500 if n % 3 == 0 else 0), 7, 100 + 256 * n,
                  900 - 10 * n, 3],
                 [100 if n <= 6 else 0, 0, 600, 0, 256, 0, 0])
            for n in range(number)]
