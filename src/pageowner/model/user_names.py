"""How an owner is called that has no stack, by its state and by who has its pages now."""

from __future__ import annotations

__all__ = ["is_user_name", "user_name", "user_of"]

_STATES = ("early", "untracked", "owned")


def user_name(state: str, user: str) -> str:
    """``early: slab dentry``."""
    return f"{state}: {user}"


def is_user_name(text: str | None) -> bool:
    """Whether a label is such a name. No frame of a stack has a colon and a blank."""
    return text is not None and text.partition(": ")[0] in _STATES and ": " in text


def user_of(text: str) -> tuple[str, str]:
    """The state and the user of such a name."""
    state, _, user = text.partition(": ")
    return state, user
