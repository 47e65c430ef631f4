"""Words of filters that nothing can match: they are refused with the nearest that is known, since
an empty table would look like an answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.analysis.keys import key
from pageowner.analysis.known_values import VALUES
from pageowner.errors import UsageError
from pageowner.kernel import gfp
from pageowner.model.schema import LOOKED_AT
from pageowner.model.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pageowner.analysis.filters import Filter

    Pattern = Callable[[tuple[str, ...]], Callable[[object], bool]]

__all__ = ["check", "flag_names"]

_HEX = re.compile(r"0[xX][0-9a-fA-F]+")


def check(snapshot: Snapshot, chosen: Filter, pattern: Pattern) -> None:
    """Raises UsageError for a state, zone, migratetype or gfp flag that is in no kernel and not in
    this source either: vendors have names of their own. ``pattern`` makes of words what says
    whether a name matches them."""
    for name in ("state", "zone", "migratetype", "block_type", "allocator",
                 "memcg_state"):
        known = VALUES[name]()
        words = getattr(chosen, name)
        held = () if words is None else _held(snapshot, LOOKED_AT[name])
        for word in words or ():
            matches = pattern((word,))
            if any(map(matches, held)):
                continue
            if name == "zone" and held and all(zone.isdigit() for zone in held):
                if not any(map(matches, map(str, range(len(known))))):
                    raise UsageError(
                        f"{snapshot.meta.source or 'this source'} tells zones by number; it has"
                        f" {', '.join(sorted(held))}, not {word!r}")
            elif not any(map(matches, known)):
                raise UsageError(f"there is no {name.replace('_', ' ')}"
                                 f" {word!r}{_nearest(word, [*known, *held])}")
    if chosen.gfp is not None:
        _check_flags(snapshot, chosen.gfp)


def _held(snapshot: Snapshot, name: str) -> list[str]:
    return [str(label) for label in key(snapshot, name).labels.to_pylist() if label is not None]


def flag_names(words: Iterable[str]) -> list[str]:
    """The single flags of ``ZERO``, ``__GFP_ZERO,KERNEL`` or ``GFP_KERNEL|ZERO``, in capitals."""
    names = [flag.strip().upper() for word in words for flag in re.split(r"[|,]", word)]
    return [name for name in names if name]


def _check_flags(snapshot: Snapshot, words: tuple[str, ...]) -> None:
    wanted = [name for name in flag_names(words) if not _HEX.fullmatch(name)]
    known = gfp.known_names()
    if all(_is_among(name, known) for name in wanted):
        return
    known = known | {flag for label in _held(snapshot, "gfp") for flag in label.split("|")
                     if not _HEX.fullmatch(flag)}
    known = known | set(snapshot.meta.extra.get("gfp_flags", ()))
    for name in wanted:
        if not _is_among(name, known):
            raise UsageError(f"there is no gfp flag {name!r}{_nearest(name, sorted(known))}")


def _is_among(name: str, known: Iterable[str]) -> bool:
    choice = {name, f"GFP_{name}", f"__GFP_{name}"}
    return any(flag.upper() in choice for flag in known)


def _nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean Normal?``, or all that is known if nothing is near."""
    from difflib import get_close_matches

    def bare(name: str) -> str:
        return re.sub(r"^(__)?GFP_", "", name.upper())

    names = {bare(name): name for name in known}
    near = get_close_matches(bare(word), names, 1, 0.6)
    return f"; did you mean {names[near[0]]}?" if near else (
        f"; there are {', '.join(names.values())}")
