"""Which hooks have seen what they are there for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.model.hook_states import ACTIVE, ATTACHED, NESTED, is_attached
from pageowner.model.hook_table import BY_NAME
from pageowner.model.object_hooks import OBJECT_HOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["objects_seen", "with_seen"]


def with_seen(hooks: Mapping[str, str], counters: Mapping[str, int]) -> dict[str, str]:
    """The same states (`hook_states`), ``active`` where an attached hook has seen something."""
    def seen(name: str) -> bool:
        hook = BY_NAME.get(name)
        if hook is None:
            return False
        around = is_attached(hooks.get(hook.around))
        return counters.get(hook.seen_around if around else hook.seen_by, 0) > 0

    return {name: ACTIVE if state == ATTACHED and seen(name) else state
            for name, state in hooks.items()}


def objects_seen(hooks: Mapping[str, str], counters: Mapping[str, int]) -> dict[str, str]:
    """The same for the hooks on objects (`object_hooks`)."""
    seen_by = {hook.name: hook.seen_by for hook in OBJECT_HOOKS}
    seen_by |= {hook.name + NESTED: hook.seen_by_second for hook in OBJECT_HOOKS}
    return {name: ACTIVE if state == ATTACHED and counters.get(seen_by.get(name, "")) else state
            for name, state in hooks.items()}
