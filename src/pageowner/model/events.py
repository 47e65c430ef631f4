"""The events that captures are made of when they happen: ``record --on``, ``--at EVENT``."""

from __future__ import annotations

__all__ = ["EVENTS"]

EVENTS = ("oom", "near", "psi", "low", "order", "growth")
"""``near``: memory was about to be gone, which may have been averted."""
