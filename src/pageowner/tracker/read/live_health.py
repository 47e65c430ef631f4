"""How memory and the tracker stand from look to look (`model.live.Health`).

Page flags are read for a small part of memory at each look, which goes round: what it finds stale
is a sample of what a capture would find.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import pageflags
from pageowner.model.hook_states import is_whole
from pageowner.model.live import Health, seen
from pageowner.tracker import control
from pageowner.tracker.read import reading
from pageowner.tracker.read.maps import OWNED
from pageowner.tracker.read.missed import missed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.tracker.read.maps import Store

__all__ = ["SELDOM_NS", "KeptHealth", "LiveHealth"]

_PATROL = 1 << 14
SELDOM_NS = 10 * 10**9
"""Between what is done now and then, such as to look for second programs that are needed."""
_LOST = ("out_of_range", "stacks_full", "stacks_failed", "tasks_full", "bulk_missed", "contended",
         "overwritten")


class KeptHealth:
    """Keeps ``health`` of a running tracker whose hooks the store's fact ``hooks`` names;
    ``missed``: counts the events that no program of these dealt with."""

    def __init__(self, store: Store, hooks: str, missed: Callable[[Store], int]) -> None:
        self.store = store
        self._missed = missed
        self.health = Health(since_ns=int(store.facts.get("since_ns") or 0))
        self._hooks = hooks
        self._seldom_ns = -SELDOM_NS  # at once, also right after boot
        self._events: tuple[int, int, int] | None = None

    def events(self, allocs: int, frees: int, now: int) -> None:
        """So many in all until ``now`` (ns since boot), and, now and then, how the hooks stand."""
        health = self.health
        if self._events is not None and now > self._events[0]:
            seconds = (now - self._events[0]) / 1e9
            health.allocs = (allocs - self._events[1]) / seconds
            health.frees = (frees - self._events[2]) / seconds
        self._events = now, allocs, frees
        if now - self._seldom_ns >= SELDOM_NS:
            self._seldom_ns = now
            hooks = self.store.facts.get(self._hooks, {})
            health.hooks = sum(map(is_whole, hooks.values()))
            health.all_hooks = len(hooks)
            health.missed = self._missed(self.store)
            health.memory = health.memory or self.store.memory()


class LiveHealth(KeptHealth):
    """That of pages, on a machine with so many ``managed`` ones, which may change."""

    def __init__(self, store: Store, managed: int) -> None:
        super().__init__(store, "hooks", missed)
        self.managed = managed
        self._attended_ns = -SELDOM_NS
        self._patrolled: tuple[int, int] = (0, 0)

    def attend(self) -> bool:
        """Attach second programs that turned out to be needed (`control.attend`), now and then:
        whether it was the time for that."""
        now = time.monotonic_ns()
        if not self.store.directory or now - self._attended_ns < SELDOM_NS:
            return False
        control.attend()
        self._attended_ns = now
        return True

    def account(self, pages: dict[str, int], now: int) -> None:
        """After a look at ``now`` (ns since boot) that found these ``pages`` by state, ``free``
        among them."""
        health = self.health
        free = min(pages["free"], self.managed)
        in_use = sum(pages.values()) - pages["free"]
        health.pages = {"owned": pages["owned"], "early": pages["early"],
                        "untracked": max(self.managed - free - in_use, 0), "free": free}
        for rare in ("filtered", "in_motion"):
            if pages[rare]:
                health.pages[rare] = pages[rare]
        counters = self.store.counters()
        health.lost = sum(counters[name] for name in _LOST)
        self.events(*seen(counters), now)
        self._patrol()

    def _patrol(self) -> None:
        """Check the next part of memory: a record that is the same before and after its page was
        seen in the free lists is stale, for it is cleared before the page gets there."""
        spans = self.store.spans
        for _ in range(len(spans) * max(len(spans[0].records) // _PATROL, 1)):
            number, start = self._patrolled
            span = spans[number % len(spans)]
            after = start + _PATROL
            self._patrolled = (number, after) if after < len(span.records) else (
                (number + 1) % len(spans), 0)
            part = span.records[start:after]
            at = np.flatnonzero(part["state"] == OWNED)
            if not len(at):
                continue  # costs nothing to speak of: go on to one that says something
            before = reading.whole_at(part, at)
            flags = pageflags.read(pageflags.KPAGEFLAGS, span.first + start, len(part))
            there = reading.whole_at(part, at)
            inside = at < len(flags)
            stale = pageflags.is_free(flags[at[inside]]) & (before[inside] == there[inside])
            stale &= before["state"][inside] == OWNED
            self.health.stale += int(np.count_nonzero(stale))
            self.health.checked += len(at)
            return
