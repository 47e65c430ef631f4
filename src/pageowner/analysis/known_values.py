"""What values of keys are called in any kernel, to be offered where one is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["VALUES", "allocators", "block_types", "gfp_flags", "memcg_states",
           "migratetypes", "states", "subsystems", "zones"]


def subsystems() -> list[str]:
    """Those that a rule names."""
    from pageowner.kernel.subsystems import RULES

    return sorted({rule.name for rule in RULES})


def zones() -> tuple[str, ...]:
    """Lowest memory first."""
    from pageowner.kernel.zones import NAMES

    return tuple(NAMES)


def migratetypes() -> tuple[str, ...]:
    """Those that a gfp mask asks for."""
    from pageowner.kernel.gfp import MIGRATETYPES

    return tuple(MIGRATETYPES)


def block_types() -> tuple[str, ...]:
    """What a pageblock can be."""
    from pageowner.kernel.gfp import BLOCK_TYPES

    return BLOCK_TYPES


def memcg_states() -> tuple[str, ...]:
    """What a cgroup that is charged can be."""
    from pageowner.kernel.cgroups import STATES

    return STATES


def allocators() -> tuple[str, ...]:
    """As ``--by allocator`` calls them."""
    from pageowner.kernel.stack_roles import ALLOCATOR_NAMES

    return tuple(ALLOCATOR_NAMES.values())


def gfp_flags() -> list[str]:
    """Flags and sets of them, without ``__GFP_`` and ``GFP_``."""
    from pageowner.kernel.gfp import known_names

    # some are both, such as __GFP_DMA and GFP_DMA
    return sorted({name.removeprefix("__GFP_").removeprefix("GFP_") for name in known_names()})


def states() -> tuple[str, ...]:
    """What a row can be."""
    from pageowner.model.metadata import STATES

    return STATES


VALUES: dict[str, Callable[[], Sequence[str]]] = {
    "subsystem": subsystems, "zone": zones, "gfp": gfp_flags, "migratetype": migratetypes,
    "state": states, "block_type": block_types, "memcg_state": memcg_states,
    "allocator": allocators}
"""By the filter that takes them."""
