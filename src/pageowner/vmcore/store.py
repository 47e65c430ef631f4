"""The tracker's maps in a vmcore, as `tracker.read.maps.Store` has those of the running tracker."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset
from pageowner.model.tracking import Hook
from pageowner.tracker.load.compiled import identity
from pageowner.tracker.read.maps import QUESTION, Span, Store
from pageowner.tracker.read.pinned import CONFIG_BYTES
from pageowner.tracker.read.records import SPARES_PIN
from pageowner.vmcore import bpf_maps
from pageowner.vmcore.pins import pins
from pageowner.vmcore.structs import value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.vmcore.memory import Vmcore
    from pageowner.vmcore.page_structs import VmcoreFrames

__all__ = ["VmcoreStore"]

_OTHER = ("its tracking was started by another version of pageowner, whose records this one cannot"
          " read; use that version")
_DAMAGED = "the facts of 'pageowner on' in it are damaged"
_MOST_SHIFT = 30
_NUMBERS = {"span_shift": (0, _MOST_SHIFT), "depth": (1, 64), "spans": (1, 1 << 31),
            "spares": (0, 64)}


class _NoKernel:
    """In the place of libbpf, which asks the running kernel."""

    def __getattr__(self, name: str) -> Any:
        raise PageownerError(f"a vmcore cannot be asked for this ({name})")


class VmcoreStore(Store):
    """Everything that the tracker knew when the memory was dumped."""

    def __init__(self, memory: Vmcore, frames: VmcoreFrames) -> None:
        """Raises PageownerError if it was not at work, or was another version's."""
        self._memory, self._frames = memory, frames
        self._pins = pins(memory)
        facts = _facts(memory, self._pins["config"])
        no_kernel: Libbpf = _NoKernel()  # type: ignore[assignment]
        super().__init__(no_kernel, "", {}, facts)

    def _map(self, name: str) -> bpf_maps.BpfMap:
        if name not in self._pins:
            raise PageownerError(f"the tracker's map {name} is not in it")
        return bpf_maps.open_map(self._memory, self._pins[name])

    def _array(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        found: NDArray[Any] = bpf_maps.array(self._memory, self._map(name), dtype)
        return found

    def claims(self) -> list[int]:
        """What each spare span has become."""
        if not self.spares:
            return []
        found = bpf_maps.array(self._memory, self._map(SPARES_PIN), np.dtype("<u4"))
        return [int(claim) for claim in found[:self.spares]]

    def _spans(self, name: str, dtype: np.dtype[Any], write: bool = False) -> list[Span]:
        spans: dict[int, Span] = {}
        taken = self.taken_spares()
        for key, address in bpf_maps.inner_maps(self._memory, self._map(name)).items():
            number = key if key < self.span_count else taken.get(key - self.span_count, -1)
            if number >= 0 and number not in spans:
                spans[number] = Span(number << self.span_shift,
                                     partial(self._inner, address, dtype))
        return sorted(spans.values(), key=lambda span: span.first)

    def _inner(self, address: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        of = bpf_maps.open_map(self._memory, address)
        if of.max_entries != 1 << self.span_shift:
            raise PageownerError("a map of the tracker's records in it is damaged")
        found: NDArray[Any] = bpf_maps.array(self._memory, of, dtype)
        return found

    def _on_each_cpu(self, name: str) -> NDArray[np.uint64]:
        return bpf_maps.per_cpu_array(self._memory, self._map(name))

    def entries(self, name: str, key_size: int, value_size: int, most: int) -> list[bytes]:
        """Keys, each with its value behind it, of a hash map."""
        of = self._map(name)
        if (of.key_size, of.value_size) != (key_size, value_size):
            raise PageownerError(f"the tracker's map {name} in it is damaged")
        return bpf_maps.entries(self._memory, of)[:most]

    def hooks(self) -> list[Hook]:
        """The attached programs, and for how many events each was too busy."""
        found: list[Hook] = []
        misses = offset(self._memory.types, "bpf_prog_stats", "misses")
        for pin in sorted(name for name in self._pins if name.startswith("link_")):
            link = self._pins[pin]
            program = value(self._memory, link, "bpf_link", "prog")
            number = value(self._memory, value(self._memory, program, "bpf_prog", "aux"),
                           "bpf_prog_aux", "id")
            stats = value(self._memory, program, "bpf_prog", "stats")
            missed = bpf_maps.on_each_cpu(self._memory, stats + misses, 8).sum()
            found.append(Hook(pin.removeprefix("link_"), number,
                              value(self._memory, link, "bpf_link", "id"), int(missed)))
        return found

    def unseen_frees(self) -> tuple[int | None, int | None]:
        """Not known: the kernel's own count is not read."""
        return None, None

    def _ask(self, program: str, pfns: NDArray[np.uint64], *more: int) -> NDArray[np.void]:
        if program != "look":
            raise PageownerError(f"a vmcore cannot be asked to {program}")
        answers = np.zeros(len(pfns), QUESTION)
        answers["pfn"] = pfns
        answers["flags"], answers["refcount"], answers["type"] = self._frames.look(pfns)
        return answers

    def settle(self, first: int, chosen: NDArray[np.bool_], mark: bool = False) -> None:
        """Nothing can be settled any more."""

    def span_numbers(self) -> set[int]:
        """The spans that there are."""
        return {span.first >> self.span_shift for span in self.spans}

    def _keys(self, more: Iterable[int]) -> Any:
        raise PageownerError("a vmcore has no descriptors of maps")


def _facts(memory: Vmcore, address: int) -> dict[str, Any]:
    of = bpf_maps.open_map(memory, address)
    if of.value_size != CONFIG_BYTES:
        raise PageownerError(_OTHER)
    raw = bpf_maps.array(memory, of, np.dtype("u1")).tobytes()
    try:
        facts = json.loads(raw.rstrip(b"\0") or b"{}")
    except (ValueError, RecursionError) as error:
        raise PageownerError(_DAMAGED) from error
    if not isinstance(facts, dict) or facts.get("object") != identity():
        raise PageownerError(_OTHER)
    numbers = all(isinstance(facts.get(name), int) and low <= facts[name] <= high
                  for name, (low, high) in _NUMBERS.items())
    ranges = facts.get("ranges")
    if not numbers or not isinstance(facts.get("options"), dict) or not isinstance(
            ranges, list) or not all(_is_range(item) for item in ranges):
        raise PageownerError(_DAMAGED)
    facts["options"].setdefault("free_side", False)
    return facts


def _is_range(item: object) -> bool:
    return (isinstance(item, list) and len(item) == 2 and all(
        isinstance(end, int) and 0 <= end < 1 << 52 for end in item))
