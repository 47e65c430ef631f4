"""Which lines of a kernel log have nothing to do with memory, told of many lines at a time.

While no report is open, such a line is only counted. It may be left out if it could neither begin
a report nor be the end, or a part, of a line that does: `runs` looks at bytes and is sure where it
says so; of all other lines it says nothing.
"""

from __future__ import annotations

from threading import Thread
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Piece", "edges_of", "longest_line", "looked_at", "runs"]

# Of kernel_log_lines: what is a prefix there, and is told without looking further.
_DELTA = r"(?: < *\d+\.\d+>)?"
_TIME = r"\[ *\d+\.\d{3,9}" + _DELTA + r"\] "
_PREFIX = (r"[ \t]*(?:<\d{1,3}>)?(?:" + _TIME
           + r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \d{4}" + _DELTA + r"\] "
           r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d "
           r"|(?:[ADFJMNOS][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d"
           r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)"
           r"|[FMSTW][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]{3,5}"
           r"|\d{9,10}\.\d{6}) [!-~]+ kernel: (?:" + _TIME + r")?)")
# No time stands inside it, in front of which a console would have lost a line end.
_BODY = r"(?:[^\x00-\x08\n-\x1f\[]|\[+(?:[^\x00-\x20\x30-\x39\[]|\d+[^\x00-\x1f.\d\[]))*\r?\n"
_WHOLE = "^" + _PREFIX + _BODY + "$"
# All that kernel_log takes notice of, "page" wherever it stands, and what kernel_log_lines takes
# out of a line, behind which there may be more.
_TELLING = (
    r"oom-kill|allocation (?:failure|stalls)|vmalloc error|Mem-Info|Kill|slab info:|active_anon:"
    r"| free:|pid \]|Tasks state|Memory cgroup|[pP]age|belongs to the|PFNs busy|alloc_contig_range"
    r"|Show Memory|offlining|migrating pfn|suppressed|messages dropped|#012|\\x0a|[\x00\x1b]"
    r"|\r[^\n]|Kernel panic|^[>|]")
_TELLING_AMONG = "(?m)" + _TELLING
"""The same of lines together: no other part of it depends on where a line begins."""
_ALL_WHOLE = "^(?:" + _PREFIX + _BODY + ")+$"
"""Lines each of which is whole: none has a line end in it."""
_GROUP = 16
"""Lines that are looked at together."""


def edges_of(text: bytes) -> np.ndarray:
    """Where each line of a text begins, and behind the last line end."""
    return np.concatenate([[0], np.flatnonzero(
        np.frombuffer(text, np.uint8) == ord("\n")) + 1])


def longest_line(edges: np.ndarray, size: int) -> int:
    """Bytes of the longest line, with its end, of a text of so many bytes."""
    return int(np.diff(np.append(edges, size)).max())


class Piece(NamedTuple):
    """A piece of a log: where the lines behind the first line end begin, and where the last of them
    ends; None if no whole line is there. ``longest``: bytes of its longest line, with the parts of
    lines at both ends. ``idle``: see `runs`."""

    text: bytes
    edges: np.ndarray | None
    longest: int
    idle: list[tuple[int, int]]


def looked_at(text: bytes, has_prefixes: bool, most: int) -> Piece:
    """A piece of a log; that a line is longer than ``most`` is enough to know of it."""
    edges = edges_of(text)
    longest = longest_line(edges, len(text))
    if len(edges) < 3 or longest > most:
        return Piece(text, None, longest, [])
    edges = edges[1:]
    return Piece(text, edges, longest, runs(text[edges[0]:edges[-1]], edges - edges[0],
                                            has_prefixes))


def runs(text: bytes, edges: np.ndarray, has_prefixes: bool) -> list[tuple[int, int]]:
    """From which line on to which all have nothing to do with memory. ``text`` ends with a line
    end; ``edges`` are where its lines begin, and its end. ``has_prefixes``: a line without a prefix
    belongs to the line before."""
    whole: list[np.ndarray] = []
    # Arrow gives up Python's lock: both take the same time.
    other = Thread(target=lambda: whole.append(_are_whole(text, edges)), daemon=True)
    if has_prefixes:
        other.start()
    idle = ~_are_telling(text, edges)
    if has_prefixes:
        other.join()
        idle &= whole[0]
    turns = np.flatnonzero(np.diff(np.concatenate([[False], idle, [False]]).astype(np.int8)))
    return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))


def _are_telling(text: bytes, edges: np.ndarray) -> np.ndarray:
    """Which lines match `_TELLING`: those of groups in which one does are looked at by themselves,
    since each look costs as much as many bytes."""
    found = np.repeat(_matching(text, _groups(edges), _TELLING_AMONG), _GROUP)[:len(edges) - 1]
    return _alone(text, edges, found, found, _TELLING)


def _are_whole(text: bytes, edges: np.ndarray) -> np.ndarray:
    """Which lines match `_WHOLE`, in the same way."""
    found = np.repeat(_matching(text, _groups(edges), _ALL_WHOLE), _GROUP)[:len(edges) - 1]
    return _alone(text, edges, found, ~found, _WHOLE)


def _groups(edges: np.ndarray) -> np.ndarray:
    return np.append(edges[:-1:_GROUP], edges[-1])


def _alone(text: bytes, edges: np.ndarray, found: np.ndarray, looked_at: np.ndarray,
           pattern: str) -> np.ndarray:
    """What was found, with what the lines that are to be looked at say by themselves."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], looked_at, [False]]).astype(np.int8)))
    for begin, end in zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True):
        found[begin:end] = _matching(text, edges[begin:end + 1], pattern)
    return found


def _matching(text: bytes, edges: np.ndarray, pattern: str) -> np.ndarray:
    lines = pa.Array.from_buffers(pa.binary(), len(edges) - 1, [
        None, pa.py_buffer(edges.astype(np.int32)), pa.py_buffer(text)])
    found: np.ndarray = pc.match_substring_regex(lines, pattern).to_numpy(zero_copy_only=False)
    return found
