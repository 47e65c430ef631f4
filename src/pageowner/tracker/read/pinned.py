"""What is pinned while tracking is on, opened: descriptors and facts, without NumPy."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pageowner.errors import PageownerError
from pageowner.model.hook_states import NESTED, WAITING
from pageowner.system.closing import Closing
from pageowner.tracker.load import pins
from pageowner.tracker.load.compiled import identity
from pageowner.tracker.load.libbpf import BpfError, Libbpf, LibbpfMissing, libbpf
from pageowner.tracker.read.records import SPARES_PIN

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CONFIG_BYTES", "ENDED", "FIRST_PINS", "Pinned", "open_pinned"]

CONFIG_BYTES = 16384
"""Of the map with the facts."""

_TRIES, _PAUSE = 100, 0.002
_LOCK_SECONDS = 60

FIRST_PINS = {f"mm_page_{kind}{NESTED}": f"on_{kind}" for kind in ("alloc", "free")}
"""By name of a second program's hook: the pin of the first (tracker/waiting.py)."""

_OTHER = ("tracking was started by another version of pageowner, whose records this one cannot"
          " read; use that version, or restart tracking: sudo pageowner off, then on")

ENDED = "tracking was turned off while it was being read; start it with: sudo pageowner on"

_ROOTS = "reading the tracker's maps needs root; run with sudo"


class Pinned(Closing):
    """The tracker's maps and programs by name, and its ``facts``, which are those of `maps.Store`.
    """

    def __init__(self, bpf: Libbpf, directory: str, fds: dict[str, int] | None = None,
                 facts: dict[str, Any] | None = None, folder: int | None = None) -> None:
        """From pins, in a directory and ``folder``, its descriptor, or of a tracker that is not
        pinned: from its file descriptors and facts. The descriptors are then owned here."""
        self.bpf = bpf
        self.directory = directory
        self._folder = folder
        self.pins = directory if folder is None else f"/proc/self/fd/{folder}"
        self._fds: dict[str, int] = fds or {}
        if facts is None:
            try:
                _, facts = self._written_facts()
            except PageownerError:
                os.close(self._fds.pop("config"))
                raise
            if facts.get("object") != identity():
                os.close(self._fds.pop("config"))
                raise PageownerError(_OTHER)
        self.facts: dict[str, Any] = facts
        self.span_shift = int(self.facts["span_shift"])
        self.depth = int(self.facts["depth"])
        self.spares = int(self.facts.get("spares", 0))
        self.span_count = int(self.facts.get("spans", 1 << 32))

    def close(self) -> None:
        """Let go of the file descriptors; arrays taken before stay good."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def fd(self, name: str) -> int:
        """File descriptor of something pinned; closed with this."""
        if name not in self._fds:
            self._fds[name] = self._pinned(name)
        return self._fds[name]

    def _pinned(self, name: str) -> int:
        try:
            return self.bpf.get(f"{self.pins}/{name}", f"{self.directory}/{name}")
        except BpfError as error:
            if error.errno != errno.ENOENT or "config" not in self._fds:
                raise
            raise PageownerError(ENDED) from error

    def _refresh(self) -> bytes:
        """Take over what another process has covered since; the facts as they are written."""
        if not self.directory:
            return b""
        raw, facts = self._written_facts()
        self.facts.update(facts)
        return raw

    def _written_facts(self) -> tuple[bytes, dict[str, Any]]:
        """The facts as they are written, and what that says. The kernel copies a value while
        another process may be writing it: what is the same twice is whole."""
        before: bytes | None = None
        for _ in range(_TRIES):
            raw = self.bpf.lookup(self.fd("config"), bytes(4), CONFIG_BYTES) or b""
            if raw == before:
                with suppress(ValueError):
                    return raw, json.loads(raw.rstrip(b"\0") or b"{}")
                time.sleep(_PAUSE)  # whoever writes may stand still
            before = raw
        raise PageownerError("what the tracker says of itself cannot be read; try again, and if"
                             " that does not help, restart tracking: sudo pageowner off, then on")

    def check_on(self) -> None:
        """Raises PageownerError if tracking was turned off since this was opened: what it says
        stands still since then, and is not the truth any more."""
        if not self.directory:
            return
        try:
            folder = pins.open_folder(self.directory)
            try:
                now = self.bpf.get(f"/proc/self/fd/{folder}/config")
            finally:
                os.close(folder)
        except OSError as error:
            raise PageownerError(ENDED) from error
        try:
            if self.bpf.map_info(now).id != self.bpf.map_info(self.fd("config")).id:
                raise PageownerError(ENDED)
        finally:
            os.close(now)

    def claims(self) -> list[int]:
        """What each spare span has become, as the map has it (`records.SPARES_PIN`)."""
        if not self.spares:
            return []
        raw = self.bpf.lookup(self.fd(SPARES_PIN), bytes(4), 4 * self.spares) or b""
        return list(memoryview(raw).cast("I"))

    def waiting(self) -> list[str]:
        """The hooks of the second programs that are not attached (tracker/waiting.py)."""
        states = self.facts.get("hooks", {})
        return [hook for hook in FIRST_PINS if states.get(hook) == WAITING]

    def left_out(self) -> list[str]:
        """Those of them of whose kind the kernel has left out a run, the first program being busy.
        """
        return [hook for hook in self.waiting()
                if self.bpf.program_info(self.fd(FIRST_PINS[hook])).recursion_misses]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The table of questions is one for all processes: two that ask at once would read each
        other's answers. The lock is on the directory of the pins and ends with its holder; one that
        is stopped (Ctrl-Z) keeps it. Raises PageownerError after a minute."""
        try:
            lock = os.open(self.pins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            # not pinned, or no longer: one reader
            yield
            return
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise PageownerError(
                        "another pageowner has been asking the kernel about pages for a minute, and"
                        f" may be stopped; find it with: lsof {self.directory}")
                time.sleep(_PAUSE)  # who holds it does so for milliseconds, again and again
            yield
        finally:
            os.close(lock)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_Kind = TypeVar("_Kind", bound=Pinned)


def open_pinned(kind: type[_Kind], directory: str = pins.PIN_DIRECTORY) -> _Kind:
    """The running tracker as this kind of `Pinned`.

    Raises PageownerError if tracking is off, was turned on by another version, this process may
    not open the maps, or libbpf is not installed.
    """
    try:
        bpf = libbpf()
        folder = pins.open_folder(directory)
        try:
            return kind(bpf, directory, folder=folder)
        except BaseException:
            os.close(folder)
            raise
    except LibbpfMissing as error:
        raise PageownerError(str(error) if os.geteuid() == 0 else _ROOTS) from error
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise PageownerError(
                "tracking is off; start it with: sudo pageowner on"
            ) from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PageownerError(_ROOTS) from error
        raise PageownerError(f"cannot read the tracker's maps: {error}") from error
