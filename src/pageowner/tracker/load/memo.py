"""The memo of stacks (memo.bpf.h): whether this kernel allows it, how large it is, what it did.

docs/memo.md explains it.
"""

from __future__ import annotations

import mmap
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pageowner.tracker.read.layout import HOOKS, MEMO_COUNTERS
from pageowner.tracker.read.maps import hot, per_cpu, possible_cpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel.symbol_text import Lines
    from pageowner.tracker.load.libbpf import Libbpf, Object

__all__ = ["MAPS", "MEMO_COUNTERS", "READING", "REASONS", "Plan", "plan", "read_counters",
           "sets_for"]

MAPS = ("memo_states", "memo_chains", "memo_frames", "memo_difference")
"""The memo's maps, which are pinned with the tracker's."""

REASONS = MEMO_COUNTERS[MEMO_COUNTERS.index("other_stack"):]
"""Counters of stacks that were unwound and could not be remembered."""

WAYS = 16
_TAGS = 4 * WAYS
READING = (1, 2, 0)
"""How programs may read the stack (enum reading), the cheapest first."""

_CHAIN_HEAD = 16 + 8 * 24
_BYTES_A_CPU = 1 << 20
_BYTES_IN_ALL = 64 << 20
_FRAMES = 1 << 14
HOOKS_THAT_RECOGNISE = HOOKS.index("nested_alloc")
"""The first ones (MEMO_HOOKS in records.h)."""

_MOST_PADDING = 16

_ANCHORS = ("do_syscall_64", "do_int80_emulation", "do_int80_syscall_32", "__do_fast_syscall_32")
"""Functions with add_random_kstack_offset() (arch/x86/entry/common.c, from 6.16 syscall_32.c and
syscall_64.c), whose frame ends at the registers of userspace, on top of the stack."""

_TRAMPOLINES = ("return_to_handler", "arch_rethook_trampoline", "__kretprobe_trampoline")
_ENTRY = ("__entry_text_start", "__entry_text_end")
_FRED = ("asm_fred_entrypoint_user", "asm_fred_entrypoint_kernel")
"""The first and the last of FRED's entries, which lie one behind the other
(arch/x86/entry/entry_64_fred.S, 6.9), on a CPU with FRED in place of all others."""



@dataclass(frozen=True)
class Plan:
    """How the memo is set up: parameters of the programs, sizes of its maps; ``why_not``
    if it stays off."""

    why_not: str = ""
    values: dict[str, int] = field(default_factory=dict)
    sets: int = 1
    frames: int = 1


NOT_ON_ARM64 = ("on arm64 comparing what the frame pointers lead to costs as much as"
                " the kernel's unwinder")
"""Tried in guests of 6.12: walking and comparing took 3,682 instructions a page fault, unwinding
each time 3,426 (docs/memo.md)."""


def set_bytes(depth: int) -> int:
    """Bytes of a set of chains of at most ``depth`` frames and one of the tracing's (struct
    memo_chain)."""
    return _TAGS + WAYS * (_CHAIN_HEAD + 8 * (depth + 1))


def sets_for(depth: int, cpus: int) -> int:
    """How many sets each CPU has: at most 1 MiB of them, and 64 MiB over all CPUs; but 32 sets
    at least. A power of two."""
    room = min(_BYTES_A_CPU, _BYTES_IN_ALL // cpus) // set_bytes(depth)
    return max(32, 1 << max(0, room.bit_length() - 1))


def plan(bpf: Libbpf, measure: Object | None, reading: int, depth: int, check: float,
         kallsyms: Lines) -> Plan:
    """What the memo needs to know of this kernel, or why it stays off.

    ``measure`` is a loaded object with the program measure_stack, ``reading`` how the verifier
    let it read the stack (`READING`); ``check`` the fraction of hits that are unwound too.
    """
    if platform.machine() == "aarch64":
        return Plan(NOT_ON_ARM64)
    if platform.machine() != "x86_64":
        return Plan(f"it is built for x86-64, not for {platform.machine()}")
    if not any(True for _ in kallsyms.starting("__orc_find", "orc_find", "__start_orc_unwind")):
        return Plan("this kernel does not use the ORC unwinder (CONFIG_UNWINDER_ORC)")
    lines = kallsyms.named(*_ANCHORS, *_TRAMPOLINES, *_ENTRY, *_FRED)
    symbols = {name: line.address for name, line in lines.items()}
    if not all(symbols.get(name) for name in _ENTRY):
        return Plan("the bounds of the entry code are not in /proc/kallsyms")
    size, padding = stack_size(bpf, measure) if measure is not None else (0, 0)
    if not size:
        return Plan("the size of kernel stacks could not be measured")
    ends = {name: kallsyms.end_of(lines[name]) for name in _ANCHORS if name in lines}
    fred = kallsyms.end_of(lines[_FRED[1]]) if all(symbols.get(name) for name in _FRED) else 0
    if not all(ends.values()):
        return Plan("/proc/kallsyms does not show where functions of the entry code end")
    trampolines = [symbols[name] for name in _TRAMPOLINES if name in symbols][:2]
    return Plan(
        values={
            "memo": 1,
            "reading": reading,
            "thread_size": size,
            "stack_padding": padding,
            "memo_mask": sets_for(depth, possible_cpus()) - 1,
            "check_every": round(1 / check) if check else 0,
            "entry_text": symbols[_ENTRY[0]],
            "entry_text_end": symbols[_ENTRY[1]],
            "fred_text": symbols[_FRED[0]] if fred else 0,
            "fred_text_end": fred,
            "anchors": _array([edge for name, end in ends.items()
                               for edge in (symbols[name], end)]),
            "trampolines": _array(trampolines),
        },
        sets=sets_for(depth, possible_cpus()),
        frames=_FRAMES,
    )


def stack_size(bpf: Libbpf, measure: Object) -> tuple[int, int]:
    """THREAD_SIZE and what it leaves free above the registers of userspace, in bytes; 0, 0 if the
    kernel does not say.

    Measured from where the stack of this task begins to the end of those registers
    (task_pt_regs in arch/x86/include/asm/processor.h), and rounded up to a page: above them are
    TOP_OF_KERNEL_STACK_PADDING bytes, 16 with CONFIG_X86_FRED (arch/x86/include/asm/thread_info.h,
    6.9), else none.
    """
    bpf.run(measure.program_fd("measure_stack"), 0)
    measured = _states(bpf, measure.map_fd("memo_states"), 0)
    stack, registers = measured[:, :2].max(axis=0).tolist()
    size = int(registers) + bpf.type_size("pt_regs") - int(stack)
    return stack_of(int(stack), size)


def stack_of(stack: int, size: int) -> tuple[int, int]:
    """The same from the address where a stack begins and how far the registers reach."""
    rounded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    good = stack and rounded in (8192, 16384, 32768, 65536) and rounded - size <= _MOST_PADDING
    return (rounded, rounded - size) if good else (0, 0)


def read_counters(bpf: Libbpf, states: int, counters: int) -> dict[str, int]:
    """The memo's counters (`MEMO_COUNTERS`), over all hooks and CPUs; the maps memo_states, and
    counters, which has the hits and checks."""
    total = sum(_states(bpf, states, hook).sum(axis=0) for hook in range(HOOKS_THAT_RECOGNISE))
    named = dict(zip(MEMO_COUNTERS, np.asarray(total).tolist(), strict=True))
    at_hand = hot(bpf, counters)
    return {**named, **{name: int(at_hand[name].sum()) for name in ("hits", "checks")}}


def _array(values: list[int]) -> int:
    """An array of u64 as the one number that has its bytes."""
    return int.from_bytes(np.array(values, "u8").tobytes(), "little")


def _states(bpf: Libbpf, fd: int, hook: int) -> NDArray[np.uint64]:
    """The counters in struct memo_state, after two words: one row for each CPU."""
    return per_cpu(bpf, fd, hook)[:, 2 : 2 + len(MEMO_COUNTERS)]
