"""The values of BPF maps, out of a kernel's memory.

include/linux/bpf.h (struct bpf_map, struct bpf_array) and kernel/bpf/arraymap.c of 5.13 to 7.3: an
array's values lie one after another, each of ``elem_size`` bytes; those of an array of maps are
pointers to them, of a per-CPU array the offsets of each CPU's part. kernel/bpf/hashtab.c: buckets
with a list each; its end is an odd number (hlist_nulls). A value follows its key at a multiple
of 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset, symbol, word
from pageowner.vmcore.structs import place, value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["BpfMap", "array", "cpus", "entries", "inner_maps", "on_each_cpu", "open_map"]

_MOST_BYTES = 1 << 36
_MOST_CPUS = 8192


@dataclass(frozen=True)
class BpfMap:
    """A struct bpf_map; sizes in bytes."""

    address: int
    key_size: int
    value_size: int
    max_entries: int


def open_map(memory: Vmcore, address: int) -> BpfMap:
    """The map at an address. Raises PageownerError if it has sizes that no map has."""
    sizes = [value(memory, address, "bpf_map", name)
             for name in ("key_size", "value_size", "max_entries")]
    found = BpfMap(address, *sizes)
    if not 0 < found.value_size * found.max_entries <= _MOST_BYTES or found.key_size > 1 << 16:
        raise PageownerError(f"the BPF map at {address:#x} is damaged")
    return found


def array(memory: Vmcore, of: BpfMap, kind: np.dtype[Any]) -> NDArray[Any]:
    """All values of an array; zeros for what is not in the dump (`Vmcore.missing` counts it).
    Raises PageownerError if they are of another size."""
    each = (of.value_size + 7) // 8 * 8
    count, rest = divmod(of.max_entries * of.value_size, kind.itemsize)
    if each != of.value_size or rest:
        raise PageownerError(f"the values of the BPF map at {of.address:#x} have {of.value_size}"
                             f" bytes, not {kind.itemsize}")
    raw, _ = memory.fill(place(memory, of.address, "bpf_array", "value"), count * kind.itemsize)
    return raw.view(kind)


def inner_maps(memory: Vmcore, of: BpfMap) -> dict[int, int]:
    """The maps in an array of maps: address by key."""
    raw, _ = memory.fill(place(memory, of.address, "bpf_array", "ptrs"), 8 * of.max_entries)
    pointers = raw.view("<u8")
    return {int(key): int(pointers[key]) for key in np.flatnonzero(pointers)}


def cpus(memory: Vmcore) -> NDArray[np.uint64]:
    """What is added to a per-CPU offset for each CPU that there may be."""
    count = word(memory, symbol(memory, "nr_cpu_ids"), "<u4")
    if not 0 < count <= _MOST_CPUS:
        raise PageownerError(f"the kernel would have {count} CPUs: it is damaged")
    bits, _ = memory.fill(symbol(memory, "__cpu_possible_mask"), -(-count // 64) * 8)
    offsets, _ = memory.fill(symbol(memory, "__per_cpu_offset"), 8 * count)
    possible = np.unpackbits(bits, bitorder="little")[:count] != 0
    found: NDArray[np.uint64] = offsets.view("<u8")[possible]
    return found


def on_each_cpu(memory: Vmcore, at: int, size: int) -> NDArray[np.uint64]:
    """What a per-CPU pointer points to, as words: a row for each CPU."""
    rows = [memory.fill((at + int(base)) % (1 << 64), (size + 7) // 8 * 8)[0].view("<u8")
            for base in cpus(memory)]
    return np.stack(rows) if rows else np.zeros((0, (size + 7) // 8), np.uint64)


def per_cpu_array(memory: Vmcore, of: BpfMap, key: int = 0) -> NDArray[np.uint64]:
    """A value of a per-CPU array, as words: a row for each CPU."""
    at = word(memory, place(memory, of.address, "bpf_array", "pptrs") + 8 * key)
    return on_each_cpu(memory, at, of.value_size)


def entries(memory: Vmcore, of: BpfMap) -> list[bytes]:
    """Keys and values of a hash map, in no order. Raises PageownerError."""
    buckets = value(memory, of.address, "bpf_htab", "n_buckets")
    size = memory.types.size("bucket")
    if not size or not 0 < buckets <= 1 << 26:
        raise PageownerError(f"the BPF map at {of.address:#x} is damaged")
    first = value(memory, of.address, "bpf_htab", "buckets") + offset(
        memory.types, "bucket", "head")
    heads, _ = memory.copy(np.uint64(first) + np.arange(buckets, dtype=np.uint64)
                           * np.uint64(size), 8)
    left = heads.view("<u8").ravel()
    at = offset(memory.types, "htab_elem", "key")
    padded = (of.key_size + 7) // 8 * 8
    found: list[bytes] = []
    while len(left := left[(left & np.uint64(1) == 0) & (left != 0)]):
        if len(found) > of.max_entries:
            raise PageownerError(f"the BPF map at {of.address:#x} is damaged")
        raw, good = memory.copy(left, at + padded + of.value_size)
        found += [row[at:at + of.key_size].tobytes() + row[at + padded:].tobytes()
                  for row in raw[good]]
        left = np.ascontiguousarray(raw[good][:, :8]).view("<u8").ravel()
    return found
