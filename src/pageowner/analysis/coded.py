"""Stacks as numbers: what `pageowner.analysis.subsystems` says of one text, said of a million.

A million stacks have some thousand different frames. Each frame gets a number, each stack is a run
of them in one array, and all stacks are looked at together, a step further into each at a time, so
that time and memory go by the frames that are looked at and no stack is an object of Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis import subsystems as of_text
from pageowner.kernel.frames import UNWINDERS, Frame, frames
from pageowner.kernel.stack_roles import ALLOCATOR_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Labelled = tuple[NDArray[np.int64], list[str]]
    """Of each stack a place in the labels, and these."""

__all__ = ["OF_STACKS", "Coded", "allocators", "coded", "distinctive_frames", "functions",
           "labels_of", "modules", "of_stacks", "subsystems"]

_PIECE = 1 << 14
"""Stacks that are split into lines at a time."""

_FEW = 1 << 9
"""Stacks for which the import of Arrow's functions takes longer than a loop."""


class Coded(NamedTuple):
    """Stacks, innermost frame first: those of stack N are ``frames[code]`` for each ``code`` in
    ``codes[first[N]:end[N]]`` (int32; ``first`` and ``end`` int64). A null has none."""

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    codes: NDArray[np.int32]
    frames: list[Frame]


def coded(stacks: pa.Array) -> Coded:
    """An array of distinct stacks as `pageowner.kernel.frames.frames` takes each apart."""
    known: dict[Frame, int] = {}
    parts: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    lengths: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for start in range(0, len(stacks), _PIECE):
        number, lines, line = _lines(stacks.slice(start, _PIECE))
        places = np.fromiter((_place(known, text) for text in lines), np.int32, len(lines))
        codes = places[line]
        if len(places) and places.min() < 0:  # empty lines are no frames
            edges = np.concatenate([[0], np.cumsum(codes >= 0)])
            ends = np.cumsum(number)
            number = edges[ends] - edges[ends - number]
            codes = codes[codes >= 0]
        parts.append(codes)
        lengths.append(number)
    length = np.concatenate(lengths)
    end = np.cumsum(length)
    return _without_unwinders(Coded(end - length, end, np.concatenate(parts), list(known)))


def _without_unwinders(stacks: Coded) -> Coded:
    """Without the frames in front that took the stack, but for stacks of nothing else."""
    taking = np.fromiter((frame.name in UNWINDERS for frame in stacks.frames), bool,
                         len(stacks.frames))
    if not taking.any():
        return stacks
    first = _walked(stacks.first, stacks.end, lambda _, at: taking[stacks.codes[at]])
    return stacks._replace(first=np.where(first == stacks.end, stacks.first, first))


def _place(known: dict[Frame, int], line: str) -> int:
    for frame in frames(line):
        return known.setdefault(frame, len(known))
    return -1


def _lines(stacks: pa.Array) -> tuple[NDArray[np.int64], list[str], NDArray[np.int64]]:
    """How many lines each stack has, the distinct lines, and the place among them of each."""
    if len(stacks) <= _FEW:
        by_stack = [[] if stack is None else stack.split("\n") for stack in stacks.to_pylist()]
        known: dict[str, int] = {}
        line = np.array([known.setdefault(text, len(known))
                         for lines in by_stack for text in lines], np.int64)
        return np.fromiter(map(len, by_stack), np.int64, len(by_stack)), list(known), line
    import pyarrow.compute as pc

    split = pc.split_pattern(stacks, "\n")
    number = pc.list_value_length(split).fill_null(0).to_numpy().astype(np.int64)
    encoded = split.flatten().dictionary_encode()
    return number, encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _roles(stacks: Coded) -> NDArray[np.int8]:
    return np.fromiter(map(of_text.role_of, stacks.frames), np.int8, len(stacks.frames))


def _walked(first: NDArray[np.int64], end: NDArray[np.int64],
            goes_on: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]],
            *, outwards: bool = True) -> NDArray[np.int64]:
    """Where a walk ends, through each run of places from ``first`` up to ``end``: at the first
    place where ``goes_on`` is false, or behind the last; or from its end, before which it ends.
    ``goes_on`` is asked of numbers of runs, and the place that each has come to."""
    at = first.copy() if outwards else end.copy()
    live = np.flatnonzero(first < end)
    while len(live):
        live = live[goes_on(live, at[live] if outwards else at[live] - 1)]
        at[live] += 1 if outwards else -1
        live = live[(at[live] < end[live]) if outwards else (at[live] > first[live])]
    return at


def _at(marked: NDArray[np.bool_]) -> Callable[
        [NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]:
    return lambda _, at: marked[at]


def functions(stacks: Coded) -> Coded:
    """The frames of each that `pageowner.analysis.subsystems.functions` leaves."""
    codes, role = stacks.codes, _roles(stacks)
    inner = role == of_text.PAGES
    outer = (role == of_text.ENTERING) | np.array(
        [frame.name == "x64_sys_call" for frame in stacks.frames], bool)
    first = _walked(stacks.first, stacks.end, lambda _, at: inner[codes[at]])
    end = _walked(first, stacks.end, lambda _, at: outer[codes[at]], outwards=False)
    whole = first >= end
    return stacks._replace(first=np.where(whole, stacks.first, first),
                           end=np.where(whole, stacks.end, end))


def _until_interrupt(stacks: Coded, role: NDArray[np.int8]) -> NDArray[np.int64]:
    """The end of each without what an interrupt interrupted, unless that is its first frame."""
    end = stacks.end.copy()
    found = np.flatnonzero((role == of_text.INTERRUPT)[stacks.codes])
    if len(found):
        stack = np.searchsorted(stacks.end, found, "right")
        found, stack = (places[found > stacks.first[stack]] for places in (found, stack))
        at_start = role[stacks.codes[stacks.first[stack]]] == of_text.INTERRUPT
        found, stack = found[~at_start], stack[~at_start]
        np.minimum.at(end, stack, found)
    return end


def _last(stacks: Coded, marked: NDArray[np.bool_], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place behind the last marked code of each stack before an end; -1 without one."""
    behind = np.full(len(stacks.first), -1, np.int64)
    found = np.flatnonzero(marked[stacks.codes])
    if len(found):
        stack = np.searchsorted(stacks.end, found, "right")
        within = (found >= stacks.first[stack]) & (found < end[stack])
        np.maximum.at(behind, stack[within], found[within] + 1)
    return behind


def _nameless(stacks: Coded, role: NDArray[np.int8], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which have nothing but addresses."""
    marked = role == of_text.ADDRESS
    if not marked.any():
        return np.zeros(len(stacks.first), bool)
    nameless: NDArray[np.bool_] = _last(stacks, ~marked, end) < 0
    return nameless


class _Answers:
    """What each frame says of memory taken each way, asked once for each that is met: a place in
    ``labels``, or `NONE`."""

    NONE, ASK = -1, -2

    def __init__(self, frames: list[Frame], last_resort: bool, labels: dict[str, int]) -> None:
        self._frames, self._last_resort, self._labels = frames, last_resort, labels
        self._known = np.full(len(frames) * len(of_text.WAYS), self.ASK, np.int64)

    def of(self, codes: NDArray[np.int32], how: NDArray[np.int64]) -> NDArray[np.int64]:
        questions = codes.astype(np.int64) * len(of_text.WAYS) + how
        found: NDArray[np.int64] = self._known[questions]
        if (found == self.ASK).any():
            for question in np.unique(questions[found == self.ASK]).tolist():
                code, way = divmod(question, len(of_text.WAYS))
                label = of_text.answer(self._frames[code], of_text.WAYS[way], self._last_resort)
                self._known[question] = self.NONE if label is None else self._labels.setdefault(
                    label, len(self._labels))
            found = self._known[questions]
        return found


def _taken(stacks: Coded, role: NDArray[np.int8], end: NDArray[np.int64]
           ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How the memory of each was taken, a place in `pageowner.analysis.subsystems.WAYS`, and where
    the frames begin that do not say so."""
    codes, first = stacks.codes, stacks.first
    slab, books = of_text.WAYS.index("slab"), [of_text.WAYS.index(way)
                                               for way in ("vmalloc", "percpu")]
    how = np.full(len(first), of_text.PAGES, np.int64)

    def is_taking(live: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.bool_]:
        here = role[codes[at]]
        takes = here < len(of_text.WAYS)
        # A slab object for vmalloc or percpu is a part of their books, not their memory.
        own_books = (how[live] == slab) & np.isin(here, books)
        goes_on: NDArray[np.bool_] = (takes | (here == of_text.LIBRARY)) & ~own_books
        new = goes_on & takes & (how[live] == of_text.PAGES)
        how[live[new]] = here[new]
        return goes_on

    start = _walked(first, end, is_taking)
    return how, start


def allocators(stacks: Coded) -> Labelled:
    """`pageowner.analysis.subsystems.allocator_of` of each."""
    role = _roles(stacks)
    end = _until_interrupt(stacks, role)
    names = [*(ALLOCATOR_NAMES[way] for way in of_text.WAYS), of_text.OTHER, of_text.NO_STACK]
    how, _ = _taken(stacks, role, end)
    how[_nameless(stacks, role, end)] = names.index(of_text.OTHER)
    how[stacks.first == stacks.end] = names.index(of_text.NO_STACK)
    return how, names


def subsystems(stacks: Coded) -> Labelled:
    """`pageowner.analysis.subsystems.subsystem` of each."""
    codes, role = stacks.codes, _roles(stacks)
    first, end = stacks.first, _until_interrupt(stacks, role)
    how, start = _taken(stacks, role, end)
    nameless = _nameless(stacks, role, end)
    start, how = np.where(nameless, end, start), np.where(nameless, of_text.PAGES, how)
    labels: dict[str, int] = {}
    found = np.full(len(first), _Answers.NONE, np.int64)
    behind = _last(stacks, role == of_text.THROUGH_FILE, end)
    for begin, last_resort in ((np.where(behind >= 0, behind, end), False), (start, False),
                               (np.where(nameless, end, first), True)):
        answers = _Answers(stacks.frames, last_resort, labels)

        def is_silent(live: NDArray[np.int64], at: NDArray[np.int64],
                      answers: _Answers = answers,
                      last_resort: bool = last_resort) -> NDArray[np.bool_]:
            code = codes[at]
            passed_over = (role[code] == of_text.LIBRARY) & (not last_resort)
            found[live] = np.where(passed_over, _Answers.NONE, answers.of(code, how[live]))
            silent: NDArray[np.bool_] = found[live] == _Answers.NONE
            return silent

        # those that have an answer have no frames left
        _walked(np.where(found == _Answers.NONE, begin, end), end, is_silent)
    for way in np.unique(how[found == _Answers.NONE]).tolist():
        label = of_text.answer(None, of_text.WAYS[way], last_resort=True) or ""
        found[(found == _Answers.NONE) & (how == way)] = labels.setdefault(label, len(labels))
    found[first == stacks.end] = labels.setdefault(of_text.NO_STACK, len(labels))
    return found, list(labels)


def modules(stacks: Coded) -> Labelled:
    """`pageowner.analysis.subsystems.module_of` of each."""
    role, codes = _roles(stacks), stacks.codes
    named = np.array([bool(frame.module) for frame in stacks.frames], bool)
    named |= role == of_text.ADDRESS
    end = np.where(_nameless(stacks, role, stacks.end), stacks.first, stacks.end)
    at = _walked(stacks.first, end, lambda _, at: ~named[codes[at]])
    return _of_frames(stacks, at, end, lambda frame: frame.module or of_text.UNKNOWN_MODULE,
                      of_text.BUILT_IN)


def distinctive_frames(stacks: Coded) -> Labelled:
    """`pageowner.analysis.subsystems.distinctive_frame` of each."""
    codes, role = stacks.codes, _roles(stacks)
    end = _until_interrupt(stacks, role)
    behind = _last(stacks, role == of_text.THROUGH_FILE, end)
    at = end.copy()
    for first, lowest in ((np.where(behind >= 0, behind, end), of_text.TELLING),
                          (stacks.first, of_text.TELLING), (stacks.first, of_text.GENERAL)):
        without, is_silent = np.flatnonzero(at == end), (role < lowest)[codes]
        at[without] = _walked(first[without], end[without], _at(is_silent))
    at[at == end] -= 1  # the outermost
    return _of_frames(stacks, at, end, str, "")


OF_STACKS = {"module": modules, "subsystem": subsystems, "frame": distinctive_frames,
             "allocator": allocators}
"""The same as `pageowner.analysis.subsystems.OF_STACK`, of all stacks at once."""


def _of_frames(stacks: Coded, at: NDArray[np.int64], end: NDArray[np.int64],
               text: Callable[[Frame], str], without: str) -> Labelled:
    """The text of the frame at a place of each stack; ``without`` for places not in it."""
    labels = {without: 0}
    place = np.array([*(labels.setdefault(text(frame), len(labels)) for frame in stacks.frames),
                      0], np.int64)
    within = (at >= stacks.first) & (at < end)
    code = np.full(len(at), len(stacks.frames), np.int64)
    code[within] = stacks.codes[at[within]]
    return place[code], list(labels)


def labels_of(stacks: pa.Array, labelled: Labelled) -> pa.Array:
    """The label of each stack as an array of strings; null where the stack is null."""
    places, labels = labelled
    nulls = stacks.is_null().to_numpy(zero_copy_only=False) if stacks.null_count else None
    return pa.array(labels, pa.string()).take(pa.array(places, pa.int64(), mask=nulls))


def of_stacks(answer: Callable[[Coded], Labelled], stacks: pa.Array) -> pa.Array:
    """What `subsystems`, `modules` or `distinctive_frames` says of an array of distinct stacks, as
    strings; null where the stack is null."""
    return labels_of(stacks, answer(coded(stacks)))
