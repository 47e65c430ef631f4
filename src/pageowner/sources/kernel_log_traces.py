"""What a kernel log prints of a processor around a report: a call trace, registers, modules."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["frame_of", "is_of_a_processor"]

_FRAME = re.compile(
    r"""\s*(?:\[<?[0-9a-f]{8,16}>?\]\s+){0,2}(?P<doubtful>\?\s+)?
    (?:\[<[0-9a-f]+>\]\s+)?
    (?P<frame>[A-Za-z_.$][\w.$]*\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?.{0,200}      # func+0x1/0x2 [module]
      |[A-Za-z_.$][\w.$]*\ (?:\(\S{1,200}:\d+[^()]*\)|\S{1,200}:\d+(?:\ \[inline\])?).{0,80}
      |0x[0-9a-f]{6,16})\s*$""",
    re.VERBOSE)
_ARM_FRAME = re.compile(
    r"\s*(?:\[<[0-9a-f]+>\] )?\((?P<name>[\w.$]+)\) from (?:\[<[0-9a-f]+>\] )?\(?\S+")
_ARM_NEW_FRAME = re.compile(r"\s*(?P<name>[\w.$]+) from [\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+")

_OF_A_PROCESSOR = re.compile(
    r"""\s*(?:
      (?:CPU|Pid|PID|CPUID)[:#]\s?\d+ | CPU\s+\d+:\ hi: | (?:Node\ \d+\ )?\w+\ per-cpu:
    | Call\ [Tt]race: | Backtrace: | </?(?:TASK|IRQ|NMI|SOFTIRQ|EOI|EOE|\#DF)> | Stack:
    | Hardware\ name: | Tainted: | Workqueue: | SCHED_\w+ | COMPACTION\ is\ disabled
    | R(?:IP|SP|AX|BX|CX|DX|SI|DI|BP|8|9|1\d): | [CDEFGS]S: | CR\d: | DR\d: | EFLAGS: | E[A-D]X:
    | ESI: | Code: | ORIG_ | pstate: | lr\ : | pc\ : | sp\ : | x\d+\s?: | r\d+\s?:
    | r\d+:[0-9a-f]+ | NIP | LR | MSR: | CFAR: | GPR\d+: | LR\ \[ | NIP\ \[
    | Exception\ stack | [0-9a-f]{4}:(?:\ [0-9a-f ]{8})+ | ---\[\ end | ----*
    | Modules\ linked\ in: | \S+\ cpuset= | cpuset= | Swap\ cache\ stats: | Memory\ cgroup\ min
    | unreferenced\ | Purging\ GPU\ memory | oom_reaper: | \ *[A-Z]{2,4}:\ [0-9a-f]{8,16}\b
    | syscall\ at | User\ address | ---\[\ interrupt | ---\ interrupt
    )""",
    re.VERBOSE)


_KEPT = 1 << 14
"""Lines whose meaning is kept: those of a call trace come again in each report."""


@lru_cache(_KEPT)
def frame_of(text: str) -> str | None:
    """A line of a call trace as page owner would print the frame, ``func+0x1f/0x90 [module]``;
    "" for one of which the unwinder is not sure, and None if the line is no frame."""
    if arm := _ARM_FRAME.match(text) or _ARM_NEW_FRAME.match(text):
        return arm["name"]
    found = _FRAME.match(text)
    if found is None:
        return None
    return "" if found["doubtful"] else found["frame"].strip()


@lru_cache(_KEPT)
def is_of_a_processor(text: str) -> bool:
    """Whether the line tells of registers, modules and the like, and not of memory."""
    return _OF_A_PROCESSOR.match(text) is not None
