"""The lines of a kernel log without what dmesg, journals, consoles and mails put around them.

A line is stripped of quote marks, of blanks in front of a prefix, of the syslog header (``Nov 26
10:00:00 host kernel:``, also with an ISO time and the others of journalctl), of the level (``<6>``,
``kern  :info  :``), of the time (``[  123.456789]`` and the other forms of dmesg), and of the
caller (``[T123]``, ``[C4]``; kernel/printk/printk.c, CONFIG_PRINTK_CALLER), in any order. Records
of /dev/kmsg (Documentation/ABI/testing/dev-kmsg) are read too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, islice
from quopri import decodestring
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["HEX", "NUMBER", "SAMPLE", "Line", "Stripped"]

NUMBER = r"\d{1,20}"
"""Of the kernel's numbers none has more digits (2^64 - 1), and a log may hold anything: no number
of it is turned into one without such a limit."""

HEX = "[0-9a-f]{1,16}"
"""The same of addresses, page frames and masks."""

SAMPLE = 4096
"""Lines by which a log is judged."""

_BREAKS = 60
"""Characters before the end of a line that quoted-printable breaks, at least."""

_LONGEST = 1 << 14
"""Characters of a line to which no other is joined."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")
_AROUND = frozenset(">| \t")
_QUOTE = re.compile(r"(?:[>|]\s?)+")

_DATE = r"""(?:[A-Z][a-z]{2}\s+\d{1,2}\ \d\d:\d\d:\d\d(?:\.\d+)?          # Nov 26 10:00:00
      |\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|\s?[+-]\d\d:?\d\d)?  # ISO 8601
      |[A-Z][a-z]{2}\ \d{4}-\d\d-\d\d\ \d\d:\d\d:\d\d(?:\.\d+)?\ \S+     # journalctl -o short-full
      |\d{9,10}\.\d{6}                                                # short-unix
      )\s"""
_SYSLOG = re.compile(
    _DATE + r"""(?P<rest>\S+\s(?:kernel|\[kernel\]|kernel\[\d+\])\s?:?|\[kernel\]|kernel:)\s?""",
    re.VERBOSE)
_OTHER = re.compile(_DATE + r"\S+\s[^\s:\[]{1,64}(?:\[\d+\])?:\s", re.VERBOSE)
"""What a syslog has in front of another program's line."""

_SHORT_MONOTONIC = re.compile(
    r"\[\s*(?P<time>\d+\.\d+)(?:\s+(?:<[^>]{1,20}>)?)?\]\s\S+\skernel:\s")
"""Also short-delta, of journalctl too."""
_ISO = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d)(?: |$)")
"""dmesg --time-format iso, which has a comma."""
_LOGCAT = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d\.\d+\s+\d+\s+\d+ [A-Z] \S+\s*: ")
_LEVEL = re.compile(r"<\d{1,3}>")
_FACILITY = re.compile(r"(?:kern|user|daemon|auth|syslog)\s*:\s?[a-z]+\s*: ?")
_TIME = re.compile(
    r"""\[(?:(?P<time>
        \s*\+?\d+\.\d{3,9}                                                # seconds since boot
      | [^\W\d]\S{0,9}\ +\S{2,9}\ +\d+\ \d\d:\d\d:\d\d(?:\ [A-Z]+)?\ \d{4}  # dmesg -T, any language
      | [A-Z][a-z]{2}\ ?\d+\ \d\d:\d\d                                    # dmesg -e
      | \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^\]\s]*
      )(?:\ <\s*-?\d+\.\d+>)?                                            # dmesg -d
      |<\s*-?\d+\.\d+>                                                  # --time-format delta
      )\](?::)?\ ?""",
    re.VERBOSE)
_PLAIN_TIME = re.compile(r"\[\s*(\d+\.\d{3,9})\] (?!\S+\skernel:\s)")
"""What `_TIME` finds on nearly all lines, and `_SHORT_MONOTONIC` on none of these."""
_CALLER = re.compile(r"\[\s*(?P<caller>[TC]\d+)\]\ ?")
_VENDOR = re.compile(r"\(\d\)\[\d+:[^\]]{1,40}\]|\[\d+: ?[^\]]{1,40}: ?\d+\] ?")
_KMSG = re.compile(rf"\d+,\d+,(?P<time>{NUMBER}),[^;,]*(?:,caller=(?P<caller>[TC]\d+))?[^;]*;")
_INNER = re.compile(r"(?<=\S)\s*(?=\[\s*\d{1,7}\.\d{6}\](?:\[\s*[TC]\d+\])?\s)")


_BY_FIRST = {
    "[": (_SHORT_MONOTONIC, _TIME, _CALLER, _VENDOR), "<": (_LEVEL,), "(": (_VENDOR,),
    **dict.fromkeys("0123456789", (_SYSLOG, _ISO, _LOGCAT)),
    **dict.fromkeys("ADFJMNOSTW", (_SYSLOG,)),
    **dict.fromkeys("kudas", (_FACILITY,))}
"""What a prefix can be, by its first character."""


@dataclass(slots=True)
class Line:
    """``number``: from 1; ``time`` and ``caller`` are empty where the log does not tell them;
    ``has_prefix``: whether anything was taken off."""

    number: int
    text: str
    time: str = ""
    caller: str = ""
    has_prefix: bool = False
    quoted: bool = False


class Stripped:
    """Lines of a log as the kernel printed them, those put together that a mail or a printk of
    several lines had broken; when all were taken, ``number`` of all, and how many were ``joined``
    or ``quoted``; ``was_encoded``: whether it was quoted-printable, as in a mail's source.
    ``has_prefixes``: whether the lines have, so that one without belongs to the line before.

    A number among ``texts``, behind the first `SAMPLE`, stands for so many lines that are left
    out: they, and the line in front and that behind them, are to have prefixes, if lines have.
    """

    def __init__(self, texts: Iterable[str | int]) -> None:
        self.number = self.joined = self.quoted = 0
        self.was_encoded = self.has_prefixes = False
        self._texts = iter(texts)

    def __iter__(self) -> Iterator[Line]:
        lines = self._lines()
        first = list(islice(lines, SAMPLE))
        told = [line for line in first if line.text]
        # A log with prefixes has one on each line: what has none belongs to the line before.
        self.has_prefixes = len(told) > 1 and (
            2 * sum(line.has_prefix for line in told) >= len(told))
        everything = chain(first, lines)
        yield from self._whole(everything) if self.has_prefixes else everything

    def _lines(self) -> Iterator[Line]:
        first = list(islice(self._texts, SAMPLE))
        texts = chain(first, self._texts)
        self.was_encoded = _is_encoded([text for text in first if isinstance(text, str)])
        for number, text in self._decoded(texts) if self.was_encoded else self._numbered(texts):
            for line in _apart(number, text):
                self.quoted += line.quoted
                yield line

    def _numbered(self, texts: Iterable[str | int]) -> Iterator[tuple[int, str]]:
        for text in texts:
            if isinstance(text, int):
                self.number += text
                continue
            self.number += 1
            yield self.number, text

    def _decoded(self, texts: Iterable[str | int]) -> Iterator[tuple[int, str]]:
        """Lines of quoted-printable (RFC 2045, 6.7), each with the number of its first part."""
        began, parts = 0, ""
        for number, text in self._numbered(texts):
            began = began if parts else number
            text = text.rstrip("\r")
            if text.endswith("=") and len(parts) < _LONGEST:
                parts += text[:-1]
                continue
            yield began, _characters(parts + text)
            parts = ""
        if parts:
            yield began, _characters(parts)

    def _whole(self, lines: Iterator[Line]) -> Iterator[Line]:
        last: Line | None = None
        for line in lines:
            if last is not None and last.has_prefix and line.text and not line.has_prefix and (
                    len(last.text) < _LONGEST):
                self.joined += not line.text[0].isspace()
                last.text = f"{last.text.rstrip()} {line.text.strip()}"
                continue
            if last is not None:
                yield last
            last = line
        if last is not None:
            yield last


def _is_encoded(texts: list[str]) -> bool:
    broken = sum(len(text) > _BREAKS and text.rstrip("\r").endswith("=") for text in texts)
    return broken > 1 and any("=3D" in text for text in texts)


def _characters(text: str) -> str:
    return decodestring(text.encode("utf-8", "surrogateescape")).decode("utf-8", "backslashreplace")


def _apart(number: int, text: str) -> Iterator[Line]:
    """The line, or two where a console lost the end between them."""
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    first = _line(number, text.replace("\r", "").replace("\0", "").rstrip())
    inner = _INNER.search(first.text) if first.has_prefix and "[" in first.text else None
    if inner is None:
        yield first
        return
    rest = first.text[inner.end():]
    first.text = first.text[:inner.start()]
    yield first
    yield _line(number, rest)


def _begins_with_prefix(text: str) -> bool:
    patterns = _BY_FIRST.get(text[:1])
    return patterns is not None and (
        _KMSG.match(text) is not None or any(pattern.match(text) for pattern in patterns))


def _line(number: int, text: str) -> Line:
    line = Line(number, text)
    if text[:1] in _AROUND:
        if quote := _QUOTE.match(text):
            text, line.quoted = text[quote.end():], True
        if _begins_with_prefix(plain := text.lstrip(" \t")):
            text = plain
    if text[:1].isdigit() and (found := _KMSG.match(text)):
        time = int(found["time"])
        line.time, line.caller = f"{time // 10**6}.{time % 10**6:06}", found["caller"] or ""
        line.text = text[found.end():].replace("\\x0a", " ")  # line ends of one message
        line.has_prefix = True
        return line
    if found := _PLAIN_TIME.match(text):
        line.time, text, line.has_prefix = found[1], text[found.end():], True
    while True:
        for pattern in _BY_FIRST.get(text[:1], ()):
            found = pattern.match(text)
            if found is None:
                continue
            named = found.groupdict()
            line.time = (named.get("time") or "").strip() or line.time or (
                text[:found.start("rest")].strip() if pattern is _SYSLOG else "")
            line.caller = named.get("caller") or line.caller
            line.has_prefix = True
            text = text[found.end():]
            if pattern is _SYSLOG:  # rsyslog writes line ends so
                text = text.replace("#012", " ")
                if found := _PLAIN_TIME.match(text):
                    line.time, text = found[1], text[found.end():]
            break
        else:
            # Another program's line belongs to no line of the kernel, though it keeps its header.
            line.has_prefix = line.has_prefix or _OTHER.match(text) is not None
            line.text = text
            return line
