"""Names for stacks that are addresses alone, from a System.map or a copy of /proc/kallsyms.

Kernels without CONFIG_KALLSYMS print addresses, and so does whoever reads a dead kernel's memory.
System.map has the addresses that the kernel was linked for; where it ran elsewhere
(CONFIG_RANDOMIZE_BASE), how far off it was is found from the innermost frames, which are those of
the page allocator.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.sources.given import SYSTEM_MAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.kernel.kallsyms import Kallsyms
    from pageowner.sources.page_owner_body import Body
    from pageowner.sources.page_owner_count import Tally
    from pageowner.sources.page_owner_parser import Raw

__all__ = ["name_frames"]

_ADDRESS = re.compile(r"0x[0-9a-f]{6,16}\Z")
_INNERMOST = (
    "post_alloc_hook", "prep_new_page", "get_page_from_freelist", "__alloc_pages",
    "__alloc_pages_noprof", "__alloc_pages_nodemask", "__alloc_frozen_pages_noprof",
    "__set_page_owner", "set_page_owner", "save_stack", "save_stack_trace", "stack_trace_save",
    "register_early_stack", "init_page_owner")
_DEEP = 3
"""Frames of a stack among which those are."""

_ALIGNMENTS = (1 << 21, 1 << 16)
"""Of where the kernel's text can be: x86 (CONFIG_PHYSICAL_ALIGN) and arm64 with large blocks, and
arm64 (arch/arm64/kernel/pi/map_kernel.c, MIN_KIMG_ALIGN)."""


def name_frames(parts: Sequence[Raw] | Sequence[Tally]) -> str | None:
    """Give names to the frames of what was read that are addresses alone, in place, if a file was
    given for that. Returns what was done, in words.

    Raises PageownerError if the file cannot be read, or names none of them.
    """
    path = SYSTEM_MAP.get()
    if path is None:
        return None
    bodies = {body for part in parts for body in _bodies(part) if body.stack}
    stacks = [(body.stack or "").split("\n") for body in bodies]
    addresses = {line for stack in stacks for line in stack if _ADDRESS.match(line)}
    if not addresses:
        return f"{path}: no frame is an address alone"
    symbols = _load(path)
    moved = _moved(symbols, stacks)
    order = sorted(addresses)
    values = [int(address, 16) - moved for address in order]
    found = symbols.resolve([value if value >= 0 else 0 for value in values])
    names = {address: name for address, name in zip(order, found, strict=True)
             if not name.startswith("0x")}
    if not names:
        raise PageownerError(f"{path}: names none of {len(addresses):,} addresses in stacks; is it"
                             " of another kernel?")
    _replace(parts, {body: body._replace(stack="\n".join(
        names.get(line, line) for line in (body.stack or "").split("\n"))) for body in bodies})
    where = f", the kernel moved by {moved:#x}" if moved else ""
    return f"{path}: {len(names):,} of {len(addresses):,} addresses have names{where}"


def _bodies(part: Raw | Tally) -> list[Body]:
    from pageowner.sources.page_owner_parser import Raw as Read

    return part.bodies if isinstance(part, Read) else [body for _, _, body in part.kinds]


def _replace(parts: Sequence[Raw] | Sequence[Tally], named: dict[Body, Body]) -> None:
    from pageowner.sources.page_owner_parser import Raw as Read

    for part in parts:
        if isinstance(part, Read):
            part.bodies[:] = [named.get(body, body) for body in part.bodies]
        else:
            part.kinds[:] = [(header, line, named.get(body, body))
                             for header, line, body in part.kinds]


def _load(path: str) -> Kallsyms:
    from pageowner.kernel import symbol_text
    from pageowner.kernel.kallsyms import Kallsyms as Symbols

    text = symbol_text.read(path)
    # of 32 bits
    text = re.sub(rb"^([0-9a-f]{8}) ", rb"00000000\1 ", text, flags=re.MULTILINE)
    return Symbols(text if text.endswith(b"\n") else text + b"\n", path)


def _moved(symbols: Kallsyms, stacks: list[list[str]]) -> int:
    """How far the kernel ran from where it was linked for, in bytes; 0 if that is not found."""
    inner = {int(line, 16) for stack in stacks for line in stack[:_DEEP] if _ADDRESS.match(line)}

    def right(by: int) -> int:
        names = symbols.resolve([value - by for value in inner if value >= by])
        return sum(name.partition("+")[0] in _INNERMOST for name in names)

    if right(0):
        return 0
    known = {name: address for name in _INNERMOST if (address := symbols.address_of(name))}
    sizes = {name: int(text.partition("/")[2].split()[0], 16) for name, text in zip(
        known, symbols.resolve(known.values()), strict=True) if "/" in text}
    for alignment in _ALIGNMENTS:
        votes: Counter[int] = Counter()
        for value in inner:
            for name, size in sizes.items():
                off = value - known[name]
                if off > 0 and off % alignment < size:
                    votes[off - off % alignment] += 1
        best = sorted(((right(by), by) for by, _ in votes.most_common(64)), reverse=True)
        if best and best[0][0] and (len(best) == 1 or best[0][0] > best[1][0]):
            return best[0][1]
    return 0
