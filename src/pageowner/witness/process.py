"""The process that waits for memory to be short, and captures it: ``python -m
pageowner.witness.process``, started by `record` with the folder open.

All that a capture takes is there before: modules are imported and buffers filled by a first look,
then this process's memory is locked, the OOM killer told to take others, and its own use bounded. A
capture is a look by stack and task, which takes tenths of a second and a few MiB.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from pageowner.analysis.look_sums import FIELDS, grown, sums_by_stack, sums_of_look
from pageowner.analysis.subsystems import short_stack
from pageowner.errors import PageownerError
from pageowner.report.text import age, printable, size
from pageowner.sources.source import read as read_source
from pageowner.storage import witnessed
from pageowner.storage.witnessed import Event
from pageowner.system.believed_time import BelievedTime
from pageowner.system.child_process import end_with
from pageowner.system.this_machine import here_and_now
from pageowner.witness.conditions import Conditions, parse
from pageowner.witness.limits import Limits
from pageowner.witness.signs import KernelLog, Memory, Pressure, Sign, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.model.snapshot import Snapshot
    from pageowner.tracker.read.live import LiveReader

__all__ = ["LiveLook", "Witness", "main"]

# include/uapi/asm-generic/mman.h; of what is mapped, what is in use is locked: the libraries' code
# alone would be a hundred MiB
_MCL_CURRENT, _MCL_ONFAULT = 1, 4
_BOUND = 512 << 20
_BEFORE_S = 60.0
"""A capture from so long before a kill shows what led to it."""
_LOOKS = 6
_MOST_GROWN = 3
_TIDY_S, _FIRST_TIDY_S = 3600.0, 600.0
_IDLE_S = 10.0


class Witness:
    """Waits for the events that ``conditions`` names. ``look`` gives a snapshot, and pages by stack
    where there are stacks; ``folder``: an open directory; ``say`` is called with each event."""

    def __init__(self, conditions: Conditions, folder: int, keep_s: float,
                 look: Callable[[], tuple[Snapshot, dict[str | None, int]]],
                 say: Callable[[str], None]) -> None:
        """Raises PageownerError if the kernel does not tell what is asked for."""
        self.conditions, self.folder, self.keep_s = conditions, folder, keep_s
        self.look, self.say = look, say
        self.limits = Limits()
        self.memory = Memory()
        self.log = KernelLog()
        if self.log.fd is None and (conditions.oom or conditions.order is not None):
            raise PageownerError("/dev/kmsg cannot be read, which tells of kills and failed"
                                 " allocations: run as root, or without oom and order")
        self.pressure = Pressure(*conditions.psi) if conditions.psi else None
        self._poll = select.poll()
        if self.log.fd is not None:
            self._poll.register(self.log.fd, select.POLLIN)
        if self.pressure:
            self._poll.register(self.pressure.fd, select.POLLPRI)
        self._last: tuple[float, str] | None = None
        self._looks: deque[tuple[float, dict[str | None, int]]] = deque(maxlen=_LOOKS + 1)
        self._since: int | None = None  # when the tracker that they are of began
        self._time = BelievedTime(keep_s)
        # At boot a clock may be wrong until the network is there.
        self._tidied = time.monotonic() - _TIDY_S + _FIRST_TIDY_S

    def run(self, idle: Callable[[], None]) -> None:
        """For ever; ``idle`` is called every ten seconds."""
        called = time.monotonic()
        while True:
            self.step(1.0)
            if time.monotonic() - called >= _IDLE_S:
                idle()
                called = time.monotonic()

    def step(self, longest_s: float) -> None:
        """Wait for what comes next, ``longest_s`` at most, and deal with it."""
        now = time.monotonic()
        standing = self.memory.standing(now)
        self._heed(standing, now)
        wait = min(standing.next_s(self._bound(standing)), longest_s)
        pressed = False
        for fd, event in self._poll.poll(wait * 1000):
            if self.pressure is not None and fd == self.pressure.fd:
                pressed = bool(event & select.POLLPRI)
                if event & select.POLLERR:
                    self._poll.unregister(fd)
        self._hear()
        if pressed:
            assert self.conditions.psi
            stall, window = (age(part * 1000) for part in self.conditions.psi)
            self._happened("psi", f"tasks waited for memory for {stall} of {window}")
        if now - self._tidied > _TIDY_S:
            self._tidy(now)

    def _tidy(self, now: float) -> None:
        self._tidied = now
        with suppress(OSError, PageownerError):
            witnessed.forget(self.folder, self._time.now() - self.keep_s)

    def _bound(self, standing: Standing) -> float:
        low = self.conditions.low
        return max(standing.total * 0.05 if self.conditions.oom else 0.0,
                   0.0 if low is None else low if low > 1 else low * standing.total)

    def _heed(self, standing: Standing, now: float) -> None:
        """What the amount of memory says, and growth."""
        told = (f"{size(standing.available)} of {size(standing.total)} available"
                f" ({100 * standing.available / standing.total:.1f} %)")
        low = self.conditions.low
        if low is not None and standing.available < (low if low > 1 else low * standing.total):
            self._happened("low", told)
        if self.conditions.oom and standing.is_near:
            left = "" if standing.left_s is None else f", {standing.left_s:.1f} s at this rate"
            self._happened("near", f"memory is about to be gone: {told}{left}")
        if self.conditions.growth:
            self._grown(*self.conditions.growth, now)

    def _grown(self, least: int, seconds: float, now: float) -> None:
        every_s = seconds / _LOOKS
        if self._looks and now - self._looks[-1][0] < every_s:
            return
        try:
            snapshot, sums = self.look()
        except PageownerError:
            self._looks.clear()  # tracking is off for now; when it is on again, all is new
            return
        except (OSError, MemoryError):
            return
        since = snapshot.meta.extra.get("since_ns")
        if since != self._since:  # of another tracker, which may leave out what the last one had
            self._looks.clear()
            self._since = since
        self._looks.append((now, sums))
        while now - self._looks[0][0] > seconds + every_s:  # where looks took long, or failed
            self._looks.popleft()
        pages = -(-least // snapshot.meta.page_size)
        for _, before in self._looks:  # the longest ago first
            if found := grown(before, sums, pages):
                told = [("no stack" if stack is None else printable(short_stack(stack)))
                        + f": {size(more * snapshot.meta.page_size)} more"
                        for stack, more in found[:_MOST_GROWN]]
                if others := len(found) - len(told):
                    told.append(f"{others:,} others")
                if self.limits.may("growth", now, every_s):
                    self._capture("growth", f"{'; '.join(told)} within {age(seconds * 1e9)}")
                return

    def _hear(self) -> None:
        """Deal with what the kernel's log has new."""
        for sign in self.log.signs():
            self._signalled(sign)

    def _signalled(self, sign: Sign, during: tuple[float, str] | None = None) -> None:
        """What the kernel's log says: of a kill the capture from before it is kept as its own.
        ``during``: the capture that was being taken when the log had it.

        Which came first is told by reading the log before and after each capture: the log's clock
        is not the one of any other time (printk uses local_clock(), which nobody adjusts).
        """
        if sign.event == "order":
            if self.conditions.order is not None and sign.order >= self.conditions.order:
                self._happened("order", sign.text)
            return
        if not self.conditions.oom:
            return
        now = time.monotonic()
        if not self.limits.may("oom", now):
            self._tell(Event(time.time(), "oom", f"{sign.text}; not captured, so soon after"
                             " another"))
            return
        if self._last is not None and now - self._last[0] <= _BEFORE_S:
            kept, text = self._last[1], f"captured {age((now - self._last[0]) * 1e9)} before"
        elif during is not None:
            kept, text = during[1], "captured while it happened: nothing was short before"
        else:
            self._capture("oom", f"{sign.text}; captured after it: nothing was short before")
            return
        text = f"{sign.text}; {text}"
        try:
            capture = witnessed.same_again(self.folder, kept, "oom", time.time())
        except OSError as error:
            capture, text = "", f"{text}, and not kept: {error.strerror}"
        self._tell(Event(time.time(), "oom", text, capture))

    def _happened(self, event: str, text: str) -> None:
        if self.limits.may(event, time.monotonic()):
            self._capture(event, text)

    def _capture(self, event: str, text: str) -> None:
        self._hear()
        began = time.monotonic()
        capture, taken = "", None
        meanwhile: list[Sign] = []
        try:
            snapshot, _ = self.look()
            meanwhile = self.log.signs()
            snapshot.meta.extra["event"] = {"event": event, "text": text}
            capture = witnessed.add(self.folder, snapshot, event, time.time())
            taken = began, capture
        except (PageownerError, OSError, MemoryError) as error:
            text += f"; this capture is lost: {error or 'out of memory'}"
        self._tell(Event(time.time(), event, text, capture))
        for sign in meanwhile:
            self._signalled(sign, taken)
        if taken and (self._last is None or taken[0] > self._last[0]):
            self._last = taken

    def _tell(self, event: Event) -> None:
        try:
            witnessed.log(self.folder, event)
        except OSError as error:
            self.say(f"{witnessed.LOG}: {error.strerror}")
        self.say(f"{event.event}: {event.text}" + (f"; {event.capture}" if event.capture else ""))


class LiveLook:
    """Looks at this machine's tracker, opened anew if it was turned off and on."""

    def __init__(self, stack: ExitStack) -> None:
        """``stack`` has what is open, and nothing else."""
        self._stack = stack
        self._reader: LiveReader | None = None

    def __call__(self) -> tuple[Snapshot, dict[str | None, int]]:
        """Raises PageownerError where tracking is off, OSError (`BpfError`) or MemoryError where
        its maps cannot be read."""
        was_open = self._reader is not None
        try:
            return self._look()
        except (PageownerError, OSError, MemoryError):
            self._close()
            if not was_open:
                raise
            return self._look()

    def keep_up(self) -> None:
        """Keep nothing of a tracker that was turned off, since its maps are freed only then; and
        have the next one at hand, which is opened and looked at once."""
        try:
            if self._reader is not None:
                self._reader.store.check_on()
            else:
                self._look()
        except (PageownerError, OSError, MemoryError):  # the last where `prepare` bounds it
            self._close()

    def _look(self) -> tuple[Snapshot, dict[str | None, int]]:
        from pageowner.api.watch import live_reader

        if self._reader is None:
            self._reader = self._stack.enter_context(live_reader())
        found = self._reader.counts(FIELDS)
        facts = self._reader.store.facts
        about = {**here_and_now(), "page_size": os.sysconf("SC_PAGE_SIZE"), "extra": {
            "since_ns": facts.get("since_ns"), "options": facts.get("options", {})}}
        del about["clock_ns"]  # the look has its own
        return sums_of_look(found, self._reader.health.pages, about), sums_by_stack(found)

    def _close(self) -> None:
        self._reader = None
        self._stack.close()


def file_look(source: str) -> Callable[[], tuple[Snapshot, dict[str | None, int]]]:
    """Reads a file of the kernel."""
    def look() -> tuple[Snapshot, dict[str | None, int]]:
        from pageowner.analysis.owners import owners

        found = read_source(source)
        for name, value in here_and_now().items():
            if getattr(found.meta, name) is None:
                setattr(found.meta, name, value)
        table = owners(found, "stack")
        return found, dict(zip(table["stack"].to_pylist(), table["pages"].to_pylist(),
                               strict=True))

    return look


def prepare() -> str:
    """Lock this process's memory, have the OOM killer take others, and bound what it takes; what of
    it was refused, in words, else empty."""
    refused = []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_ONFAULT):
        refused.append(f"its memory is not locked ({os.strerror(ctypes.get_errno())})")
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-999")
    except OSError as error:
        refused.append(f"the OOM killer may take it ({error.strerror})")
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        data = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (data + _BOUND, data + _BOUND))
    return "; ".join(refused)


def main() -> None:
    """The words: the parent's process id, then JSON with ``folder`` (a descriptor), ``on``,
    ``keep_s`` and ``source``. Writes an empty line once it watches, or a line why it does not."""
    end_with(int(sys.argv[1]))
    words = json.loads(sys.argv[2])

    def say(text: str) -> None:
        print(printable(text), flush=True)

    with ExitStack() as stack:
        live = LiveLook(stack)
        look = live if words["source"] is None else file_look(words["source"])
        try:
            look()  # what it imports and fills is there from now on
            witness = Witness(parse(words["on"]), words["folder"], words["keep_s"], look, say)
        except (PageownerError, OSError) as error:
            say(f"cannot watch: {error}")
            sys.exit(1)
        refused = prepare()
        print(flush=True)
        if refused:
            say(f"while memory is short, {refused}")
        witness.run(live.keep_up if words["source"] is None else lambda: None)


if __name__ == "__main__":
    main()
