"""What a stack says: the subsystem, the module, the frame that explains it, its identity.

Each question has two forms: on the text of one stack (frames innermost first, one a line,
``func+0x1f/0x90 [module]``), and on an Arrow array of distinct stacks, to be used on the dictionary
of the ``stack`` column, never on its rows. The second is answered by `pageowner.analysis.coded`.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from pageowner.kernel.frames import Frame, frames
from pageowner.kernel.stack_roles import (
    ALLOCATOR_NAMES,
    ALLOCATORS,
    ENTRY,
    GENERIC,
    INTERRUPTS,
    LIBRARIES,
    LIBRARY_MODULES,
    THROUGH,
    is_address,
    is_built_in,
)
from pageowner.kernel.subsystem_rule import Rule
from pageowner.kernel.subsystems import LAST_RESORT, RULES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

__all__ = [
    "BUILT_IN",
    "NO_STACK",
    "OF_STACK",
    "OTHER",
    "PRIVATE",
    "UNKNOWN_MODULE",
    "allocator_of",
    "distinctive_frame",
    "functions",
    "matching_rule",
    "module_of",
    "short_stack",
    "stack_identities",
    "stack_identity",
    "subsystem",
    ]

OTHER = "other"
"""The label of a stack in which no rule matched."""

NO_STACK = "no stack"
"""The label of an empty or missing stack."""

PRIVATE = frozenset({"anonymous memory", "huge pages (THP)"})
"""The labels of what processes take for themselves, and lose when they end."""

UNKNOWN_MODULE = "unknown module"
"""The module, and the label, of an address without a symbol in a stack whose other frames have
names: that of a module which is no longer loaded."""

BUILT_IN = "vmlinux"
"""The module of a stack that touches no module."""


_PIECE = 1 << 14
"""Stacks that are text of Python's at a time."""


class _Patterns:
    """Function names and ``*`` patterns, each with a value, looked up by name.

    Patterns are exact names, prefixes (``ext4_*``) or rarely others (``*_alloc_inode``), so a
    lookup is a few dictionary probes and the rare regular expression.
    """

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        self._exact: dict[str, list[tuple[int, str]]] = {}
        self._prefix: dict[str, list[tuple[int, str]]] = {}
        self._other: list[tuple[re.Pattern[str], int]] = []
        for pattern, value in patterns:
            head = pattern[:-1]
            if "*" not in pattern and "?" not in pattern:
                self._exact.setdefault(pattern, []).append((value, ""))
            elif pattern.endswith("*") and not set("*?") & set(head):
                self._prefix.setdefault(head, []).append((value, head))
            else:
                text = re.escape(pattern).replace(r"\*", "(.*)").replace(r"\?", ".")
                self._other.append((re.compile(text), value))
        self._lengths = sorted({len(head) for head in self._prefix})

    def find(self, name: str) -> list[tuple[int, str]]:
        """Values of the patterns that match, smallest first, each with what ``*`` stood for."""
        found = list(self._exact.get(name, ()))
        for length in self._lengths:
            if length > len(name):
                break
            for value, head in self._prefix.get(name[:length], ()):
                found.append((value, name[len(head):]))
        for pattern, value in self._other:
            match = pattern.fullmatch(name)
            if match:
                found.append((value, match[1] if match.re.groups else ""))
        return sorted(found)


class _Table:
    """Rules, looked up by a function and its module."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._functions = self._of("patterns")

    @cached_property
    def _modules(self) -> _Patterns:
        return self._of("modules")

    @cached_property
    def _whole(self) -> _Patterns:
        return self._of("whole")

    def _of(self, field: str) -> _Patterns:
        return _Patterns((pattern, number) for number, rule in enumerate(self.rules)
                         for pattern in getattr(rule, field).split())

    def find(self, frame: Frame) -> list[tuple[int, str]]:
        """The rules that name a function, first ones first, each with what ``*`` stood for."""
        found = self._functions.find(frame.name)
        if frame.module is None or is_built_in(frame.module):
            return found
        also = {number for number, _ in self._modules.find(frame.module)}
        return sorted([*((number, rest) for number, rest in found if number in also),
                       *((number, "") for number, _ in self._whole.find(frame.module))])


# What a function is, its role: a place in the ways to take memory, or one of these.
WAYS = tuple(ALLOCATORS)
PAGES = WAYS.index("pages")
LIBRARY, INTERRUPT, ENTERING, GENERAL, THROUGH_FILE, TELLING, ADDRESS = range(
    len(WAYS), len(WAYS) + 7)
_ROLES = _Patterns(
    (pattern, role)
    for role, patterns in enumerate((*ALLOCATORS.values(), LIBRARIES, INTERRUPTS, ENTRY, GENERIC,
                                       THROUGH))
    for pattern in patterns.split()
)
_LIBRARY_MODULES = _Patterns((pattern, LIBRARY) for pattern in LIBRARY_MODULES.split())
_RULES = _Table(RULES)
_LAST_RESORT = _Table(LAST_RESORT)

_UNSAID = ("pages", "large", "cma")
"""Ways of allocation that a label need not name; nor vmalloc, where a rule is about it."""


def _role(frame: Frame) -> int:
    name, module = frame
    roles = [role for role, _ in _ROLES.find(name)]
    if module is not None and not is_built_in(module):
        if THROUGH_FILE in roles or (LIBRARY in roles and _LIBRARY_MODULES.find(module)):
            return roles[0]
        return TELLING
    if roles:
        return roles[0]
    return (GENERAL if name.startswith("sys_") else ADDRESS if is_address(name) else TELLING)


class _Roles(dict[Frame, int]):
    """What frames are: `_role` of their functions."""

    def __missing__(self, frame: Frame) -> int:
        if len(self) >= 1 << 17:  # a dump may be hostile
            self.clear()
        role = self[frame] = _role(frame)
        return role


_ROLE_OF = _Roles()


def role_of(frame: Frame) -> int:
    """A place in `WAYS`, or `LIBRARY`, `INTERRUPT`, `ENTERING`, `GENERAL`, `THROUGH_FILE`,
    `TELLING` or `ADDRESS`."""
    return _ROLE_OF[frame]


def _until_interrupt(chain: list[Frame]) -> tuple[list[Frame], list[int]]:
    """The frames of what an interrupt interrupted are not its own. Also their roles."""
    known = _ROLE_OF
    roles = [known[frame] for frame in chain]
    if INTERRUPT in roles:
        end = roles.index(INTERRUPT)
        if end:
            return chain[:end], roles[:end]
    return chain, roles


@lru_cache(maxsize=1 << 16)
def _match(frame: Frame, how: str, last_resort: bool) -> tuple[Rule, str] | None:
    """The first rule that names this function and allows this way of allocation."""
    table = _LAST_RESORT if last_resort else _RULES
    for number, rest in table.find(frame):
        if table.rules[number].how in ("", how):
            return table.rules[number], rest
    return None


def _taken(roles: list[int]) -> tuple[str, int]:
    """How the memory was taken, and where the frames begin that do not say so."""
    how = "pages"
    for number, role in enumerate(roles):
        taken = WAYS[role] if role < len(WAYS) else ""
        # A slab object for vmalloc or percpu is a part of their books, not their memory.
        own_books = how == "slab" and taken in ("vmalloc", "percpu")
        if own_books or not (taken or role == LIBRARY):
            return how, number
        if taken and how == "pages":
            how = taken
    return how, len(roles)


def _walk(chain: list[Frame], roles: list[int]) -> tuple[str, str, Rule | None]:
    """How the memory was taken, what for, and the rule that said so."""
    if all(role == ADDRESS for role in roles):
        return "pages", OTHER, None  # a kernel without symbols, not a module
    how, start = _taken(roles)
    behind = _behind_file(roles)
    for first in (behind, start) if behind else (start,):
        for number in range(first, len(chain)):
            if roles[number] != LIBRARY and (found := _for(chain[number], how, False)):
                return how, *found
    for frame in chain:
        if found := _for(frame, how, True):
            return how, *found
    return how, OTHER, None


def _behind_file(roles: list[int]) -> int:
    """Where what is further out than any file of `THROUGH` begins; 0 without one."""
    return len(roles) - roles[::-1].index(THROUGH_FILE) if THROUGH_FILE in roles else 0


def _explain(stack: str) -> tuple[str, Rule | None]:
    chain = frames(stack)
    if not chain:
        return NO_STACK, None
    how, what, rule = _walk(*_until_interrupt(chain))
    return _label(how, what, rule), rule


def _label(how: str, what: str, rule: Rule | None) -> str:
    if how in _UNSAID or (rule is not None and rule.how == how == "vmalloc"):
        return what
    return f"{how}: {what}"


def answer(frame: Frame | None, how: str, last_resort: bool) -> str | None:
    """The label of memory taken that way if it is for this frame to say; None if it does not.
    Of no frame: that of a stack in which none does."""
    if frame is None:
        return _label(how, OTHER, None)
    found = _for(frame, how, last_resort)
    return None if found is None else _label(how, *found)


def _for(frame: Frame, how: str, last_resort: bool) -> tuple[str, Rule | None] | None:
    """What memory taken that way is for, as far as this frame says, and the rule for that."""
    found = _match(frame, how, last_resort)
    if found:
        rule, rest = found
        return rule.name.replace("{}", rest), rule
    if last_resort:
        return None
    if frame.module and not is_built_in(frame.module):
        return f"module {frame.module}", None
    return (UNKNOWN_MODULE, None) if role_of(frame) == ADDRESS else None


def subsystem(stack: str, gfp_flags: str = "") -> str:
    """What the memory is for, as a person would say it.

    Memory of the slab, vmalloc and percpu allocators says so first: ``slab: dentries``,
    ``vmalloc: BPF``. A stack that no rule knows is ``module NAME`` if it passes a module, else
    `OTHER`, and `UNKNOWN_MODULE` if it passes an address without a symbol; one without frames is
    `NO_STACK`. With ``gfp_flags`` (names as the kernel prints them)
    a stack that says nothing is at least known as user memory or not.
    """
    label = _explain(stack)[0]
    if label in (OTHER, NO_STACK) and "GFP_HIGHUSER" in gfp_flags:
        return "user memory"
    return label


def matching_rule(stack: str) -> Rule | None:
    """The rule behind `subsystem`; None where none matched."""
    return _explain(stack)[1]


def allocator_of(stack: str) -> str:
    """Which allocator took the memory, one of `ALLOCATOR_NAMES`; `OTHER` of a stack of addresses,
    `NO_STACK` of one without frames."""
    chain, roles = _until_interrupt(frames(stack))
    if not chain:
        return NO_STACK
    if all(role == ADDRESS for role in roles):
        return OTHER
    return ALLOCATOR_NAMES[_taken(roles)[0]]


def module_of(stack: str) -> str:
    """The module of the innermost frame that has one, else `BUILT_IN`; `UNKNOWN_MODULE` of an
    address among frames with names."""
    chain = frames(stack)
    unknown = any(role_of(frame) != ADDRESS for frame in chain)
    for frame in chain:
        if frame.module:
            return frame.module
        if unknown and role_of(frame) == ADDRESS:
            return UNKNOWN_MODULE
    return BUILT_IN


def _telling(stack: str) -> list[Frame]:
    """Frames worth showing, innermost first: those that tell, then what is left of the others."""
    chain, roles = _until_interrupt(frames(stack))
    for first in (_behind_file(roles), 0):
        if any(role >= TELLING for role in roles[first:]):
            while roles[first] < TELLING:
                first += 1
            return [frame for frame, role in zip(chain[first:], roles[first:], strict=True)
                    if role >= GENERAL]
    return [frame for frame, role in zip(chain, roles, strict=True)
            if role >= GENERAL] or chain[-1:]


def distinctive_frame(stack: str) -> str:
    """The frame that explains the allocation: ``shmem_alloc_folio``, ``nv_alloc_pages [nvidia]``.

    The innermost one that is neither an allocator nor a container nor generic fault, file or
    system call code; if there is none, the innermost generic one; "" for an empty stack.
    """
    return next((str(frame) for frame in _telling(stack)), "")


OF_STACK = {"module": module_of, "subsystem": subsystem, "frame": distinctive_frame,
            "allocator": allocator_of}
"""How each key of `pageowner.model.schema.OF_STACK` is told from a stack."""


def short_stack(stack: str, n: int = 3) -> str:
    """The ``n`` most telling frames, innermost first: ``pipe_write ← vfs_write ← ksys_write``."""
    found = _telling(stack)
    telling = [frame for frame in found if role_of(frame) >= TELLING]
    chosen = telling[:n] if len(telling) >= n else found[:n]
    return " ← ".join(map(str, chosen))


def functions(stack: str) -> list[Frame]:
    """The frames by which stacks of different kernels, builds and sources are matched.

    Names are those of the source: no offset, no address, nothing that a compiler adds (see
    `pageowner.kernel.frames.function_name`). Left out are the page allocator's own functions at the
    inner end, which change with nearly every kernel, and of which a tracepoint sees fewer than the
    kernel's page owner; and at the outer end how the CPU came into the kernel
    (`pageowner.kernel.subsystems.ENTRY`, and ``x64_sys_call``, new in 6.9). A stack of nothing else
    stays whole.
    """
    chain = frames(stack)
    first, end = 0, len(chain)
    while first < end and _ROLE_OF[chain[first]] == PAGES:
        first += 1
    while first < end and (_ROLE_OF[chain[end - 1]] == ENTERING
                           or chain[end - 1].name == "x64_sys_call"):
        end -= 1
    return chain[first:end] or chain


def stack_identity(stack: str) -> int:
    """A 64-bit hash of the functions and modules alone, the same for every build and machine.

    Offsets, sizes, addresses and build ids do not enter it, nor what compilers add to names (see
    `pageowner.kernel.frames.function_name`). The first 8 bytes, little-endian, of the BLAKE2b of
    the frames ``name [module]``, each ended by a newline.
    """
    from hashlib import blake2b  # takes as long to import as all else here

    text = "".join(f"{frame}\n" for frame in frames(stack))
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def stack_identities(stacks: pa.Array[Any]) -> pa.Array[Any]:
    """`stack_identity` of each: uint64, null where the stack is null."""
    import pyarrow as pa

    parts = []
    for first in range(0, len(stacks), _PIECE):  # Python's texts of a million take a gigabyte
        piece = stacks.slice(first, _PIECE).to_pylist()
        parts.append(pa.array([None if stack is None else stack_identity(stack)
                               for stack in piece], type=pa.uint64()))
    return pa.concat_arrays(parts) if parts else pa.array([], pa.uint64())
