"""What is to be known of objects beside their owners: how they were chosen, and what was missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.model.hook_states import NESTED, is_whole
from pageowner.model.object_hooks import ALLOCATED_BY, FREED_BY, OBJECT_HOOKS
from pageowner.report.text import count, count_of, printable, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pageowner.model.metadata import Metadata
    from pageowner.model.tracking import Status

__all__ = ["about_followed", "about_objects", "estimated", "missed", "started"]

_LOST = {hook.name: hook.lost for hook in OBJECT_HOOKS} | {
    hook.name + NESTED: "some of what interrupts allocate or free there is not seen"
    for hook in OBJECT_HOOKS}

_CACHES = 3

_MISSED = {
    "objects_missed": ("event", "that found the programs at work on their CPU"),
    "objects_busy": ("allocation", "while the program was at work on its CPU"),
    "objects_bulk_missed": ("object", "of very large bulks"),
    "objects_full": ("object", "that did not fit into the table"),
    "objects_stale": ("object", "left out: gone, though the free was not seen"),
    "objects_overwritten": ("free", "not seen until the place was allocated again"),
    "objects_in_motion": ("object", "being written while they were read"),
    "object_caches_full": ("object", "of caches that did not fit into the table of names"),
}


def estimated(meta: Metadata) -> str:
    """That sizes are estimates, where they are; else empty."""
    from pageowner.analysis.sampled import share  # NumPy, which `status` does without

    return "" if share(meta) == 1 else (
        f"One object in {count(share(meta))} is followed, so sizes are estimates")


def about_objects(meta: Metadata) -> list[str]:
    """Sentences on what the numbers leave out."""
    lines = []
    if text := estimated(meta):
        lines.append(f"{text}: with 95 % confidence each lies between the two given.")
    if some := meta.of_some_tasks():
        lines.append(f"Objects of others are not among them: tracking is on with {some}.")
    lines += _not_followed(meta)
    for name, state in meta.hooks.items():
        if not is_whole(state) and _LOST.get(name):
            lines.append(f"{name}: {state}; so {_LOST[name]}.")
    if lost := missed(meta.counters):
        lines.append(f"Missed: {'; '.join(lost)}.")
    return lines


def _not_followed(meta: Metadata) -> list[str]:
    """How many are not among them by the kernel's own count, and in which caches."""
    about = meta.extra.get("objects") or {}
    number = f"{'at most' if int(about.get('share', 1)) == 1 else 'about'} "
    lines = ["Objects that were there before tracking began are not among them."]
    early = about.get("early")
    if early:
        lines = [f"{lines[0][:-1]}: {number}{_most(early)}, by /proc/slabinfo."]
    if later := about.get("later"):
        by = "By it" if early else "By /proc/slabinfo"
        lines.append(f"{by} {number}{_most(later)} more are in use: allocated past the hooks, or"
                     " free in a slab that a CPU allocates from, which it counts too.")
    return lines


def _most(caches: Mapping[str, int]) -> str:
    most = sorted(caches.items(), key=lambda cache: -cache[1])[:_CACHES]
    named = ", ".join(f"{printable(name)} {count(number)}" for name, number in most)
    return f"{count(sum(caches.values()))} ({named}{', …' if len(caches) > _CACHES else ''})"


def about_followed(status: Status) -> str:
    """How many objects are followed, and what they stand for."""
    share, followed = status.objects["share"], status.objects["followed"]
    which = "all are followed" if share == 1 else f"one in {count(share)} is followed"
    stand = "" if share == 1 else (f", which stand for {count(followed * share)}"
                                   f" ({size(status.objects['bytes'] * share)})")
    born, gone = (sum(status.counters[name] for name in names)
                  for names in (ALLOCATED_BY, FREED_BY))
    return (f"{which}: {count(born)} allocated, {count(gone)} freed, {count(followed)}"
            f" in the table{stand}; room for {count(status.objects['slots'])}")


def started(status: Status) -> str:
    """What `on` says of objects."""
    share = status.objects["share"]
    which = "all objects of slabs are" if share == 1 else (
        f"one object of slabs in {count(share)} is")
    lacking = sorted(name for name, state in status.objects["hooks"].items()
                     if not is_whole(state))
    return f"{which} followed" + (
        f"; not hooked: {', '.join(lacking)} (what that means: report --objects)"
        if lacking else "")


def missed(counters: Mapping[str, int]) -> list[str]:
    """What could not be followed, an item for each kind."""
    return [f"{count_of(counters[name], noun)} {what}" for name, (noun, what) in _MISSED.items()
            if counters.get(name)]
