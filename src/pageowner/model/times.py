"""Moments and lengths of time as people write them: ``14:30``, ``2026-11-23 14:30``, ``2h`` ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pageowner.errors import UsageError

__all__ = ["duration_ns", "moment"]

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9,
          "h": 3600 * 10**9, "d": 86400 * 10**9}


def duration_ns(text: str) -> int:
    """``90s``, ``5m``, ``1.5h``, ``2d`` in nanoseconds; a bare number is seconds.

    Raises UsageError for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    unit = _UNITS.get((found[2] or "s") if found else "")
    if not found or unit is None or len(found[1]) > 15:
        raise UsageError(f"{text!r} is not a valid duration; write 30s, 5m, 2h or 1d")
    return int(float(found[1]) * unit)


def moment(text: str, now: datetime | None = None) -> float:
    """Seconds since 1970: a date and time of ISO 8601 (local, unless it says otherwise), a time of
    day (the last such), or how long ago.

    Raises UsageError for anything else.
    """
    now = (now or datetime.now()).astimezone()
    text = text.strip()
    try:
        if re.fullmatch(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?", text):
            hour, minute, second = (float(part) for part in (text + ":0").split(":")[:3])
            # By the clock on the wall, whose day may be an hour longer or shorter.
            found = now.replace(hour=int(hour), minute=int(minute), second=int(second),
                                microsecond=round(second % 1 * 1e6), tzinfo=None)
            if found.timestamp() > now.timestamp():
                found -= timedelta(days=1)
            return found.timestamp()
        ago = text.removesuffix("ago").strip()
        if re.fullmatch(r"[\d.]+\s*[a-z]+", ago):
            return now.timestamp() - duration_ns(ago) / 1e9
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a valid time; write 14:30, 2026-11-23T14:30 or 2h (ago)"
                         ) from error
