"""The states of a hook, as `Status.hooks` and a snapshot's ``meta.hooks`` have them.

| state | |
| --- | --- |
| ``active`` | attached, and it has seen what it is there for |
| ``attached`` | attached; nothing that it is there for has happened yet |
| ``waiting`` | loaded, and attached once it is needed; it was not so far |
| ``partly: …`` | attached, but part of what it is there for passes it by |
| ``blind: …`` | attached, but it did not see what was done on purpose for it to see |
| ``refused: …`` | the kernel does not let it be attached |
| ``missing: …`` | the kernel does not have what it would be attached to |

Snapshots from before these were told apart have ``active`` for every hook that was attached.
"""

from __future__ import annotations

__all__ = ["ACTIVE", "ATTACHED", "NESTED", "WAITING", "in_words", "is_attached", "is_whole"]

ACTIVE, ATTACHED, WAITING = "active", "attached", "waiting"

NESTED = "_nested"
"""Behind a hook's name: its second program, for the events that the first was too busy for."""


def is_attached(state: str | None) -> bool:
    """Whether a hook in this state is attached, even if part of what it is there for passes it by;
    None: there is no such hook."""
    return state is not None and (state in (ACTIVE, ATTACHED) or state.startswith("partly:"))


def is_whole(state: str) -> bool:
    """Whether nothing is known to pass by a hook in this state."""
    return state in (ACTIVE, ATTACHED, WAITING)


def in_words(state: str) -> str:
    """A state for people."""
    return {ATTACHED: "attached, not seen yet",
            WAITING: "waiting: attached once an interrupt needs it"}.get(state, state)
