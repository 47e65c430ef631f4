"""Who owns what from look to look: the rows of the live view.

`Live` is shown the live blocks again and again, counted by kind (`Look`); it groups them by any
key, filters, and compares with what it was shown before. Looks are kept as they came, so another
key or filter has its history at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.analysis.select import conditions
from pageowner.analysis.subsystems import OF_STACK, subsystem
from pageowner.errors import UsageError, near
from pageowner.model.live import OBJECT_FIELDS, TASK
from pageowner.model.schema import AGE, ALIASES, FILTERS, KEYS, LOOKED_AT, LOOKS, NUMBERS, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pageowner.model.live import Look

__all__ = ["BASE", "GROUPS", "OF_OBJECTS", "ORDERS", "Live", "Part", "Question", "Row",
           "check_objects_have", "field_of", "labels_of", "question"]

GROUPS = ("stack", "comm", "subsystem", "memcg")
"""The keys that the view changes between."""

OF_OBJECTS = ("stack", "comm", "subsystem", "cache")
"""The same of objects."""

ORDERS = ("size", "change", "rate", "allocs", "frees")
"""What rows are ordered by, most first; change and rate by how much, up or down."""

BASE = frozenset({"stack", "task"})
"""The fields that every look has."""

_RATE_NS = 10 * 10**9
_LOOKS = 60


@dataclass(frozen=True)
class Question:
    """What is to be shown: filter words, and texts that must occur in an owner's name, stack or
    task."""

    chosen: Filter = field(default_factory=Filter)
    texts: tuple[str, ...] = ()

    def fields(self) -> frozenset[str]:
        """The fields that a look must have to answer."""
        return frozenset(LOOKS[LOOKED_AT[word]] for word in self.chosen.given()
                         if LOOKED_AT[word] in LOOKS)

    def words(self) -> str:
        """What is chosen, as one would type it for `question`."""
        words: list[str] = []
        for name, value in self.chosen.given().items():
            takes = FILTERS[name].takes
            values = (value,) if takes == AGE else (
                (",".join(map(str, value)),) if takes == NUMBERS else value)
            words += [f"{name}={_quoted(text)}" for text in values]
        return " ".join([*words, *map(_quoted, self.texts)])


def _quoted(text: str) -> str:
    """With quotes where a space, or another quote, would not be taken as part of a word."""
    mark = '"' if "'" in text else "'"
    return f"{mark}{text}{mark}" if set(" '\"") & set(text) else text


def field_of(name: str) -> str:
    """The field of a look that tells the key ``name``. Raises UsageError if none does."""
    name = ALIASES.get(name, name)
    if name in LOOKS:
        return LOOKS[name]
    if name in KEYS:
        raise UsageError(f"the live view cannot group by {name}; a full capture can:"
                         f" pageowner report --by {name}")
    raise UsageError(f"cannot group by {name!r}; {near(name, LOOKS)}")


def check_objects_have(by: str, chosen: Filter) -> None:
    """Raises UsageError for a key, or the key of a filter, that objects do not have."""
    for name in (by, *(LOOKED_AT[word] for word in chosen.given())):
        looked_at = LOOKS.get(name)  # none for ages, which all have
        if looked_at is not None and looked_at not in OBJECT_FIELDS:
            raise UsageError(f"objects have no {name}; they can be grouped and chosen by"
                             f" {', '.join(key for key in LOOKS if LOOKS[key] in OBJECT_FIELDS)}")


def labels_of(name: str, values: Sequence[Any]) -> list[Any]:
    """What the key ``name`` shows for each value of its field; None where that is None."""
    if name in TASK:
        place = TASK.index(name)
        return [None if value is None else value[place] for value in values]
    derive = OF_STACK.get(name)
    return list(values) if derive is None else [
        None if value is None else derive(value) for value in values]


def question(text: str, chosen: Filter | None = None) -> Question:
    """What a person typed, beside what was ``chosen`` before: ``comm=ba* order=0,1 ext4``.

    Words with ``=`` are filters of the same names as the options, others texts. A filter takes the
    place of what was chosen by that name; one that is typed several times has several values, and
    an age the last. Raises UsageError for a name that is no filter, or a value that cannot be.
    """
    given: dict[str, Any] = {}
    texts = []
    known = {name for name, about in FILTERS.items()
             if LOOKED_AT[name] in LOOKS or about.takes == AGE}
    for word in _words(text):
        name, equals, value = word.partition("=")
        name = ALIASES.get(name.lstrip("-"), name.lstrip("-"))
        if not equals:
            texts.append(word.lower())
        elif name not in known:
            raise UsageError(f"there is no filter {name!r}; {near(name, sorted(known))}")
        elif not value:
            raise UsageError(f"{name}= needs a value")
        elif FILTERS[name].takes == NUMBERS:
            try:
                numbers = tuple(int(part, 0) for part in value.split(","))
            except ValueError:
                raise UsageError(f"{name}={value}: not a number, or numbers with commas"
                                 " between") from None
            given[name] = given.get(name, ()) + numbers
        elif FILTERS[name].takes == AGE:
            given[name] = value
        else:
            given[name] = (*given.get(name, ()), value)
    before = chosen.given() if chosen else {}
    return Question(Filter(**{**before, **given}), tuple(texts))


def _words(text: str) -> list[str]:
    """Words between spaces; quotes keep spaces in one, and one that is still open ends it all."""
    words, word, quote = [], "", ""
    started = False
    for c in text:
        if quote:
            quote = "" if c == quote else quote
            word += "" if not quote else c
        elif c in "\"'":
            quote, started = c, True
        elif c == " ":
            if word or started:
                words.append(word)
            word, started = "", False
        else:
            word += c
    return [part for part in [*words, word] if part]


@dataclass(frozen=True)
class Row:
    """One owner: base ``pages`` and ``blocks`` now, ``change`` in pages since the view began (or
    `Live.begin_anew`), ``rate`` in pages per second over the last ten seconds, blocks ``allocs``
    and ``frees`` per second since the look before, and ``series``, its pages by look.

    A block that came and went between two looks is in neither of the last two.
    """

    label: Any
    pages: int
    blocks: int
    change: int
    rate: float
    allocs: float
    frees: float
    series: list[int]


@dataclass(frozen=True)
class Part:
    """A part of an owner: what it took through one stack."""

    stack: str | None
    pages: int
    blocks: int


_Sums = dict[Any, tuple[int, int, int]]  # by owner: pages, blocks, born


class Live:
    """What was seen so far, and the rows to show of it."""

    def __init__(self, by: str = "stack", asked: Question | None = None,
                 looks: int = _LOOKS) -> None:
        """Owners by the key ``by`` of what ``asked`` lets through; ``looks`` are kept."""
        field_of(by)
        self.by = ALIASES.get(by, by)
        self.asked = asked or Question()
        self._looks: deque[tuple[Look, _Sums]] = deque(maxlen=looks)
        self._first: tuple[Look, _Sums] | None = None

    def needs(self) -> frozenset[str]:
        """The fields that a look must have."""
        return BASE | {field_of(self.by)} | self.asked.fields()

    def ask(self, by: str | None = None, asked: Question | None = None) -> None:
        """Show something else from now on. What was seen before is kept as far as it can tell."""
        self.by = self.by if by is None else ALIASES.get(by, by)
        ages = self.asked.chosen.older, self.asked.chosen.newer
        self.asked = self.asked if asked is None else asked
        looks = [look for look, _ in self._looks]
        first = self._first[0] if self._first else None
        if ages != (self.asked.chosen.older, self.asked.chosen.newer):
            looks, first = [], None
        looks = [look for look in looks if self._answers(look)]
        self._looks.clear()
        self._looks.extend((look, self._sums(look)) for look in looks)
        if first is not None and self._answers(first):
            self._first = first, self._sums(first)
        else:
            self._first = self._looks[0] if self._looks else None

    def _answers(self, look: Look) -> bool:
        return self.needs() <= look.fields.keys()

    def add(self, look: Look) -> None:
        """The live blocks at a later moment; one that was looked at for another question, which
        changed meanwhile, is passed over."""
        if not self._answers(look):
            return
        self._looks.append((look, self._sums(look)))
        self._first = self._first or self._looks[0]

    def begin_anew(self) -> None:
        """Count changes from the last look on."""
        self._first = self._looks[-1] if self._looks else None

    @property
    def looks(self) -> int:
        """How many looks can be told of."""
        return len(self._looks)

    @property
    def seconds(self) -> float:
        """The time over which changes are counted."""
        if self._first is None or not self._looks:  # none since then tells of what is asked now
            return 0.0
        return (self._looks[-1][0].time_ns - self._first[0].time_ns) / 1e9

    def _sums(self, look: Look) -> _Sums:
        codes, labels = _key(look, self.by)
        keep = self._kept(look, codes, labels)
        if not keep.all():
            codes = codes[keep]
        size = max(len(labels), 1)
        pages, blocks, born = (
            np.bincount(codes, column[keep], size).astype(np.int64).tolist()
            for column in (look.pages, look.blocks, look.born))
        return {label: sums for label, sums in zip(
            labels, zip(pages, blocks, born, strict=True), strict=False) if sums[1]}

    def _kept(self, look: Look, codes: NDArray[np.int32], labels: Sequence[Any]
              ) -> NDArray[np.bool_]:
        keep = np.ones(len(look.pages), bool)
        if look.unrecorded and "user" not in self.needs():
            keep[-look.unrecorded:] = False
        for name, good in conditions(self.asked.chosen).items():
            place, values = _key(look, name)
            keep &= _passing(values, good)[place]
        stacks, stack_labels = look.fields["stack"]
        tasks, task_labels = look.fields["task"]
        uses = [subsystem(stack) if stack else ""
                for stack in stack_labels] if self.asked.texts else []
        for text in self.asked.texts:
            found = partial(_has, text)
            keep &= (_passing(labels, found)[codes] | _passing(stack_labels, found)[stacks]
                     | _passing(uses, found)[stacks] | _passing(task_labels, found)[tasks])
        return keep

    def rows(self, order: str = "size", limit: int | None = None) -> tuple[list[Row], int]:
        """The first ``limit`` owners by one of `ORDERS`, and how many there are in all. An owner
        that has nothing now is shown as long as it had something within the looks that are kept,
        unless the order is by size."""
        if not self._looks:
            return [], 0
        (now, sums), first = self._looks[-1], self._first
        assert first is not None
        before = self._looks[-2] if len(self._looks) > 1 else None
        since = self._rate_from()
        seconds = (now.time_ns - before[0].time_ns) / 1e9 if before else 0.0
        rate_seconds = (now.time_ns - since[0].time_ns) / 1e9

        def numbers(label: Any) -> tuple[int, int, int, float, float, float]:
            pages, blocks, born = sums.get(label, (0, 0, 0))
            change = pages - first[1].get(label, (0, 0, 0))[0]
            rate = (pages - since[1].get(label, (0, 0, 0))[0]) / rate_seconds if rate_seconds else 0
            if before is None or not seconds:
                return pages, blocks, change, rate, 0.0, 0.0
            had = before[1].get(label, (0, 0, 0))[1]
            return (pages, blocks, change, rate, born / seconds,
                    max(had + born - blocks, 0) / seconds)

        owners = dict.fromkeys(sums)
        if order != "size":
            owners.update(dict.fromkeys(first[1]))
            owners.update(dict.fromkeys(since[1]))
        place = {"size": 0, "change": 2, "rate": 3, "allocs": 4, "frees": 5}[order]
        # pages break ties, then names: rows that have not changed must not jump about
        found = sorted(((label, numbers(label)) for label in owners), key=lambda row: (
            -abs(row[1][place]), -row[1][0], str(row[0])))
        shown = found if limit is None else found[:limit]
        return [Row(label, *counted, self._series(label)) for label, counted in shown], len(found)

    def _rate_from(self) -> tuple[Look, _Sums]:
        """The look from which rates are counted: ten seconds ago, or the one before the last."""
        now = self._looks[-1][0].time_ns
        chosen = self._looks[max(len(self._looks) - 2, 0)]
        for earlier in reversed(self._looks):
            if now - earlier[0].time_ns > _RATE_NS:
                break
            if earlier[0] is not self._looks[-1][0]:
                chosen = earlier
        return chosen

    def _series(self, label: Any) -> list[int]:
        return [sums.get(label, (0,))[0] for _, sums in self._looks]

    def total(self) -> tuple[int, int]:
        """Pages of all owners together now, and their change as that of a `Row`."""
        if not self._looks or self._first is None:
            return 0, 0
        now, then = (sum(pages for pages, _, _ in sums.values())
                     for sums in (self._looks[-1][1], self._first[1]))
        return now, now - then

    def parts(self, label: Any, limit: int) -> tuple[list[Part], int]:
        """Through which stacks an owner took what it has now, the largest first, and how many
        there are."""
        if not self._looks:
            return [], 0
        look = self._looks[-1][0]
        codes, labels = _key(look, self.by)
        if label not in labels:
            return [], 0
        mine = self._kept(look, codes, labels) & (codes == labels.index(label))
        stacks, texts = look.fields["stack"]
        pages = np.bincount(stacks[mine], look.pages[mine], len(texts)).astype(np.int64)
        blocks = np.bincount(stacks[mine], look.blocks[mine], len(texts)).astype(np.int64)
        there = np.flatnonzero(blocks)
        order = there[np.argsort(-pages[there], kind="stable")]
        return [Part(texts[place], int(pages[place]), int(blocks[place]))
                for place in order[:limit].tolist()], len(order)


def _passing(labels: Sequence[Any], good: Callable[[Any], bool]) -> NDArray[np.bool_]:
    """Of each label, whether it is known and good."""
    return np.array([label is not None and good(label) for label in labels] or [False], bool)


def _has(text: str, label: Any) -> bool:
    return text in str(label[0] if isinstance(label, tuple) else label).lower()


def _key(look: Look, name: str) -> tuple[NDArray[np.int32], list[Any]]:
    """Each kind's place among the labels of a key, and these, each once."""
    codes, values = look.fields[field_of(name)]
    places: dict[Any, int] = {}
    joined = np.array([places.setdefault(label, len(places)) for label in labels_of(name, values)]
                      or [0], np.int32)
    return (joined[codes] if len(codes) else codes), list(places)
