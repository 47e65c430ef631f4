"""gfp masks: their names as the kernel prints them, and the migratetype that follows.

The bits of a mask move between kernel versions, so the names come from the kernel itself: the
format file of the tracepoint mm_page_alloc holds its table (include/trace/events/mmflags.h,
__def_gfpflag_names), which is also the table of ``%pGg`` (lib/vsprintf.c, format_flags). Where
there is no format file, the layouts below serve, by version.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel.release import version
from pageowner.kernel.tracefs import TRACEFS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLOCK_TYPES", "FORMAT_FILES", "MIGRATETYPES", "Contiguous", "GfpFlags", "contiguous",
           "for_release", "from_format", "known_names", "running"]

FORMAT_FILES = tuple(f"{root}/events/kmem/mm_page_alloc/format" for root in TRACEFS)

MIGRATETYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic")
"""What a mask can ask for, by index (mm/page_alloc.c, migratetype_names, since 4.4)."""

BLOCK_TYPES = (*MIGRATETYPES, "CMA", "Isolate", "Reserve")
"""What a pageblock can be (the same; Reserve until 4.3)."""


@dataclass(frozen=True)
class GfpFlags:
    """One kernel's table of names: (mask, name), in the order in which they are tried.

    ``origin`` says where the table is from.
    """

    table: tuple[tuple[int, str], ...]
    origin: str = ""

    @cached_property
    def bits(self) -> dict[str, int]:
        """The flags of one bit by name; ``GFP_DMA`` counts as ``__GFP_DMA``."""
        found: dict[str, int] = {}
        for mask, name in self.table:
            if mask.bit_count() == 1:
                long_name = name if name.startswith("__") else f"__{name}"
                if mask not in found.values():
                    found[long_name] = mask
        return found

    def decode(self, mask: int) -> str:
        """The names as ``%pGg`` prints them: ``GFP_KERNEL|__GFP_ZERO``; "" for 0.

        Names are tried in the table's order, each takes its bits away; what is left over is
        printed in hex.
        """
        names = []
        for flag, name in self.table:
            if not mask:
                break
            if mask & flag == flag:
                names.append(name)
                mask &= ~flag
        if mask:
            names.append(hex(mask))
        return "|".join(names)

    def decode_all(self, masks: NDArray[np.uint32]) -> tuple[NDArray[np.int32], list[str]]:
        """Decoded names of an array of masks, as a dictionary: indices (same length) and values.

        Each distinct mask is decoded once.
        """
        import numpy as np

        distinct, index = np.unique(masks, return_inverse=True)
        return (index.reshape(masks.shape).astype(np.int32),
                [self.decode(int(mask)) for mask in distinct])

    def mask(self, text: str) -> int:
        """The bits of names joined by ``|`` or ``,``; the inverse of `decode`.

        Accepts hex numbers, and names without their underscores or prefix in any case
        (``zero``, ``kernel``). Raises PageownerError for a name that this kernel does not have.
        """
        total = 0
        for word in re.split(r"[|,]", text):
            word = word.strip()
            if word:
                total |= self._value(word)
        return total

    def _value(self, word: str) -> int:
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", word):
            return int(word, 16)
        by_name = {name: mask for mask, name in reversed(self.table)} | self.bits
        plain = word.upper()
        for name in (word, plain, f"GFP_{plain}", f"__GFP_{plain}"):
            if name in by_name:
                return by_name[name]
        raise PageownerError(
            f"gfp flag {word!r} is unknown; known are {', '.join(sorted(by_name))}")

    def atomic(self, text: str) -> frozenset[str]:
        """The single flags (``__GFP_…``) that names stand for: GFP_NOFS is three of them.

        Raises PageownerError as `mask` does.
        """
        mask = self.mask(text)
        return frozenset(name for name, bit in self.bits.items() if mask & bit)

    def migratetype_of(self, mask: int) -> int:
        """`migratetype` of one mask."""
        return (bool(mask & self.bits.get("__GFP_MOVABLE", 0x08))
                + 2 * bool(mask & self.bits.get("__GFP_RECLAIMABLE", 0x10)))

    def migratetype(self, masks: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Indices into `MIGRATETYPES` (include/linux/gfp.h, gfp_migratetype); same length.

        Movable and reclaimable at once is HighAtomic by that function's arithmetic; the kernel
        warns when it sees one.
        """
        import numpy as np

        movable = np.uint32(self.bits.get("__GFP_MOVABLE", 0x08))
        reclaimable = np.uint32(self.bits.get("__GFP_RECLAIMABLE", 0x10))
        values = np.asarray(masks, dtype=np.uint32)
        kinds: NDArray[np.uint8] = ((values & movable) != 0).astype(np.uint8)
        kinds += ((values & reclaimable) != 0).astype(np.uint8) * np.uint8(2)
        return kinds


@dataclass(frozen=True)
class Contiguous:
    """Which masks the pages of alloc_contig_range() have for page owner.

    - ``compound``: the range is one compound page if its mask has this bit (__GFP_COMP); 0: none is
    - ``mask``: of single pages; 0: the caller's
    """

    compound: int
    mask: int


def contiguous(release: str, names: GfpFlags) -> Contiguous:
    """What alloc_contig_range() does in a kernel, by its release and bits (mm/page_alloc.c).

    Compound ranges came with 6.12 (e98337d11bbd). The caller's mask reaches post_alloc_hook() from
    6.14 on (7b755570064f), and from 6.12.78 in that series; before, it is __GFP_MOVABLE.
    """
    numbers = [int(number) for number in re.findall(r"\d+", release)[:3]]
    version = tuple(numbers + [0] * (3 - len(numbers)))
    forwarded = version >= (6, 14) or (6, 12, 78) <= version < (6, 13)
    return Contiguous(names.bits.get("__GFP_COMP", 0x40000) if version >= (6, 12) else 0,
                      0 if forwarded else names.bits.get("__GFP_MOVABLE", 0x8))


def running() -> GfpFlags:
    """The table of the running kernel, from tracefs, else by its version: also where the kernel
    has a format file whose table cannot be read."""
    for path in FORMAT_FILES:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read()
            return from_format(text, path)
        except (OSError, PageownerError):
            continue
    return for_release(os.uname().release)


def from_format(text: str, origin: str = "format") -> GfpFlags:
    """The table in the format file of the tracepoint mm_page_alloc.

    Its ``print fmt`` line holds ``__print_flags(REC->gfp_flags, "|", {mask, "name"}, …)``, where
    each mask is a C expression of constants. Raises PageownerError if there is no such table, or
    if a mask of it cannot be read.
    """
    start = text.find("__print_flags(REC->gfp_flags")
    entries = re.findall(r'\{\s*([^{}"]+?)\s*,\s*"([A-Za-z_0-9]+)"\s*\}', text[max(start, 0):])
    if start < 0 or not entries:
        raise PageownerError(f"{origin}: no table of gfp flags in the format of mm_page_alloc")
    table = tuple((_constant(expression, origin), name) for expression, name in entries)
    return GfpFlags(tuple(entry for entry in table if entry[0]), origin)


_CASTS = re.compile(r"\(\s*(?:__force\s+)?(?:unsigned\s+(?:long|int)|gfp_t)\s*\)")
_SUFFIX = re.compile(r"\b(0[xX][0-9a-fA-F]+|[0-9]+)[uUlL]*\b")
_PLACE = re.compile(r"\b___GFP_([A-Z0-9_]+)_BIT\b")


def _constant(expression: str, origin: str) -> int:
    """The value of a C constant expression of integers, ``|``, ``&``, ``~`` and shifts."""
    plain = _SUFFIX.sub(r"\1", _PLACE.sub(_place, _CASTS.sub("", expression)))
    try:
        return _evaluate(ast.parse(plain.strip(), mode="eval").body) & 0xFFFF_FFFF
    except (SyntaxError, ValueError, RecursionError) as error:
        raise PageownerError(f"{origin}: cannot read the gfp mask {expression[:60]!r}") from error


def _place(name: re.Match[str]) -> str:
    """The number of a bit that the format names. The bits are an enum since 6.9 (772dd0342727), and
    the format files of 6.9 to 6.12.10 have its names (until 60295b944ff6, in 6.13 and 6.12.11).
    SKIP_ZERO and SKIP_KASAN are in it where the kernel has KASAN with hardware tags."""
    bits = [*_BITS[6, 3].split(), "SKIP_ZERO", "SKIP_KASAN"]
    return str(bits.index(name[1])) if name[1] in bits else name[0]


def _evaluate(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return ~_evaluate(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.BitOr):
            return left | right
        if isinstance(node.op, ast.BitAnd):
            return left & right
        if isinstance(node.op, ast.LShift) and 0 <= right < 64:
            return left << right
    raise ValueError("not a constant of bits")


# -- layouts by version ------------------------------------------------------------------------
# Names of the bits from bit 0 up, "-" where there is none, and the first version that has them so:
# include/linux/gfp.h, since 6.0 include/linux/gfp_types.h.

_LOW = "DMA HIGHMEM DMA32 MOVABLE RECLAIMABLE HIGH IO FS"
_MIDDLE = "NOFAIL NORETRY MEMALLOC COMP ZERO NOMEMALLOC HARDWALL THISNODE ATOMIC"
_SINCE_5_1 = (f"{_LOW} ZERO ATOMIC DIRECT_RECLAIM KSWAPD_RECLAIM WRITE NOWARN RETRY_MAYFAIL NOFAIL "
              "NORETRY MEMALLOC COMP NOMEMALLOC HARDWALL THISNODE ACCOUNT")
_BITS = {
    (3, 0): "DMA HIGHMEM DMA32 MOVABLE WAIT HIGH IO FS COLD NOWARN REPEAT NOFAIL NORETRY MEMALLOC "
            "COMP ZERO NOMEMALLOC HARDWALL THISNODE RECLAIMABLE NOACCOUNT NOTRACK NO_KSWAPD "
            "OTHER_NODE WRITE",
    (4, 4): f"{_LOW} COLD NOWARN REPEAT {_MIDDLE} NOACCOUNT NOTRACK DIRECT_RECLAIM OTHER_NODE "
            "WRITE KSWAPD_RECLAIM",
    (4, 5): f"{_LOW} COLD NOWARN REPEAT {_MIDDLE} ACCOUNT NOTRACK DIRECT_RECLAIM OTHER_NODE WRITE "
            "KSWAPD_RECLAIM",
    (4, 10): f"{_LOW} COLD NOWARN REPEAT {_MIDDLE} ACCOUNT NOTRACK DIRECT_RECLAIM WRITE "
             "KSWAPD_RECLAIM",
    (4, 13): f"{_LOW} COLD NOWARN RETRY_MAYFAIL {_MIDDLE} ACCOUNT NOTRACK DIRECT_RECLAIM WRITE "
             "KSWAPD_RECLAIM",
    (4, 15): f"{_LOW} - NOWARN RETRY_MAYFAIL {_MIDDLE} ACCOUNT - DIRECT_RECLAIM WRITE "
             "KSWAPD_RECLAIM",
    (4, 18): f"{_LOW} WRITE NOWARN RETRY_MAYFAIL {_MIDDLE} ACCOUNT DIRECT_RECLAIM KSWAPD_RECLAIM",
    (5, 1): _SINCE_5_1,
    (5, 14): f"{_SINCE_5_1} ZEROTAGS SKIP_KASAN_POISON",
    (5, 18): f"{_SINCE_5_1} ZEROTAGS",
    (6, 3): f"{_SINCE_5_1.replace('ATOMIC', '-')} ZEROTAGS",
}

# In the order of the kernel's own table: most bits first, then single flags.
_ORDER = (
    "TRANSHUGE", "TRANSHUGE_LIGHT", "HIGHUSER_MOVABLE", "HIGHUSER", "USER", "TEMPORARY",
    "KERNEL_ACCOUNT", "KERNEL", "NOFS", "ATOMIC", "NOIO", "NOWAIT",
)

_SINGLE = (
    "WAIT", "HIGH", "ATOMIC", "IO", "FS", "COLD", "NOWARN", "REPEAT", "RETRY_MAYFAIL", "NOFAIL",
    "NORETRY", "COMP", "ZERO", "NOMEMALLOC", "MEMALLOC", "HARDWALL", "THISNODE", "RECLAIMABLE",
    "MOVABLE", "ACCOUNT", "NOACCOUNT", "NOTRACK", "WRITE", "NO_KSWAPD", "RECLAIM",
    "DIRECT_RECLAIM", "KSWAPD_RECLAIM", "OTHER_NODE", "ZEROTAGS", "SKIP_KASAN_POISON",
)


def for_release(release: str) -> GfpFlags:
    """The table of a kernel by its version, ``6.1.0-28-amd64``; of the newest if it has none.

    Right for kernels built without the debugging options that add bits (KASAN with hardware
    tags, lockdep); use `running` or `from_format` where there is a format file.
    """
    found = version(release)
    return _of_version(found if any(found) else _NEWEST)


_NEWEST = (9999, 0)
_OTHERS = ("NOLOCKDEP", "SKIP_ZERO", "SKIP_KASAN", "SKIP_KASAN_UNPOISON", "NO_OBJ_EXT",
           "NOTRACK_FALSE_POSITIVE")
"""Names of flags that no layout above has: of kernels built for debugging, and aliases."""


@cache
def known_names() -> frozenset[str]:
    """What flags and sets of them are called in any kernel, as it prints them."""
    return frozenset(name for layout in _BITS for name in (
        *(name for _, name in _of_version(layout).table),
        *(f"__GFP_{name}" for name in _BITS[layout].split() if name != "-"),
        *(f"__GFP_{name}" for name in _OTHERS)))


@cache
def _of_version(found: tuple[int, int]) -> GfpFlags:
    layout = max((v for v in _BITS if v <= found), default=min(_BITS))
    bit = {name: 1 << n for n, name in enumerate(_BITS[layout].split()) if name != "-"}
    transhuge: tuple[str, ...] = ()
    if "WAIT" in bit:
        reclaim, atomic, nowait, transhuge = bit["WAIT"], bit["HIGH"], 0, ("NORETRY", "NO_KSWAPD")
        kept = reclaim
    else:
        bit["RECLAIM"] = reclaim = bit["DIRECT_RECLAIM"] | bit["KSWAPD_RECLAIM"]
        atomic = bit["HIGH"] | bit.get("ATOMIC", 0) | bit["KSWAPD_RECLAIM"]
        # 16f5dfbc851b, in 6.8
        nowait = bit["KSWAPD_RECLAIM"] | (bit["NOWARN"] if found >= (6, 8) else 0)
        # 444eb2a449ef and 2516035499b9: huge pages of 4.6 and 4.7 may not reclaim at all
        kept = 0 if (4, 6) <= found < (4, 8) else bit["DIRECT_RECLAIM"]
    kernel = reclaim | bit["IO"] | bit["FS"]
    user = kernel | bit["HARDWALL"]
    highuser = user | bit["HIGHMEM"]
    movable = highuser | bit["MOVABLE"] | bit.get("SKIP_KASAN_POISON", 0)
    light = _join(bit, ("COMP", "NOMEMALLOC", "NOWARN", *transhuge), movable & ~reclaim)
    if (4, 4) <= found < (4, 8):
        light |= bit["NORETRY"]
    masks = {
        "TRANSHUGE": light | kept, "TRANSHUGE_LIGHT": light, "HIGHUSER_MOVABLE": movable,
        "HIGHUSER": highuser, "USER": user, "TEMPORARY": kernel | bit["RECLAIMABLE"],
        "KERNEL_ACCOUNT": kernel | bit.get("ACCOUNT", 0), "KERNEL": kernel,
        "NOFS": reclaim | bit["IO"], "ATOMIC": atomic, "NOIO": reclaim, "NOWAIT": nowait,
    }
    if found < (4, 8):
        masks.pop("TRANSHUGE_LIGHT")
    if "ACCOUNT" not in bit:
        masks.pop("KERNEL_ACCOUNT")
    if found >= (4, 14):  # 0ee931c4e31a
        masks.pop("TEMPORARY")
    table = [(masks[name], f"GFP_{name}") for name in _ORDER if masks.get(name)]
    table += [(bit["DMA"], "GFP_DMA"), (bit["HIGHMEM"], "__GFP_HIGHMEM"),
              (bit["DMA32"], "GFP_DMA32")]
    table += [(bit[name], f"__GFP_{name}") for name in _SINGLE if name in bit]
    return GfpFlags(tuple(table), f"the layout of Linux {layout[0]}.{layout[1]}")


def _join(bit: dict[str, int], names: Iterable[str], start: int) -> int:
    for name in names:
        start |= bit[name]
    return start
