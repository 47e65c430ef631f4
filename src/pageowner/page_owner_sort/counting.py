"""Counting blocks by what they have in common: each distinct kind is read once, then only counted.

Memory grows with the distinct stacks and first lines, not with the text; where each block's own
time or free_ts stays in the output, with 21 bytes a block besides.
"""

from __future__ import annotations

from array import array

from pageowner.page_owner_sort.blocks import (
    CMA,
    PREFIX,
    SLAB,
    UNKNOWN,
    Fields,
    allocator_of,
    split,
    without_time,
)

__all__ = ["SEPARATOR", "Tally"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pageowner.page_owner_sort.options import Options

    _Alike = tuple[bytes, bytes, int, int, int, int]
    """How a record looks: the text before its time; that behind the number of its pageblock, up to
    and with the `SEPARATOR`; kind and bits; the bytes of its time, and of all between the two."""

SEPARATOR = b"\n\n" + PREFIX
"""Where a chunk is cut into records. A task's name is at most 15 bytes and cannot hold it."""

_BETWEEN = b" ns\nPFN 0x"
"""Between the time and the PFN. A name cannot hold it and the end of a first line before it: that
would be 17 bytes."""

_REJECTED = 0
_RELEASED = 256
_WITH_FREE = 512
_RECENT = 4
"""Kinds of record to compare with before one is looked up."""


class Tally:
    """The kinds of blocks met so far, in the order in which they first stood in the dump.

    ``kinds[n]`` is (head, rest, time, free time, bits) of the first block of a kind, as
    `blocks.split` gives them but for the time, which is cut out of a text of another format unless
    it is to be kept; ``counts[n]`` how many there were. Kind 0 counts what was not selected. Blocks
    that differ in what stays in the output are not in ``counts`` but one by one in ``each_kind``,
    ``each_time``, ``each_free`` (+1, 0 for none) and ``each_bits``. ``bits`` are those of the last
    PFN line. ``others`` counts blocks whose first line is not that of 5.18 and later.
    """

    def __init__(self, options: Options, bits: int = 0) -> None:
        self._options = options
        self._by_time = options.keeps_time and not options.cull
        self._free_in_text = not options.cull
        self._by_allocator = "allocator" in options.cull
        self._by_release = "free" in options.cull
        self._no_released = not options.released
        self._plain = not (self._by_time or self._by_allocator or self._by_release)
        self._index: dict[tuple[bytes | None, bytes, int], int] = {}
        self.kinds: list[tuple[bytes | None, bytes, int, int, int]] = [(None, b"", 0, -1, 0)]
        self.counts = [0]
        self.each_kind = array("I")
        self.each_time = array("Q")
        self.each_free = array("Q")
        self.each_bits = array("B")
        self.bits = bits
        self.others = 0
        self._recent: list[_Alike] = [(b"", SEPARATOR, _REJECTED, 0, 0, 0)]

    def add(self, chunk: bytes) -> None:
        """Count the blocks of a chunk, which ends before the empty line of its last block."""
        if self._by_time and self._is_timed(chunk):
            self._add_timed(chunk + SEPARATOR, len(PREFIX))
            return
        records = chunk.split(SEPARATOR)
        if records[0].startswith(PREFIX):
            records[0] = records[0][len(PREFIX) :]
        else:
            self._read(records.pop(0) + b"\n\n")
            if not records:
                return
        line = records[0].find(b"\n")
        has_free = records[0].find(b" ns, free_ts ", 0, line) >= 0
        has_pfn = records[0].startswith(b"PFN ", line + 1)
        if self._plain and has_pfn and not has_free:
            self._add_plain(records)
        else:
            self._add_varied(records, has_pfn, has_free)

    def add_end(self, chunk: bytes) -> None:
        """Count the blocks of the last part of a dump, which may end anywhere."""
        if chunk.endswith(b"\n\n"):
            self.add(chunk[:-2])
        elif chunk:
            start = chunk.rfind(SEPARATOR)
            if start >= 0:
                self.add(chunk[:start])
            self._read(chunk[start + 2 if start >= 0 else 0 :])

    def _add_plain(self, records: list[bytes]) -> None:
        # The hot loop: first line up to "ts", time, PFN line, stack. Neighbours are mostly of one
        # kind, and comparing is cheaper than hashing.
        index, counts = self._index, self.counts
        same_stack = last = b""
        same_head: bytes | None = None  # no head: one may be empty
        kind = run = 0
        for record in records:
            head, _, rest = record.partition(_BETWEEN)
            pfn, _, stack = rest.partition(b"\n")
            head, _, time = head.rpartition(b" ")
            if stack == same_stack and head == same_head and time.isdigit():
                run += 1
                last = pfn
                continue
            counts[kind] += run
            run = 0
            found = index.get((head, stack, 0)) if time.isdigit() else None
            if found is None:
                self.bits = allocator_of(last) if last else self.bits
                self._read(PREFIX + record + b"\n\n")
                same_head, last = None, b""
            else:
                kind, run = found, 1
                same_head, same_stack, last = head, stack, pfn
        counts[kind] += run
        self.bits = allocator_of(last) if last else self.bits

    @staticmethod
    def _is_timed(chunk: bytes) -> bool:
        # begins with a record that has a PFN line and no free_ts
        line = chunk.find(b"\n")
        return (chunk.startswith(PREFIX) and chunk.startswith(b"PFN ", line + 1)
                and chunk.find(b" ns, free_ts ", 0, line) < 0)

    def _add_timed(self, data: bytes, at: int) -> None:
        # The same where each block's own time counts. Here not even the records are cut out: most
        # are one of the last few but for their numbers, which two comparisons tell. What is between
        # these is looked at for many records together.
        while at < len(data):
            start = at
            kinds: list[int] = []
            bits: list[int] = []
            times: list[bytes] = []
            betweens: list[bytes] = []
            at = self._alike(data, at, kinds, bits, times, betweens)
            if kinds and not self._add_each(kinds, bits, times, betweens):
                self._add_varied(data[start : at - len(SEPARATOR)].split(SEPARATOR), True, False)
            if at < len(data):
                start, at = at, data.index(SEPARATOR, at) + len(SEPARATOR)
                self._add_varied([data[start : at - len(SEPARATOR)]], True, False)

    def _alike(self, data: bytes, at: int, kinds: list[int], bits: list[int], times: list[bytes],
               betweens: list[bytes]) -> int:
        """Records of kinds seen before from ``at`` on, which is behind a `PREFIX`, to the lists:
        the time, and the text between it and the type of the pageblock, not yet looked at. Returns
        where the first other record begins."""
        recent = self._recent
        add_kind, add_bits, add_time, add_between = (
            kinds.append, bits.append, times.append, betweens.append)
        size = len(data)
        before, behind, kind, own, digits, width = recent[0]
        wide = len(before)
        while at < size:
            start = at + wide
            after = start + width
            if not (data.startswith(behind, after) and data.startswith(before, at)):
                for place, (before, behind, kind, own, digits, width) in enumerate(recent):  # noqa: B007
                    wide = len(before)
                    start = at + wide
                    after = start + width
                    if data.startswith(behind, after) and data.startswith(before, at):
                        recent.insert(0, recent.pop(place))
                        break
                else:
                    found = self._seen(data[at : data.index(SEPARATOR, at)])
                    if found is None:
                        return at
                    before, behind, kind, own, digits, width = found
                    recent.insert(0, found)
                    del recent[_RECENT:]
                    wide = len(before)
                    start = at + wide
                    after = start + width
            add_kind(kind)
            add_bits(own)
            add_time(data[start : start + digits])
            add_between(data[start + digits : after])
            at = after + len(behind)
        return at

    def _seen(self, record: bytes) -> _Alike | None:
        head, found, rest = record.partition(_BETWEEN)
        pfn, _, stack = rest.partition(b"\n")
        head, _, time = head.rpartition(b" ")
        kind = self._index.get((head, stack, 0))
        words = pfn.split(b" ", 5)
        if kind is None or not found or len(words) < 6 or not _plain_number(time):
            return None
        tail = words[5]
        # as it stands: what follows may be nothing, not even a newline
        between = len(pfn) - len(tail) - 1
        return (head + b" ", rest[between:] + SEPARATOR, kind, allocator_of(tail), len(time),
                len(time) + len(_BETWEEN) + between)

    def _add_each(self, kinds: list[int], bits: list[int], times: list[bytes],
                  betweens: list[bytes]) -> bool:
        """Add records as `_alike` found them; False, and nothing is added, if any of them is not as
        a kernel prints it."""
        many = len(kinds)
        between = b"\0".join([b"", *betweens])
        if (between.count(b"\0" + _BETWEEN) != many or between.count(b"\n") != many
                or allocator_of(between) or not b"".join(times).isdigit()
                or b" 0" in b" ".join([b"", *times])):
            return False
        self.bits = bits[-1]
        if _REJECTED in kinds:
            self.counts[_REJECTED] += kinds.count(_REJECTED)
            chosen = [number for number, kind in enumerate(kinds) if kind != _REJECTED]
            kinds = [kinds[number] for number in chosen]
            bits = [bits[number] for number in chosen]
            times = [times[number] for number in chosen]
        self.each_kind.extend(kinds)
        self.each_time.extend(map(int, times))
        self.each_free.frombytes(bytes(self.each_free.itemsize * len(kinds)))
        self.each_bits.extend(bits)
        return True

    def _add_varied(  # noqa: PLR0912 - one loop without calls, since it runs for each block
        self, records: list[bytes], has_pfn: bool, has_free: bool
    ) -> None:
        # The same for dumps without PFN lines, with free_ts, or where each block's own times or
        # its PFN line count.
        index, counts = self._index, self.counts
        one_by_one = self._by_time or (has_free and self._free_in_text)
        add_kind, add_time = self.each_kind.append, self.each_time.append
        add_free, add_bits = self.each_free.append, self.each_bits.append
        same_stack = pfn = free = b""
        same_head: bytes | None = None
        kind, extra, same_extra, bits = _REJECTED, 0, 0, self.bits
        for record in records:
            if has_pfn:
                head, _, rest = record.partition(b" ns\nPFN ")
                pfn, _, stack = rest.partition(b"\n")
            else:
                head, _, stack = record.partition(b" ns\n")
            if has_free:
                head, _, free = head.rpartition(b" ns, free_ts ")
            head, _, time = head.rpartition(b" ")
            if (
                not _plain_number(time)
                or (has_free and not _plain_number(free))
                or (has_pfn and not pfn[:1].isdigit())
            ):
                found = None
            else:
                own = bits
                if has_pfn:
                    own = (SLAB if b"slab" in pfn else 0) | (CMA if b"CMA" in pfn else 0)
                if has_free or self._by_allocator:
                    released = has_free and int(free) > int(time)
                    # unless this is two records torn into one, or more blocks than one
                    if released and self._no_released and not (
                            b"\n" in head or b"\n\n" in stack or stack.endswith(b"\n")):
                        bits = own
                        continue
                    extra = self._extra(own, released, has_free)
                if stack == same_stack and head == same_head and extra == same_extra:
                    found = kind
                else:
                    found = index.get((head, stack, extra))
            if found is None:
                self.bits = bits
                self._read(PREFIX + record + b"\n\n")
                bits = self.bits
                same_head = None
                continue
            bits = own
            kind, same_head, same_stack, same_extra = found, head, stack, extra
            if one_by_one and kind != _REJECTED:
                add_kind(kind)
                add_time(int(time))
                add_free(int(free) + 1 if has_free else 0)
                add_bits(bits)
            else:
                counts[kind] += 1
        self.bits = bits

    def _extra(self, bits: int, released: bool, has_free: bool) -> int:
        """What tells kinds apart beside their lines: allocator, whether released, whether free_ts
        stands in the output; or nothing."""
        extra = bits if self._by_allocator else 0
        if has_free and self._free_in_text:
            extra |= _WITH_FREE
        return extra | _RELEASED if released and self._by_release else extra

    def _read(self, text: bytes) -> None:
        """Count blocks by the exact rules; what they are is then known to the loops above."""
        for head, rest, time, free, bits in split(text, self.bits):
            self.bits = bits
            if head is None:
                self.others += 1
                if not self._options.keeps_time:
                    rest = without_time(rest)
            released = free > time
            if released and self._no_released:
                continue
            key = head, rest, self._extra(bits, released, free >= 0)
            kind = self._index.get(key)
            if kind is None:
                kind = _REJECTED
                if self._wanted(Fields(head, rest)):
                    kind = len(self.kinds)
                    self.kinds.append((head, rest, time, free, bits))
                    self.counts.append(0)
                self._index[key] = kind
            one_by_one = self._by_time or (head is not None and free >= 0 and self._free_in_text)
            if one_by_one and kind != _REJECTED:
                self.each_kind.append(kind)
                self.each_time.append(time)
                self.each_free.append(free + 1)
                self.each_bits.append(bits)
            else:
                self.counts[kind] += 1

    def _wanted(self, fields: Fields) -> bool:
        options = self._options
        return (
            (options.pids is None or fields.pid in options.pids)
            and (options.tgids is None or fields.tgid in options.tgids)
            and (options.names is None or fields.comm in options.names)
            and (options.modules is None or fields.module in options.modules)
        )

    def state(self) -> tuple[Any, ...]:
        """All of it as plain values, for another process; see `merge`."""
        return (self.kinds, self.counts, self.each_kind.tobytes(), self.each_time.tobytes(),
                self.each_free.tobytes(), self.each_bits.tobytes(), self.bits, self.others)

    def merge(self, state: tuple[Any, ...]) -> None:
        """Add what was counted in the part of the dump that follows."""
        kinds, counts, each_kind, each_time, each_free, each_bits, bits, others = state
        before = self.bits
        numbers = [_REJECTED]
        self.counts[_REJECTED] += counts[_REJECTED]
        for kind, count in zip(kinds[1:], counts[1:], strict=True):
            head, rest, time, free, own = kind
            own = before if own == UNKNOWN else own
            key = head, rest, self._extra(own, free > time, free >= 0)
            number = self._index.get(key)
            if number is None:
                number = self._index[key] = len(self.kinds)
                self.kinds.append((head, rest, time, free, own))
                self.counts.append(0)
            self.counts[number] += count
            numbers.append(number)
        self.each_kind.extend(array("I", map(numbers.__getitem__, array("I", each_kind))))
        self.each_time.frombytes(each_time)
        self.each_free.frombytes(each_free)
        self.each_bits.frombytes(each_bits.replace(bytes([UNKNOWN]), bytes([before])))
        self.bits = before if bits == UNKNOWN else bits
        self.others += others


def _plain_number(digits: bytes) -> bool:
    # less than 2**64 and printed as it stands; 0 is left to the exact rules
    return digits.isdigit() and len(digits) < 20 and digits[0] != 48
