"""Flags of tasks: include/linux/sched.h, the same from 5.15 to 7.3."""

from __future__ import annotations

__all__ = ["PF_KTHREAD"]

PF_KTHREAD = 0x00200000
"""A kernel thread. One that borrows a process's memory (kthread_use_mm) has its ``mm`` set, too."""
