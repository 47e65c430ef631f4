"""The command line of page_owner_sort, as tools/mm/page_owner_sort.c of 6.12 takes it.

The module keys (``-M``, ``--module``, ``mod``) and ``--help`` are those of linux-mm in 2026;
``-f``, ``-r``, ``ft`` and ``f`` are in Documentation/mm/page_owner.rst, and were in the tool until
free_ts left the dump in 6.7.
"""

from __future__ import annotations

import getopt
import os
import re

from pageowner.errors import PageownerError, UsageError

__all__ = ["USAGE", "Options", "options_of", "parse"]

USAGE = """\
Usage: page_owner_sort [OPTIONS] <input> <output>

<input> is a dump of the kernel's page owner, plain or compressed (gzip, xz, zstd), or a pipe, or -
for standard input; <output> is a file, or - for standard output.

Sort by (one of):
  -t                 number of times a record is seen (default)
  -m                 total memory
  -a                 allocation time
  -r                 release time, where the dump has it
  -p                 pid
  -P                 tgid
  -n                 task command name
  -M                 module name
  -s                 stack trace
  --sort <order>     [+|-]key[,[+|-]key[,...]]; + (ascending) is the default. Keys:
                     pid (p), tgid (tg), name (n), stacktrace (st), txt (T), alloc_ts (at),
                     free_ts (ft), allocator (ator), module (mod)
Group by:
  --cull <rules>     key[,key[,...]]. Keys: pid (p), tgid (tg), name (n), stacktrace (st),
                     free (f), allocator (ator), module (mod)
Select:
  --pid <pidlist>    blocks of these process IDs
  --tgid <tgidlist>  blocks of these thread group IDs
  --name <cmdlist>   blocks of these task command names
  --module <modlist> blocks of these modules; vmlinux is the kernel itself
  -f                 leave out blocks whose memory has been released
Others:
  -d                 print on standard error what was read
  -h, --help         show this text
"""

_FLAGS = {
    "-a": ("alloc_ts", 1),
    "-m": ("pages", -1),
    "-n": ("name", 1),
    "-p": ("pid", 1),
    "-P": ("tgid", 1),
    "-r": ("free_ts", 1),
    "-s": ("stacktrace", 1),
    "-t": ("times", -1),
    "-M": ("module", 1),
}

_SHORT = {
    "p": "pid",
    "tg": "tgid",
    "n": "name",
    "st": "stacktrace",
    "T": "txt",
    "at": "alloc_ts",
    "ft": "free_ts",
    "f": "free",
    "ator": "allocator",
    "mod": "module",
}
_BOTH = ("pid", "tgid", "name", "stacktrace", "allocator", "module")
_SORT_KEYS = frozenset((*_BOTH, "txt", "alloc_ts", "free_ts"))
_CULL_KEYS = frozenset((*_BOTH, "free"))


class Options:
    """What was asked for.

    ``sort`` holds (key, sign) pairs, the first the most significant; ``cull`` the keys to group
    by, none meaning the whole text. ``pids``, ``tgids``, ``names`` and ``modules`` are None where
    all are wanted.
    """

    __slots__ = ("cull", "debug", "help", "modules", "names", "output", "pids", "released", "sort",
                 "source", "tgids")

    def __init__(self) -> None:
        self.sort: list[tuple[str, int]] = [("times", -1)]
        self.cull: frozenset[str] = frozenset()
        self.pids: frozenset[int] | None = None
        self.tgids: frozenset[int] | None = None
        self.names: frozenset[bytes] | None = None
        self.modules: frozenset[bytes] | None = None
        self.released = True
        self.debug = False
        self.help = False
        self.source = ""
        self.output = ""

    @property
    def keeps_time(self) -> bool:
        """Whether the time of allocation stays in the text: if it is the first key to sort by."""
        return self.sort[0][0] == "alloc_ts"


def parse(argv: list[str]) -> Options:
    """The options of a command line, without the program's name.

    Words may come in any order and long options may be abbreviated, as with getopt_long(3).
    Raises UsageError for options that do not exist or do not go together, and PageownerError for
    an argument that an option does not take.
    """
    options = Options()
    try:
        words, files = getopt.gnu_getopt(
            argv, "admnpstPMrfh", ["pid=", "tgid=", "name=", "cull=", "sort=", "module=", "help"]
        )
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from error
    order: list[tuple[str, int]] = []
    for word, value in words:
        if word == "--sort":
            order = _order(word, value)
        elif word not in _FLAGS:
            _take(options, word, value)
    if options.help:
        return options
    flags = {word for word, _ in words if word in _FLAGS}
    if len(files) < 2:
        raise UsageError("an input and an output are needed")
    if len(flags) > 1:
        raise UsageError(f"only one of {' '.join(sorted(flags))} can be given")
    options.source, options.output = files[:2]
    if flags:
        options.sort = [_FLAGS[flags.pop()]]
    elif order:
        options.sort = order
    return options


def options_of(by: str, cull: str) -> Options:
    """Options that sort ``by`` times, pages, or keys of ``--sort``, and cull by keys of ``--cull``.

    Raises PageownerError for an unknown key.
    """
    options = Options()
    if by in ("times", "pages"):
        options.sort = [(by, -1)]
    else:
        options.sort = _order("sort", by)
    if cull:
        _take(options, "--cull", cull)
    return options


def _take(options: Options, word: str, value: str) -> None:
    match word:
        case "-d":
            options.debug = True
        case "-f":
            options.released = False
        case "-h" | "--help":
            options.help = True
        case "--pid":
            options.pids = _numbers(word, value)
        case "--tgid":
            options.tgids = _numbers(word, value)
        case "--name":
            options.names = frozenset(os.fsencode(value).split(b","))
        case "--module":
            options.modules = frozenset(os.fsencode(value).split(b","))
        case "--cull":
            options.cull |= {_key(word, key, _CULL_KEYS) for key in value.split(",")}


def _order(option: str, text: str) -> list[tuple[str, int]]:
    return [
        (_key(option, key[1:] if key.startswith(("+", "-")) else key, _SORT_KEYS),
         -1 if key.startswith("-") else 1)
        for key in text.split(",")
    ]


def _key(option: str, word: str, known: frozenset[str]) -> str:
    key = _SHORT.get(word, word)
    if key not in known:
        raise PageownerError(f"{option}: no such key: {word!r}; known: {', '.join(sorted(known))}")
    return key


def _numbers(option: str, text: str) -> frozenset[int]:
    return frozenset(_number(option, word) for word in text.split(","))


def _number(option: str, word: str) -> int:
    # strtol(3), kept in an int
    if not re.fullmatch(r"[ \t\n\v\f\r]*[+-]?[0-9]+", word):
        raise PageownerError(f"{option}: not a number: {word!r}; give them as 1,2,3")
    # int() refuses thousands of digits in other words
    value = int(word) if len(word) < 1000 else 1 << 63
    if not -(1 << 63) <= value < 1 << 63:
        raise PageownerError(f"{option}: number out of range: {word!r}")
    return ((value + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
