"""The questions about a fleet, as SQL that DuckDB and Spark both take, written once.

Each is a function of the columns to group by that returns the text of one SELECT. What is chosen
comes as tables: ``chosen_series (series, side, machines)``, ``chosen_captures`` and, where there
are filters, ``chosen_COLUMN (value)``. SQL, not a layer above it such as Ibis: both engines take
the same text where it keeps to standard SQL and a few functions that both have (max_by, min_by,
windows), readers can copy it, and there is nothing more to install.

An owner that a machine does not have has 0 pages there: so percentiles are taken by rank, among
all machines, and are values that occur, the same in every engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IS_SMALL", "SERIES", "diff", "growing", "latest", "out_of_line", "report",
           "series_of_owners", "who_else"]

IS_SMALL = "CASE WHEN o.stack_id = 0 THEN 1 ELSE 0 END"
"""What to group by beside the keys: 1 for the row of owners too small for rows of their own. Its
keys are null, as those of early pages are, which are another owner."""

_NUMBERS = ("o.stack_id", "o.block_order", IS_SMALL)
_NOTHING = "chr(0)"
"""No text of the tables has it (`pageowner.fleet.capture`); both engines have the function."""

SERIES = """
SELECT series, min(host) AS host, min(machine) AS machine, min(boot_id) AS boot_id,
       min(kernel) AS kernel, min(labels) AS labels, min(page_size) AS page_size,
       max(page_size) AS largest_page, count(*) AS captures, min(taken_s) AS first_s,
       max(taken_s) AS last_s, max(clock_ahead_s) AS clock_ahead_s
FROM captures WHERE taken_s >= {since!r} AND taken_s <= {until!r} GROUP BY series
"""
"""What captures there are: a row a series. ``since`` and ``until`` are seconds since 1970."""


def latest(since: float, until: float) -> str:
    """The last capture of each chosen machine."""
    return f"""
SELECT max_by(c.capture, c.taken_s) AS capture, s.machine_no
FROM captures c JOIN chosen_series s ON c.series = s.series
WHERE c.taken_s >= {since!r} AND c.taken_s <= {until!r} GROUP BY s.machine_no
"""


def _stacks(keys: Sequence[str], conditions: Sequence[str]) -> str:
    """The table of stacks, where a key or condition is of it (``st.``)."""
    return (" LEFT JOIN stacks st ON o.stack_id = st.stack_id"
            if any(text.startswith("st.") for text in (*keys, *conditions)) else "")


def _and(conditions: Sequence[str]) -> str:
    return "".join(f" AND {condition}" for condition in conditions)


def _owners(keys: Sequence[str], conditions: Sequence[str], pages: str, joined: str,
            also: Sequence[str] = ()) -> str:
    """Pages by keys of the chosen captures; only of owners that have any of those that count.
    Blocks are of all ages, whatever pages count: the tables have none by age."""
    names = ", ".join(f"{key} AS k{place}" for place, key in enumerate(keys))
    groups = ", ".join([*(also or ()), *keys])
    shown = ", ".join([*(also or ()), names, f"CAST(sum({pages}) AS BIGINT) AS pages",
                       "CAST(sum(o.blocks) AS BIGINT) AS blocks"])
    return (f"SELECT {shown} FROM owners o JOIN {joined}{_stacks(keys, conditions)}"
            f" WHERE o.pages > 0{_and(conditions)} GROUP BY {groups} HAVING sum({pages}) > 0")


def _never_null(key: str, value: str) -> str:
    """A value of a key with something else in place of null, for a join by equality: engines have
    no fast way to join by IS NOT DISTINCT FROM."""
    return f"coalesce({value}, {-1 if key in _NUMBERS else _NOTHING})"


def _keys(keys: Sequence[str], table: str = "") -> str:
    return ", ".join(f"{table}k{place}" for place in range(len(keys)))


def _ranked(keys: Sequence[str], conditions: Sequence[str], pages: str, machines: int) -> str:
    """By key and machine, with each one's rank among all machines, those without it first, and the
    key's median and fence; above the fence a machine stands out (`report`)."""
    names = _keys(keys)
    each = _owners(keys, conditions, pages,
                   "chosen_captures c ON o.capture = c.capture", ["c.machine_no"])
    at = {share: max(-(-machines * share // 100), 1) for share in (25, 50, 75, 99)}
    ranks = ", ".join(f"max(CASE WHEN place = {rank} THEN pages ELSE 0 END) AS p{share}"
                      for share, rank in at.items())
    return f"""
WITH each AS ({each}),
ranked AS (SELECT *, {machines} - count(*) OVER (PARTITION BY {names})
           + row_number() OVER (PARTITION BY {names} ORDER BY pages, machine_no) AS place
           FROM each),
summed AS (SELECT {names}, count(*) AS machines, CAST(sum(pages) AS BIGINT) AS pages,
           CAST(sum(blocks) AS BIGINT) AS blocks, {ranks}, max(pages) AS most
           FROM ranked GROUP BY {names}),
"""


_FENCE = """
fenced AS (SELECT *, p50 + CAST(6 * greatest((p75 - p25) / 1.349, p50 / 10.0, {least} / 6.0)
           AS BIGINT) AS fence FROM summed)
"""


def report(keys: Sequence[str], conditions: Sequence[str], pages: str, machines: int,
           least_pages: int) -> str:
    """Owners across machines, each machine as it was last: k0… , machines that have it, pages and
    blocks in all, p25, p50, p75, p99 and most of one machine, and the fence.

    A machine stands out where it has more than the median and six times the spread: the distance
    of the quartiles in units of a standard deviation (1.349), at least a tenth of the median, and
    in all at least ``least_pages``. Neither a few machines nor their size move that.
    """
    return _ranked(keys, conditions, pages, machines) + _FENCE.format(least=least_pages) + (
        f"SELECT * FROM fenced ORDER BY pages DESC, {_keys(keys)}")


def out_of_line(keys: Sequence[str], conditions: Sequence[str], pages: str, machines: int,
                least_pages: int) -> str:
    """The machines that stand out, each with the owner: k0…, machine_no, pages."""
    same = " AND ".join(f"{_never_null(key, f'r.k{place}')} = {_never_null(key, f'f.k{place}')}"
                        for place, key in enumerate(keys))
    return _ranked(keys, conditions, pages, machines) + _FENCE.format(least=least_pages) + (
        f"SELECT {_keys(keys, 'r.')}, r.machine_no, r.pages FROM ranked r JOIN fenced f ON {same}"
        f" WHERE r.pages > f.fence ORDER BY r.pages DESC, r.machine_no, {_keys(keys, 'r.')}")


def diff(keys: Sequence[str], conditions: Sequence[str], pages: str) -> str:
    """Owners before and after, by the mean of each machine's captures on each side: k0…, for each
    side how many machines have it (``had``, ``have``) and the sum of their means, and ``ranks``,
    the sum of the ranks of those after among both, ties at their middle."""
    names = _keys(keys)
    each = _owners(keys, conditions, pages,
                   "chosen_captures c ON o.capture = c.capture",
                   ["c.side", "c.machine_no", "c.captures"])
    return f"""
WITH each AS ({each}),
means AS (SELECT {names}, side, pages / CAST(captures AS DOUBLE) AS mean FROM each),
ranked AS (SELECT *, rank() OVER (PARTITION BY {names} ORDER BY mean)
           + (count(*) OVER (PARTITION BY {names}, mean) - 1) / 2.0 AS place FROM means)
SELECT {names}, count(CASE WHEN side = 0 THEN 1 END) AS had,
       count(CASE WHEN side = 1 THEN 1 END) AS have,
       sum(CASE WHEN side = 0 THEN mean ELSE 0 END) AS before,
       sum(CASE WHEN side = 1 THEN mean ELSE 0 END) AS after,
       sum(CASE WHEN side = 1 THEN place ELSE 0 END) AS ranks
FROM ranked GROUP BY {names}
"""


def growing(keys: Sequence[str], conditions: Sequence[str], settled: Sequence[str],
            least_pages: int, unit: str) -> str:
    """Owners of a run (a machine's boot) that may leak: whose settled pages (of unknown age: all)
    are ``least_pages`` more at its end than at its start, and more in its last third than in its
    first. ``settled``: the columns that count them; a run's is the one at its ``settled_no``.
    ``unit``: see `pageowner.fleet.choosing.Owners`. No leak by the rules is passed over, but for
    one whose trend rises while its last third has less.
    """
    choices = "".join(f" WHEN {place} THEN o.{column}" for place, column in enumerate(settled))
    value = f"coalesce(CASE c.settled_no{choices} END, o.pages){unit}"
    names = ", ".join(f"{key} AS k{place}" for place, key in enumerate(keys))
    return f"""
SELECT c.run, {names} FROM owners o JOIN chosen_captures c ON o.capture = c.capture
{_stacks(keys, conditions)} WHERE o.stack_id IS DISTINCT FROM 0{_and(conditions)}
GROUP BY c.run, {', '.join(keys)}
HAVING sum(c.weight_end * {value}) >= {least_pages} AND sum(c.weight_third * {value}) > 0
"""


def series_of_owners(keys: Sequence[str], conditions: Sequence[str],
                     columns: Sequence[str], unit: str) -> str:
    """The series of those that may leak, of which ``wanted`` has a row for each capture of their
    run: run, clock_s, k0…, pages, ages. One join, by equality: an engine that could choose to join
    owners by name first would have each with those of all machines."""
    same = " AND ".join(f"{_never_null(key, key)} = {_never_null(key, f'w.k{place}')}"
                        for place, key in enumerate(keys))
    names = _keys(keys, "w.")
    sums = "".join(f", CAST(sum(o.{column}{unit}) AS BIGINT) AS {column}" for column in columns)
    return f"""
SELECT w.run, w.clock_s, {names}, CAST(sum(o.pages{unit}) AS BIGINT) AS pages{sums}
FROM owners o{_stacks(keys, conditions)} JOIN wanted w ON o.capture = w.capture AND {same}
WHERE o.stack_id IS DISTINCT FROM 0{_and(conditions)} GROUP BY w.run, w.clock_s, {names}
"""


def who_else(conditions: Sequence[str], pages: str) -> str:
    """The chosen series that have such owners: when first and last, and their pages at last."""
    return f"""
WITH each AS (
SELECT o.series, o.capture, o.taken_s, CAST(sum({pages}) AS BIGINT) AS pages
FROM owners o JOIN chosen_captures c ON o.capture = c.capture
{_stacks((), conditions)} WHERE o.pages > 0{_and(conditions)}
GROUP BY o.series, o.capture, o.taken_s HAVING sum({pages}) > 0)
SELECT series, count(*) AS captures, min(taken_s) AS first_s, max(taken_s) AS last_s,
       max_by(pages, taken_s) AS pages, max(pages) AS most FROM each GROUP BY series
"""
