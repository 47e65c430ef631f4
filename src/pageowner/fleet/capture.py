"""One capture as rows of the fleet's tables: the owners of a snapshot, and their stacks.

Owners that hold less than a given size are summed in one row, so that a capture takes some
kilobytes; the sum of all rows is that of the snapshot.
"""

from __future__ import annotations

import calendar
import json
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.diff import matched
from pageowner.analysis.keys import Key, blocks_pages, key, times
from pageowner.analysis.owners import groups
from pageowner.analysis.select import newest_ns
from pageowner.analysis.subsystems import stack_identities
from pageowner.errors import PageownerError
from pageowner.fleet.arrow import OWNERS_SCHEMA, STACKS_SCHEMA
from pageowner.fleet.columns import AGES, age_column, age_ns
from pageowner.kernel.containers import OF_PATH
from pageowner.model.amounts import row_blocks
from pageowner.model.handle_names import is_handle_name
from pageowner.model.source_kinds import kind_of, unit_of
from pageowner.report.text import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pageowner.model.snapshot import Metadata, Snapshot

__all__ = ["REST", "Capture", "Machine", "capture_of", "taken_by"]

REST = "rest"
"""The state of the row of small owners."""

_KEYS = ("comm", "memcg", "order", "migratetype", "state", "subsystem")
_LONGEST = 256
"""Characters of a text: names of tasks have 15, of cgroups rarely a hundred."""
_STACK_LONGEST = 8192


@dataclass(frozen=True)
class Machine:
    """What a snapshot does not say of where it is from: a name and a kernel for dumps, labels, the
    hash of the machine's id; when it was taken (seconds since 1970) and how far its clock is ahead
    of the store's (seconds)."""

    host: str | None = None
    kernel: str | None = None
    machine: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    taken: float | None = None
    clock_ahead_s: float | None = None


class Capture(NamedTuple):
    """``number`` identifies it (int64; the same for the same capture, whoever pushes it);
    ``taken`` in seconds since 1970; the rows of both tables."""

    number: int
    taken: float
    host: str
    owners: pa.Table
    stacks: pa.Table

    def moved(self, seconds: float) -> Capture:
        """The same capture as if it were taken later: by the clock of the store."""
        taken = self.taken + seconds
        place = self.owners.column_names.index("taken")
        kind = OWNERS_SCHEMA.field("taken").type
        return self._replace(taken=taken, owners=self.owners.set_column(
            place, "taken", pa.array([round(taken * 1e6)] * self.owners.num_rows, kind)))


def capture_of(snapshot: Snapshot, machine: Machine, least_bytes: int) -> Capture:
    """The rows of a snapshot, owners of less than ``least_bytes`` as one.

    Raises PageownerError if it does not say which machine it is of, or when it was taken, and
    ``machine`` does not either; if that was before 1970; and for a source of objects, or of bytes
    by line of code.
    """
    meta = snapshot.meta
    if not kind_of(meta).in_pages:
        raise PageownerError(f"{meta.source or 'the snapshot'} has {unit_of(meta)}; a fleet's"
                             " tables are of pages by owner")
    host = machine.host or meta.host
    if not host:
        raise PageownerError(f"{meta.source or 'the snapshot'} does not say of which machine it"
                             " is; name it with --host")
    taken = machine.taken if machine.taken is not None else taken_by(meta)
    if taken is None:
        raise PageownerError(f"{meta.source or 'the snapshot'} does not say when it was taken;"
                             " give --taken TIME")
    if taken < 0:
        raise PageownerError(f"{meta.source or 'the snapshot'} cannot have been taken before 1970;"
                             " give --taken TIME")
    number = _number(host, meta.boot_id, taken, meta.clock_ns)
    owners, stacks = _rows(snapshot, least_bytes)
    rows = owners.num_rows
    series = {
        "host": _text(host), "machine": machine.machine, "boot_id": _text(meta.boot_id),
        "kernel": _text(machine.kernel or meta.kernel),
        "labels": json.dumps(dict(sorted(machine.labels.items())))}
    # After 'off' and 'on' all that was there before is without an owner: another series.
    began = [str(since)] if (since := meta.extra.get("since_ns")) else []
    about: dict[str, Any] = {
        "capture": number, "series": _number(*series.values(), *began), **series,
        "taken": round(taken * 1e6), "clock_s": None if meta.clock_ns is None else
        meta.clock_ns / 1e9, "clock_ahead_s": machine.clock_ahead_s, "page_size": meta.page_size}
    columns = {name: pa.array([about[name]] * rows, OWNERS_SCHEMA.field(name).type)
               if name in about else owners[name] for name in OWNERS_SCHEMA.names}
    return Capture(number, taken, host, pa.table(columns, schema=OWNERS_SCHEMA), stacks)


def taken_by(meta: Metadata) -> float | None:
    """When a snapshot says that it was taken, in seconds since 1970; None if it does not."""
    if meta.taken_at is None:
        return None
    try:
        return float(calendar.timegm(time.strptime(meta.taken_at, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return None


def _number(*identity: object) -> int:
    digest = blake2b("\0".join(map(repr, identity)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _text(value: str | None, longest: int = _LONGEST) -> str | None:
    """A text that every engine takes: UTF-8 without NUL, not too long (`cut`)."""
    if value is None:
        return None
    return cut(value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00"), longest)


def _rows(snapshot: Snapshot, least_bytes: int) -> tuple[pa.Table, pa.Table]:
    """The owners, with null for what is known of the whole capture, and their stacks."""
    found, stacks = _with_stack_ids(snapshot)
    keys = [found, *(key(snapshot, name) for name in _KEYS)]
    pages = blocks_pages(snapshot)
    group, number, codes = groups(keys, len(pages))
    counted = row_blocks(snapshot.table)
    summed = {"pages": _sum(group, number, pages), "blocks": np.bincount(
        group, minlength=number).astype(np.int64) if counted is None else
        _sum(group, number, counted.astype(np.int64))}
    ages, unknown = _ages(snapshot, pages, group, number)
    summed |= ages
    large = summed["pages"] * snapshot.meta.page_size >= least_bytes
    order = np.flatnonzero(large)
    labels = {column.name: _taken(column, code[order])
              for column, code in zip(keys, codes, strict=True)}
    small = {name: int(values[~large].sum()) for name, values in summed.items()}
    ids = [*labels["stack"], 0]
    order_of = sorted(range(len(ids)), key=lambda place: (ids[place] is None, ids[place] or 0))
    columns: dict[str, Any] = {"stack_id": ids, **{
        name: [*(_text(value) for value in labels[name]), None]
        for name in ("comm", "memcg", "migratetype", "subsystem")}}
    columns["block_order"] = [*labels["order"], None]
    columns["state"] = [*(_text(value) or "owned" for value in labels["state"]), REST]
    names = snapshot.meta.container_names()
    for name, of_path in OF_PATH.items():
        columns[name] = [*(_text(of_path(path, names)) for path in labels["memcg"]), None]
    for name, values in summed.items():
        hidden = unknown[order] if name in ages else np.zeros(len(order), bool)
        columns[name] = [*(None if hide else value for value, hide in zip(
            values[order].tolist(), hidden.tolist(), strict=True)), small[name]]
    used = set(ids)
    kept = np.array([number in used for number in stacks["stack_id"].to_pylist()], bool)
    return pa.table({name: pa.array([values[place] for place in order_of],
                                    OWNERS_SCHEMA.field(name).type)
                     for name, values in columns.items()}), stacks.filter(pa.array(kept))


def _sum(group: NDArray[np.int64], number: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.zeros(number, np.int64)
    np.add.at(found, group, values)
    return found


def _taken(found: Key, codes: NDArray[np.int64]) -> list[Any]:
    labels = found.labels.to_pylist()
    return [labels[code] for code in codes.tolist()]


def _with_stack_ids(snapshot: Snapshot) -> tuple[Key, pa.Table]:
    """Each row's stack as its id, and the stacks by id, those of one id joined."""
    stack = key(snapshot, "stack")
    texts = pa.array([None if text is None or is_handle_name(text) else text
                      for text in stack.labels.to_pylist()], pa.string())
    functions = matched(texts)
    ids = stack_identities(functions).to_pylist()
    signed = [None if number is None else number - (1 << 64) if number >> 63 else number
              for number in ids]
    told = {name: _of_stack(snapshot, name, stack) for name in ("module", "frame", "allocator")}
    first: dict[int | None, int] = {}
    place = np.array([first.setdefault(number, len(first)) for number in signed] or [0], np.int64)
    rows: dict[int, dict[str, Any]] = {}
    for at, (number, text) in enumerate(zip(signed, functions.to_pylist(), strict=True)):
        if number is not None and number not in rows:
            rows[number] = {"stack_id": number, "stack": _text(text, _STACK_LONGEST),
                            **{name: _text(values[at]) for name, values in told.items()}}
    return (Key("stack", place[stack.codes], pa.array(list(first), pa.int64())),
            pa.Table.from_pylist(list(rows.values()), schema=STACKS_SCHEMA))


def _of_stack(snapshot: Snapshot, name: str, stack: Key) -> list[Any]:
    """What a key that is computed of the stack says of each distinct stack."""
    from pageowner.analysis import coded
    from pageowner.analysis.keys import coded_stacks

    labels: list[Any] = coded.labels_of(
        stack.labels, coded.OF_STACKS[name](coded_stacks(snapshot))).to_pylist()
    return labels


def _ages(snapshot: Snapshot, pages: NDArray[np.int64], group: NDArray[np.int64], number: int,
          ) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
    """Pages at least so old of each group, and the groups of which no age is known; a page of
    unknown age among others counts as old, as in ``leaks``."""
    found, known = times(snapshot)
    now = newest_ns(snapshot)
    ages = np.where(known, np.int64(now) - found.astype(np.int64), np.iinfo(np.int64).max)
    unknown = np.bincount(group, known, number) == 0
    return {age_column(age): _sum(group, number, np.where(ages >= age_ns(age), pages, 0))
            for age in AGES}, unknown
