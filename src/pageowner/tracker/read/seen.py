"""Which hooks have seen what they are there for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.model.hook_states import ACTIVE, ATTACHED

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SEEN_BY", "with_seen"]

SEEN_BY = {
    "mm_page_alloc": "allocs", "mm_page_alloc_nested": "nested_allocs",
    "mm_page_free": "frees", "mm_page_free_nested": "nested_frees",
    "mm_page_alloc_extfrag": "extfrag",
    "mm_migrate_pages_start": "ran_migrate_start", "mm_migrate_pages": "ran_migrate_end",
    "alloc_pages_bulk": "bulk", "folio_migrate_flags": "ran_migrate",
    "split_page": "ran_split_page", "split_folio": "ran_split_folio",
    "alloc_contig_frozen": "contig", "alloc_contig_range": "contig",
    "isolate_freepages_range": "ran_isolated", "undo_isolate_page_range": "ran_isolated",
    "make_alloc_exact": "ran_exact", "alloc_pages_exact": "ran_exact",
    "alloc_pages_exact_nid": "ran_exact",
}
"""The counter that tells whether a hook has seen something."""


def with_seen(hooks: Mapping[str, str], counters: Mapping[str, int]) -> dict[str, str]:
    """The same states (`hook_states`), ``active`` where an attached hook has seen something."""
    def seen(name: str) -> bool:
        counter = SEEN_BY.get(name, "")
        if name == "alloc_contig_range" and hooks.get("alloc_contig_frozen") == ATTACHED:
            counter = "ran_contig_around"
        return counters.get(counter, 0) > 0

    return {name: ACTIVE if state == ATTACHED and seen(name) else state
            for name, state in hooks.items()}
