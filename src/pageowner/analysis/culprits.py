"""Who is in the way: owners by the blocks they keep, and whose going would free how many."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.analysis.blocks import BLOCKED, in_the_way
from pageowner.analysis.keys import key
from pageowner.analysis.memory import NO_ROW
from pageowner.analysis.owners import groups
from pageowner.analysis.subsystems import PRIVATE
from pageowner.model.live import TASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.blocks import Blocks
    from pageowner.analysis.memory import Memory
    from pageowner.analysis.mixed import Mixed
    from pageowner.model.snapshot import Snapshot

__all__ = ["Owners", "blockers", "cheapest", "hopeless", "owners_of", "pages_going", "polluters"]

_NAMES = 5
_GOES, _NAMELESS, _KERNEL, _ENDED = range(4)
_CANDIDATES = 200


@dataclass(frozen=True)
class Owners:
    """The owners of a snapshot's rows by some keys.

    ``group``: the owner of each row of the table; ``labels``: of each owner, its value by key;
    ``pages``: all that it holds. ``stays``: of each row 0 if it goes when its owner does, else why
    not. What is known by no key does not. Where keys are of tasks, nor does what only the kernel
    itself allocated (tgid 0: while booting, and in interrupts of an idle CPU; tgid 1: it becomes
    init, which nobody can end), nor what tasks left that have ended, or kernel threads (see
    `_living`); and page cache and tmpfs stay. ``of_tasks``: whether keys are of tasks.
    """

    snapshot: Snapshot
    group: NDArray[np.int64]
    labels: list[dict[str, Any]]
    pages: NDArray[np.int64]
    stays: NDArray[np.uint8]
    of_tasks: bool

    def going(self, memory: Memory) -> NDArray[np.int64]:
        """The owner with which each allocation would go; -1 where none."""
        owner = self.of(memory)
        owner[owner >= 0] = np.where(self.stays[memory.row[owner >= 0]] == _GOES,
                                     owner[owner >= 0], -1)
        if self.of_tasks:
            owner[memory.stays] = -1
        return owner

    def of(self, memory: Memory) -> NDArray[np.int64]:
        """The owner of each allocation; -1 where the source has no row of it."""
        if not len(self.group):
            return np.full(len(memory.row), -1, np.int64)
        return np.where(memory.row == NO_ROW, -1, self.group[memory.row])

    def described(self, listed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each of the dictionaries with, for its ``owner``, the keys, and the names of those tasks
        and cgroups that have most of its pages: ``tasks``, ``cgroups``, and how many there are
        besides, ``more_tasks``, ``more_cgroups``."""
        place = np.full(len(self.labels), -1, np.int64)
        place[[row["owner"] for row in listed]] = np.arange(len(listed))
        rows = np.flatnonzero(place[self.group] >= 0) if len(listed) else np.zeros(0, np.int64)
        result = [row | self.labels[row["owner"]] for row in listed]
        pages = 2.0 ** self.snapshot.table["order"].to_numpy()[rows]
        for word, name in (("tasks", "comm"), ("cgroups", "memcg")):
            found = key(self.snapshot, name)
            labels = found.labels.to_pylist()
            pairs, inverse = np.unique(
                place[self.group[rows]] * len(labels) + found.codes[rows], return_inverse=True)
            whose, code = pairs // max(len(labels), 1), pairs % max(len(labels), 1)
            sums = np.bincount(inverse, weights=pages, minlength=len(pairs))
            names: list[list[str]] = [[] for _ in listed]
            for at in np.lexsort((code, -sums, whose)).tolist():
                if labels[code[at]] is not None:
                    names[whose[at]].append(labels[code[at]])
            for row, most in zip(result, names, strict=True):
                row[word] = most[:_NAMES]
                row[f"more_{word}"] = max(len(most) - _NAMES, 0)
        return result


def owners_of(snapshot: Snapshot, names: Sequence[str]) -> Owners:
    """The owners by the keys ``names`` (see `pageowner.analysis.filters.KEYS`)."""
    found = [key(snapshot, name) for name in names]
    rows = snapshot.table.num_rows
    group, number, codes = groups(found, rows)
    labels = [dict(zip(names, values, strict=True)) for values in zip(
        *([each.labels[code].as_py() for code in code_of.tolist()]
          for each, code_of in zip(found, codes, strict=True)), strict=True)]
    sizes = np.left_shift(np.int64(1), snapshot.table["order"].to_numpy().astype(np.int64))
    pages = np.bincount(group, weights=sizes, minlength=number).astype(np.int64)
    named = np.array([any(label is not None for label in keys_of.values())
                      for keys_of in labels], bool)
    of_tasks = bool(set(TASK) & set(names))
    stays = np.where(named[group], _GOES, _NAMELESS) if rows else np.zeros(0, np.int64)
    if of_tasks:
        tasks = key(snapshot, "pid")
        living = _living(snapshot)
        why = np.array([_KERNEL if label in (0, 1) else
                        _GOES if living is None or label in living else _ENDED
                        for label in tasks.labels.to_pylist()] or [_GOES])
        stays = np.where(stays == _GOES, why[tasks.codes], stays)
    return Owners(snapshot, group, labels, pages, stays.astype(np.uint8), of_tasks)


def _living(snapshot: Snapshot) -> set[int] | None:
    """The tasks that could be ended when the source was read; None where it is not known.

    A live capture lists them. In a dump they are those that hold anonymous memory: every process
    has some, its stack at least, and loses it when it ends; kernel threads have none.
    """
    about = snapshot.meta.extra.get("memory")
    tasks = about.get("tasks") if isinstance(about, dict) else None
    if isinstance(tasks, list):
        return {task for task in tasks if type(task) is int}
    if snapshot.meta.kind == "tracker":
        return None
    uses, tasks = key(snapshot, "subsystem"), key(snapshot, "pid")
    own = np.array([label in PRIVATE for label in uses.labels.to_pylist()] or [False], bool)
    codes = np.unique(tasks.codes[own[uses.codes]]) if len(tasks.codes) else tasks.codes
    labels = tasks.labels.to_pylist()
    return {labels[code] for code in codes.tolist()} - {None} or None


def _distinct_pairs(block: NDArray[np.int64], owner: NDArray[np.int64],
                    number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which owners are in which blocks, each pair once, by block."""
    pairs = np.unique(block * np.int64(number) + owner)
    return pairs // max(number, 1), pairs % max(number, 1)


def polluters(owners: Owners, memory: Memory, found: Mixed) -> list[dict[str, Any]]:
    """Owners by the number of pageblocks of other types that they sit in, most first.

    Each as ``owner`` (a place in ``owners.labels``), ``blocks``, ``foreign_pages`` (its pages in
    these blocks), ``single`` (blocks in which one page of it is the only one of another type),
    ``pages`` (all of its).
    """
    rows = np.flatnonzero(found.foreign & (memory.row != NO_ROW))
    owner, block = owners.of(memory)[rows], found.block[rows]
    pages = memory.pages[rows]
    number = len(owners.labels)
    _, of_block = _distinct_pairs(block, owner, number)
    blocks = np.bincount(of_block, minlength=number)
    foreign = np.bincount(owner, weights=pages, minlength=number).astype(np.int64)
    # not by the block's number: where memory has holes, that is much more than there are blocks
    _, place = np.unique(block, return_inverse=True)
    alone = np.bincount(place, weights=pages)[place] == 1
    single = np.bincount(owner[alone], minlength=number)
    order = np.lexsort((np.arange(number), -foreign, -blocks))
    return [{"owner": at, "blocks": int(blocks[at]), "foreign_pages": int(foreign[at]),
             "single": int(single[at]), "pages": int(owners.pages[at])}
            for at in order.tolist() if blocks[at]]


@dataclass(frozen=True)
class _Sets:
    """Blocks by the set of owners that stand in them: ``count[n]`` blocks have set ``n``, which is
    ``member[start[n]:start[n + 1]]``."""

    count: NDArray[np.int64]
    start: NDArray[np.int64]
    member: NDArray[np.int64]


def _in_blocked(owners: Owners, memory: Memory,
                found: Blocks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The allocations in the way in blocks that are blocked, and the place of each's block."""
    who, at = in_the_way(memory, found)
    blocked = found.state[at] == BLOCKED
    return who[blocked], at[blocked]


def blockers(owners: Owners, memory: Memory, found: Blocks) -> list[dict[str, Any]]:
    """Owners by the number of blocks they block, most first.

    Each as ``owner``, ``blocks``, ``alone`` (blocks that no other owner blocks), ``single`` (of
    these, those that one page of it blocks), ``blocking_pages``, ``pages`` (all of its).
    """
    who, at = _in_blocked(owners, memory, found)
    owner = owners.of(memory)[who]
    known = owner >= 0
    number = len(owners.labels)
    block, of_block = _distinct_pairs(at[known], owner[known], number)
    several = np.bincount(at[~known], minlength=len(found.number)) + np.bincount(
        block, minlength=len(found.number))
    others = (several > 1) | (found.held > 0)
    blocks = np.bincount(of_block, minlength=number)
    alone = np.bincount(of_block[~others[block]], minlength=number)
    by_one_page = ~others[block] & (found.stuck[block] == 1)
    single = np.bincount(of_block[by_one_page], minlength=number)
    size = np.minimum(memory.pages[who[known]], 1 << found.order)
    pages = np.bincount(owner[known], weights=size, minlength=number).astype(np.int64)
    order = np.lexsort((np.arange(number), -alone, -blocks))
    return [{"owner": place, "blocks": int(blocks[place]), "alone": int(alone[place]),
             "single": int(single[place]), "blocking_pages": int(pages[place]),
             "pages": int(owners.pages[place])}
            for place in order.tolist() if blocks[place]]


def _sets(owners: Owners, memory: Memory, found: Blocks, going: NDArray[np.int64]) -> _Sets:
    """The blocked blocks that would not be if their owners went, by the set of these."""
    who, at = _in_blocked(owners, memory, found)
    owner = going[who]
    never = (found.held > 0) | (found.unsure > 0) | found.across
    never[at[owner < 0]] = True
    kept = ~never[at]
    block, of_block = _distinct_pairs(at[kept], owner[kept], len(owners.labels))
    bounds = np.flatnonzero(np.diff(block, prepend=-1, append=-1)).tolist()
    counts: dict[bytes, int] = {}
    for low, high in pairwise(bounds):
        named = of_block[low:high].tobytes()
        counts[named] = counts.get(named, 0) + 1
    members = [np.frombuffer(named, np.int64) for named in counts]
    return _Sets(np.array(list(counts.values()), np.int64),
                 np.cumsum([0, *map(len, members)]),
                 np.concatenate(members) if members else np.zeros(0, np.int64))


def hopeless(owners: Owners, memory: Memory, found: Blocks) -> dict[str, int]:
    """How many blocked blocks stay so whichever owners go, by what else stands in them. A block
    may have several of these:

    - ``held``: frames that the page allocator was never given, or the end of a zone
    - ``unsure``: pages of which it is not known whether they can be moved
    - ``nameless``: pages without an owner by these keys, as those from before tracking
    - ``kernel``: pages that the kernel took for itself, of no task, or of init
    - ``ended``: pages of tasks that have ended, and of kernel threads
    - ``cache``: large folios of page cache or tmpfs, which stay when the task ends
    """
    who, at = _in_blocked(owners, memory, found)
    row = memory.row[who]
    stays = np.append(owners.stays, np.uint8(_NAMELESS))[row]  # at -1: no row
    cache = owners.of_tasks & memory.stays[who] & (stays == _GOES)
    blocked = found.state == BLOCKED
    result = {"held": int(np.count_nonzero(blocked & ((found.held > 0) | found.across))),
              "unsure": int(np.count_nonzero(blocked & (found.unsure > 0)))}
    for name, mine in (("nameless", stays == _NAMELESS), ("kernel", stays == _KERNEL),
                       ("ended", stays == _ENDED), ("cache", cache)):
        result[name] = len(np.unique(at[mine]))
    return result


def cheapest(owners: Owners, memory: Memory, found: Blocks,
             want: int) -> tuple[list[int], int]:
    """Owners whose going would make ``want`` blocked blocks free or clearable, with as few pages
    in all as a greedy choice finds, in the order in which they were chosen; and how many blocks
    that is, which is less than ``want`` if no owners' going is enough.

    To find the very cheapest is NP-hard (a block goes only when all of its owners do: minimum
    k-union). Greedy: of the sets of owners that stand in some block take again and again the one
    that frees most blocks for each page that its owners hold; at the end let go of owners without
    whom it is enough too.
    """
    going = owners.going(memory)
    sets = _sets(owners, memory, found, going)
    number = len(owners.labels)
    cost = np.maximum(pages_going(owners, memory), 1)
    chosen: list[int] = []
    gone = np.zeros(number, bool)
    of_set = np.repeat(np.arange(len(sets.count)), np.diff(sets.start))
    # The sets in which each owner is.
    by_owner = np.argsort(sets.member, kind="stable")
    owner_start = np.searchsorted(sets.member[by_owner], np.arange(number + 1))
    gained = 0
    while gained < want:
        staying = ~gone[sets.member]
        missing = np.bincount(of_set[staying], minlength=len(sets.count))
        price = np.bincount(of_set[staying], minlength=len(sets.count),
                            weights=cost[sets.member[staying]])
        open_ = np.flatnonzero(missing > 0)
        if not len(open_):
            break
        promising = np.argsort(-sets.count[open_] / price[open_], kind="stable")[:_CANDIDATES]
        best: tuple[float, float, list[int]] | None = None
        for candidate in open_[promising].tolist():
            mine = sets.member[sets.start[candidate]:sets.start[candidate + 1]]
            mine = mine[~gone[mine]]
            touched = np.concatenate([of_set[by_owner[owner_start[owner]:owner_start[owner + 1]]]
                                      for owner in mine.tolist()])
            met, times = np.unique(touched, return_counts=True)
            gain = int(sets.count[met[times == missing[met]]].sum())
            rank = (min(gain, want - gained) / price[candidate], -price[candidate])
            if best is None or rank > best[:2]:
                best = (*rank, mine.tolist())
        assert best is not None
        chosen += best[2]
        gone[best[2]] = True
        gained = _gained(sets, of_set, gone)
    for owner in sorted(chosen, key=lambda owner: -cost[owner]):
        gone[owner] = False
        without = _gained(sets, of_set, gone)
        if without >= min(want, gained):
            gained = without
        else:
            gone[owner] = True
    return [owner for owner in chosen if gone[owner]], gained


def pages_going(owners: Owners, memory: Memory) -> NDArray[np.int64]:
    """How many pages would go with each owner."""
    going = owners.going(memory)
    goes = going >= 0
    pages = np.bincount(going[goes], weights=memory.pages[goes], minlength=len(owners.labels))
    return pages.astype(np.int64)


def _gained(sets: _Sets, of_set: NDArray[np.int64], gone: NDArray[np.bool_]) -> int:
    """Blocks all of whose owners are gone."""
    left = np.bincount(of_set[~gone[sets.member]], minlength=len(sets.count))
    return int(sets.count[left == 0].sum())
