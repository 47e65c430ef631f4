"""How an owner is called of whose stack only the handle is known, its number in the stack depot."""

from __future__ import annotations

__all__ = ["handle_name", "is_handle_name"]

_NAME = "handle "


def handle_name(handle: int) -> str:
    """``handle 27000838``."""
    return f"{_NAME}{handle}"


def is_handle_name(text: str | None) -> bool:
    """Whether a label is such a name. A frame has no blank before an offset."""
    return text is not None and text.startswith(_NAME) and text[len(_NAME):].isdigit()
