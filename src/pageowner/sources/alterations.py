"""What happens to page owner's text after the kernel printed it, and how each is undone.

Mail quotes and wraps it, a log puts times in front, terminals and other systems change its line
ends and its encoding, pastes lose or gain spaces and empty lines. `alterations` looks at the
beginning of a text and says what was done; each undoes it in any part of the text that ends with a
line, or with a record (`Alteration.by_record`).

Only what leaves no doubt is undone: a name of a task may hold any 15 bytes, so what a line says is
never touched, only what is in front of it, at its end, and between lines.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from pageowner.sources import other_programs
from pageowner.sources.alteration import Alteration
from pageowner.sources.as_printed import (
    LINE_ENDS,
    has_header,
    has_other_line_ends,
    is_as_printed,
    is_header,
    is_pfn_line,
    without_cr,
)
from pageowner.sources.minidump import minidump
from pageowner.sources.page_owner_grammar import parse_header
from pageowner.sources.page_owner_parser import CUT, START, TORN

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["alterations"]


_ANCHOR = re.compile(rb"^([^\n]*?)(Page allocated via order \d|nr_base_pages: \d|"
                     rb"\b\d+ times, \d+ pages)", re.MULTILINE)
_ROUNDS = 3
"""A quoted mail of an indented log has three prefixes."""

# -- line ends ---------------------------------------------------------------------------------

def _line_ends(head: bytes) -> Alteration | None:
    if b"\n" not in head and re.search(rb"\rPFN |\r\r", head):
        return Alteration(LINE_ENDS, lambda text: text.replace(b"\r", b"\n"))
    first = head.partition(b"\n")[0]
    if (has_other_line_ends(head) or (b"\r" in head and head.count(b"\n") == head.count(b"\r\n"))
            or (first.endswith(b"\r") and first.startswith(START)
                and is_header(first[len(START):].rstrip(b"\r")))):
        return Alteration(LINE_ENDS, without_cr)
    return None


# -- terminals ---------------------------------------------------------------------------------

# ECMA-48: control sequences, and operating system commands such as a window's title.
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[()][0-9A-B])"
                      rb"(?:\r(?!\n))?")
_COMMAND = re.compile(rb"\A(?:Script started on [^\n]*\n)?(?:([^\n]{0,200}?[#$%>] ?)"
                      rb"[^\n]*page_owner[^\n]*\n)?", re.DOTALL)


def _without(undo: Callable[[bytes], bytes], text: bytes) -> bytes:
    """With a line end in front of each line, which is found faster than a place behind one."""
    return undo(b"\n" + text)[1:]


def _escapes(head: bytes) -> Alteration | None:
    first = head.find(START)
    if b"\x1b" in (head if first < 0 else head[:first]) and _ESCAPES.search(head):
        return Alteration("control sequences of a terminal",
                          lambda text: _ESCAPES.sub(b"", text))
    return None


def _session(head: bytes) -> Alteration | None:
    """The command and the prompts of a terminal's log, which are no part of a dump."""
    found = _COMMAND.match(head)
    if not found or not found[0] or not head.startswith(START, found.end()):
        return None
    begun = found[0]
    prompt = re.escape(found[1].rstrip()) if found[1] and found[1].strip() else None
    lines = [rb"Script (?:started|done) on [^\n]*", *([prompt + rb"[^\n]*"] if prompt else [])]
    pattern = re.compile(rb"\n(?:" + rb"|".join(lines) + rb")(?=\n|\Z)")

    def undo(text: bytes) -> bytes:
        if text.startswith(begun):
            text = text[len(begun):]
        return _without(lambda text: pattern.sub(b"", text), text)

    return Alteration("the command and prompts of a terminal", undo)


# -- characters --------------------------------------------------------------------------------

_ENTITIES = ((b"&lt;", b"<"), (b"&gt;", b">"), (b"&quot;", b'"'), (b"&#39;", b"'"),
             (b"&nbsp;", b" "), (b"&amp;", b"&"))


def _unescaped(text: bytes) -> bytes:
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def _characters(head: bytes) -> Alteration | None:
    if re.search(rb"^\s*\[&lt;[0-9a-f]+&gt;\]|^&nbsp;", head, re.MULTILINE):
        return Alteration("entities of HTML", _unescaped)
    if re.search(rb"^\xc2\xa0", head, re.MULTILINE):
        return Alteration("no-break spaces", lambda text: text.replace(b"\xc2\xa0", b" "))
    if re.search(rb"Page allocated via order [^\n\\]*\\nPFN ", head):
        return Alteration("line ends as \\n", lambda text: text.replace(b"\\n", b"\n"))
    return None


# -- in front of lines -------------------------------------------------------------------------

_WHEN = (rb"(?:[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d+)?|"
         rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?|"
         rb"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]|"
         rb"\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}(?: +\d+ +\d+ [A-Z])?)")
_UPTIME = rb"\[ *\d+\.\d+\](?: ?\[[^\]\n]{1,32}\]| ?\(\d+\))*:?"
_HOST, _PROGRAM = rb"[^ \n\[]{1,64}", rb"[\w.()/-]{1,32} *(?:\[\d+\])?:"
# Of dmesg, syslog, journalctl and logcat. Whoever cuts blanks at line ends cuts the last one too.
_LOG = (rb"(?:<\d{1,3}>)?" + _UPTIME + rb" ?",
        *(time + b" " + rest + rb" ?" for time in (_WHEN, _UPTIME) for rest in (
            _HOST + b" " + _PROGRAM + b" " + _UPTIME, _HOST + b" " + _PROGRAM,
            _PROGRAM + b" " + _UPTIME, _PROGRAM, _UPTIME)),
        _WHEN + rb":? ?")
_PREFIXES = (*(("times of a log", pattern) for pattern in _LOG),
             ("marks of a quotation", rb"(?:[>|] ?)+"),
             ("line numbers", rb" *\d{1,9}[:|\t-] ?"))
# In front of other prefixes.
_OUTER = (("marks of a quotation", rb"(?:[>|] ?)+"), ("spaces", rb"[ \t]+(?=[<\[\d>|])"))
# Anything else that is the same in front of all, but no words or numbers, which may mean something.
_SAME = re.compile(rb"[^0-9A-Za-z\n]{1,40}\Z")


def _prefix(head: bytes) -> Alteration | None:
    prefixes = [found[1] for found in _ANCHOR.finditer(head)]
    given = [prefix for prefix in prefixes if prefix]
    if not given or 2 * len(given) <= len(prefixes):
        return None
    for name, pattern in _PREFIXES:
        whole = re.compile(pattern + rb"\Z")
        if all(map(whole.match, given)):
            if not any(prefix.endswith(b" ") for prefix in given):
                pattern = pattern.replace(rb" ?)+", rb")+").removesuffix(b" ?")
            every = re.compile(rb"\n(?:" + pattern + rb")")
            return Alteration(f"{name} in front of lines",
                              partial(_without, lambda text: every.sub(b"\n", text)))  # noqa: B023
    for name, pattern in _OUTER:
        if all(re.match(pattern, prefix) for prefix in given):
            outer = re.compile(rb"\n(?:" + pattern + rb")")
            return Alteration(f"{name} in front of lines",
                              partial(_without, lambda text: outer.sub(b"\n", text)))  # noqa: B023
    same = given[0]
    if given.count(same) != len(given) or not _SAME.match(same):
        return None
    what = "spaces" if not same.strip() else f"'{same.decode('ascii', 'backslashreplace')}'"
    begun = same.rstrip()

    def undo(text: bytes) -> bytes:
        text = text.replace(b"\n" + same, b"\n")
        # Of an empty line only the beginning may be left.
        return re.sub(rb"\n" + re.escape(begun) + rb"[ \t]*(?=\n|\Z)", b"\n", text)

    return Alteration(f"{what} in front of lines", partial(_without, undo))


def _blanks_behind(head: bytes) -> Alteration | None:
    if not re.search(rb"\n[ \t]+\n+Page allocated|^Page allocated [^\n]* \n", head, re.MULTILINE):
        return None

    def undo(text: bytes) -> bytes:
        text = text.replace(b"\t\n", b" \n")
        while b" \n" in text:
            text = text.replace(b" \n", b"\n")
        return text

    return Alteration("spaces at the end of lines", undo)


# -- between lines -----------------------------------------------------------------------------

# -- wrapped -----------------------------------------------------------------------------------

_JOINS = 6
_MODULE = re.compile(rb"\[(?!(?:alloc|free)\])[\w-]+\] *\Z")


def _join(lines: list[bytes], is_whole: Callable[[bytes], bool]) -> None:
    """Joins the first lines, with a blank between or none, until they are a whole one; leaves them
    if they never are."""
    candidates = [lines[0]]
    for end in range(1, min(_JOINS, len(lines)) + 1):
        if found := next(filter(is_whole, candidates), None):
            lines[:end] = [found]
            return
        if end < len(lines):
            # No blank is in the flags, which are between brackets.
            candidates = [line.removesuffix(b"\\") + between + lines[end]
                          for line in candidates for between in (
                (b"", b" ") if line.rfind(b"(") > line.rfind(b")") else (b" ", b""))]


def _unwrapped(record: bytes, in_name: bytes | None = None) -> bytes:
    """One record without its `START`; ``in_name``: what to put for a line end in a task's name, if
    it is not a part of that."""
    if has_header(record):
        length = parse_header(record)[-1]
        first, lines = record[:length], record[length:].split(b"\n")
        if in_name is not None:
            first = first[:-1].replace(b"\n", in_name) + first[-1:]
    else:
        lines = record.split(b"\n")
        _join(lines, is_header)
        first, lines = lines[0] + b"\n", lines[1:]
    if lines and lines[0].startswith(b"PFN"):
        _join(lines, is_pfn_line)
    rest: list[bytes] = []
    for line in lines:
        if rest and rest[-1][:1] in (b" ", b"\t", b"[") and _MODULE.match(line):
            rest[-1] += b" " + line
        elif rest and re.match(rb"\+?0x[0-9a-f]+/0x[0-9a-f]+", line):
            rest[-1] += line
        else:
            rest.append(line)
    return first + b"\n".join(rest)


def _wrapped(head: bytes) -> Alteration | None:
    widths = set()
    number = 0
    for record in (b"\n" + head).split(TORN)[1:]:
        again = _unwrapped(record)
        lines = again.split(b"\n", 2)
        if lines[:2] != record.split(b"\n", 2)[:2] and is_header(lines[0]) and (
                not lines[1].startswith(b"PFN") or is_pfn_line(lines[1])):
            number += 1
            if not record.startswith(lines[0]):
                widths.add(record.find(b"\n"))
    if not number:
        return None
    # A terminal cuts all at one width, mail between words.
    in_name = b"" if widths and max(widths) - min(widths) <= 1 < number else b" "

    def undo(text: bytes) -> bytes:
        first, *records = (b"\n" + text).split(TORN)
        return TORN.join([first, *(_unwrapped(record, in_name) for record in records)])[1:]

    return Alteration("lines wrapped", undo, by_record=True)


def _double_spaced(head: bytes) -> Alteration | None:
    starts = len(re.findall(rb"^Page allocated ", head, re.MULTILINE))
    spaced = len(re.findall(rb"^Page allocated [^\n]*\n\nPFN ", head, re.MULTILINE))
    if not spaced or 2 * spaced <= starts:
        return None
    return Alteration("empty lines between all lines",
                      lambda text: text.replace(b"\n\n", b"\n"), by_record=True)


def _no_empty_lines(head: bytes) -> Alteration | None:
    gaps = head.count(TORN)
    if not gaps or head.count(CUT):
        return None
    for record in head.split(TORN)[:-1]:
        lines = record.removeprefix(START).split(b"\n")
        # What is cut short by the next record is not whole, and no line of a stack ends it.
        if not (is_header(lines[0]) and len(lines) > 2 and lines[1].startswith(b"PFN ")
                and is_pfn_line(lines[1])):
            return None
    return Alteration("missing empty lines between records",
                      lambda text: (b"\n" + text).replace(TORN, CUT)[1:], by_record=True)


_DETECTORS = (_escapes, _line_ends, _session, _characters)
_AFTER_PREFIXES = (_session, _blanks_behind, _double_spaced, other_programs.gdb,
                   other_programs.crash, _wrapped, _no_empty_lines, minidump)


def alterations(head: bytes) -> list[Alteration]:
    """What was done to a text that begins so, to be undone in this order; none for the text of
    another kind.

    ``head`` ends with a whole line, or is the whole text.
    """
    if is_as_printed(head):
        return []
    found: list[Alteration] = []

    def look(detectors: tuple[Callable[[bytes], Alteration | None], ...]) -> int:
        nonlocal head
        before = len(found)
        for detector in detectors:
            if (alteration := detector(head)) is not None:
                found.append(alteration)
                head = alteration.undo(head)
        return len(found) - before

    look(_DETECTORS)
    for _ in range(_ROUNDS):
        if not look((_prefix,)):
            break
    look(_AFTER_PREFIXES)
    return found
