"""How tracking stands: ``pageowner status``."""

from __future__ import annotations

from dataclasses import replace

from pageowner.tracker import control
from pageowner.tracker.control import Status
from pageowner.tracker.read.maps import open_store
from pageowner.tracker.read.untracked import MOST_FRAMES, untracked

__all__ = ["status"]


def status() -> Status:
    """What is tracked, what it costs, what was missed, and, on machines with up to 64 GiB, how many
    pages are untracked now.

    Raises PageownerError if this process lacks the rights, or tracking was turned off meanwhile.
    """
    found = control.status()
    if found.on and found.frames <= MOST_FRAMES:
        with open_store() as store:
            pages, groups = untracked(store)
            store.check_on()  # what `off` leaves behind has no records
        found = replace(found, untracked=pages, unexplained=groups)
    return found
