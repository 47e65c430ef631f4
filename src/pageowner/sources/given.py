"""What whoever reads a dump knows of it and its text does not say."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["SYSTEM_MAP"]

SYSTEM_MAP: ContextVar[str | None] = ContextVar("system_map", default=None)
"""The file that names addresses in stacks (system_map.py)."""
