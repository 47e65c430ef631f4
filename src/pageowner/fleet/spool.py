"""What could not be sent yet, on this machine's disk: bounded, sent again in the order it came.

Beside it is what the pusher remembers of a store: which stacks it has sent, and how far this
machine's clock is ahead of the store's.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.fleet import layout
from pageowner.storage.whole_file import whole_file
from pageowner.system.safe_path import why_not_own

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Memory", "Spool", "default_folder"]

_REMEMBERED_S = 86400.0
"""Then all stacks are sent again: the store may have lost what was sent."""
_MOST_STACKS = 100_000


def default_folder() -> Path:
    """Below XDG_STATE_HOME if that is set, else /var/lib for root, ~/.local/state for others."""
    state = os.environ.get("XDG_STATE_HOME") or (
        "/var/lib" if os.geteuid() == 0 else os.path.expanduser("~/.local/state"))
    return Path(state, "pageowner", "fleet")


@dataclass
class Memory:
    """``stacks`` that were sent since ``since`` (seconds since 1970); ``clock_ahead_s``, compared
    last at ``compared``."""

    stacks: set[int] = field(default_factory=set)
    since: float = 0.0
    clock_ahead_s: float | None = None
    compared: float = 0.0


class Spool:
    """Of one store. ``limit``: bytes that may wait."""

    def __init__(self, folder: Path, place: str, limit: int) -> None:
        self.folder = folder / blake2b(place.encode(), digest_size=8).hexdigest()
        self._limit = limit

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other pushers of this machine out while this one sends.

        Raises PageownerError if the folder cannot be made, or another user could change it.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PageownerError(f"{self.folder}: cannot make the spool: {error.strerror}; choose"
                                 " another directory with --spool") from error
        try:
            if why := why_not_own(handle, sticky=False):
                raise PageownerError(f"{self.folder}: refusing to spool there: it {why}; choose"
                                     " another directory with --spool")
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def add(self, path: str, content: bytes) -> int:
        """Keep an object until it can be sent; returns how many captures had to be dropped for
        it, the oldest first."""
        waiting = self.waiting()
        # after what waits already, even if the clock was set back
        number = max(time.time_ns(), int(waiting[-1][:20]) + 1 if waiting else 0)
        name = f"{number:020}.{path.replace('/', '%')}"
        with whole_file(self.folder / name) as file:
            file.write(content)
        waiting = self.waiting()
        sizes = {waits: (self.folder / waits).stat().st_size for waits in waiting}
        dropped, left = 0, sum(sizes.values())
        for waits in waiting[:-1]:
            if left <= self._limit:
                break
            (self.folder / waits).unlink(missing_ok=True)
            left -= sizes[waits]
            dropped += self.path(waits).startswith(layout.INCOMING + "/")
        return dropped

    def waiting(self) -> list[str]:
        """The names of what waits, oldest first."""
        return sorted(name for name in os.listdir(self.folder)
                      if name[:20].isdigit() and name[20:21] == ".")

    @staticmethod
    def path(name: str) -> str:
        """The path in the store of what waits under a name."""
        return name[21:].replace("%", "/")

    def content(self, name: str) -> bytes:
        """What waits under a name."""
        return (self.folder / name).read_bytes()

    def sent(self, name: str) -> None:
        """Forget what was sent."""
        (self.folder / name).unlink(missing_ok=True)

    def remembered(self) -> Memory:
        """What is known of the store; nothing after a day."""
        memory = Memory(since=time.time())
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads((self.folder / "memory.json").read_bytes())
            if 0 <= time.time() - float(found["since"]) < _REMEMBERED_S:
                memory.since, memory.stacks = float(found["since"]), set(map(int, found["stacks"]))
            ahead = found["clock_ahead_s"]
            memory.clock_ahead_s = None if ahead is None else float(ahead)
            memory.compared = float(found["compared"])
        return memory

    def remember(self, memory: Memory) -> None:
        """Write it down."""
        with whole_file(self.folder / "memory.json") as file:
            file.write(json.dumps({
                "since": memory.since, "stacks": sorted(memory.stacks)[:_MOST_STACKS],
                "clock_ahead_s": memory.clock_ahead_s, "compared": memory.compared}).encode())
