"""Where a fleet's files are, below one folder or prefix of a bucket.

::

    v1/owners/day=2026-11-26/hour=14/owners.parquet      an hour, compacted
    v1/stacks/stacks.parquet                             all stacks, compacted
    v1/incoming/owners/day=2026-11-26/hour=14/N.parquet  one capture each, N its number in 16 digits
    v1/incoming/stacks/N.parquet                         stacks that were new with that capture
    v1/snapshots/day=2026-11-26/hour=14/N.parquet        whole snapshots, where asked for

``v1`` is `SCHEMA_VERSION`: what a newer version writes that this one could misread lies elsewhere.

Names of hosts, tasks and labels are nowhere in a path. A capture has the same path whoever pushes
it and however often, so that what is sent twice is there once.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from pageowner.fleet.columns import SCHEMA_VERSION

__all__ = ["INCOMING", "INCOMING_STACKS", "OWNERS", "SNAPSHOTS", "STACKS", "STACKS_FILE", "Hour",
           "digits", "hour_of", "incoming", "incoming_stacks", "number_of", "partition_of",
           "snapshot"]

_VERSION = f"v{SCHEMA_VERSION}"
OWNERS, STACKS = f"{_VERSION}/owners", f"{_VERSION}/stacks"
INCOMING, INCOMING_STACKS = f"{_VERSION}/incoming/owners", f"{_VERSION}/incoming/stacks"
SNAPSHOTS = f"{_VERSION}/snapshots"

STACKS_FILE = f"{STACKS}/stacks.parquet"

_PARTITION = re.compile(r"day=(\d{4}-\d\d-\d\d)/hour=(\d\d)/([^/]+)\.parquet\Z")
_NUMBER = re.compile(r"[0-9a-f]{16}")


class Hour(NamedTuple):
    """A partition: ``day`` as 2026-11-26, ``hour`` as 00 to 23, of UTC."""

    day: str
    hour: str

    @property
    def folder(self) -> str:
        return f"day={self.day}/hour={self.hour}"

    @property
    def compacted(self) -> str:
        """The path of its compacted file."""
        return f"{OWNERS}/{self.folder}/owners.parquet"


def hour_of(taken: float) -> Hour:
    """The partition of a moment (seconds since 1970). One before 1970 is in the first: days are
    compared as text, for which a year of three digits is not before one of four."""
    day, hour = time.strftime("%Y-%m-%d %H", time.gmtime(max(taken, 0.0))).split()
    return Hour(day, hour)


def digits(number: int) -> str:
    """A signed number of 64 bits, a capture's or a stack's, as 16 hexadecimal digits."""
    return f"{number & (1 << 64) - 1:016x}"


def number_of(text: str) -> int | None:
    """The inverse of `digits`; None for anything else."""
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text, 16)
    return number - (1 << 64) if number >> 63 else number


def incoming(number: int, taken: float) -> str:
    """The path of a capture."""
    return f"{INCOMING}/{hour_of(taken).folder}/{digits(number)}.parquet"


def incoming_stacks(number: int) -> str:
    """The path of the stacks that were new with a capture."""
    return f"{INCOMING_STACKS}/{digits(number)}.parquet"


def snapshot(number: int, taken: float) -> str:
    """The path of a whole snapshot."""
    return f"{SNAPSHOTS}/{hour_of(taken).folder}/{digits(number)}.parquet"


def partition_of(path: str) -> tuple[Hour, str] | None:
    """The partition of a Parquet file and its name without the ending; None for what is none, or
    is in no partition."""
    found = _PARTITION.search(path)
    return None if found is None else (Hour(found[1], found[2]), found[3])
