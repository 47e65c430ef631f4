"""A vmcore as a source: an image of a kernel's memory, made by kdump, by QEMU or by the kernel
itself (/proc/kcore)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.sources import live_users
from pageowner.sources.given import VMLINUX
from pageowner.vmcore.formats import KDUMP, looks_so, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.model.memory_facts import MemoryFacts
    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened
    from pageowner.vmcore.memory import Vmcore

__all__ = ["is_vmcore", "kernel_log", "memory_facts", "opened_memory", "read"]

_FILTERED = ("; a makedumpfile that is older than the kernel leaves out pages that it should not:"
             " next time, give it -d 23 instead of -d 31")
_DAMAGED = (ValueError, LookupError, TypeError, OverflowError, ArithmeticError, MemoryError,
            RecursionError, AttributeError)
"""What reading structures that are none may end in."""


def is_vmcore(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return looks_so(head)


def read(opened: Opened) -> Snapshot:
    """The owners of its pages: what our tracker knew, else what the kernel's own page owner did.
    Raises PageownerError, in one line."""
    from pageowner.vmcore.snapshot import owners

    with opened_memory(opened) as memory:
        found = owners(memory, live_users.wanted(), live_users.alone())
    found.meta.source = opened.name
    return found


def memory_facts(path: str) -> MemoryFacts:
    """What the balance needs of the vmcore at a path. Raises PageownerError, in one line, also if
    that is none."""
    from pageowner.sources.opening import open_source
    from pageowner.vmcore.facts import memory_facts as facts_of

    with open_source(path) as opened:
        if not is_vmcore(opened.head):
            raise PageownerError(f"{opened.name}: is not a vmcore")
        with opened_memory(opened) as memory:
            return facts_of(memory)


def kernel_log(memory: Vmcore) -> list[str]:
    """The lines of its kernel's log. Raises PageownerError if they are not in it."""
    from pageowner.vmcore.kernel_log import lines

    return lines(memory)


@contextmanager
def opened_memory(opened: Opened) -> Iterator[Vmcore]:
    """Its memory, for as long as it is read; what goes wrong is one line with its name."""
    from pageowner.vmcore.memory import Vmcore as Made

    if why := why_not(opened.head):
        raise PageownerError(f"{opened.name}: {why}")
    if opened.size is None and not opened.name.startswith("/proc/"):
        raise PageownerError(f"{opened.name}: a vmcore is read here and there, not in a stream;"
                             " decompress it into a file and name that")
    try:
        vmlinux = VMLINUX.get()
        if vmlinux:
            vmlinux.used = True
        with Made(opened.name, vmlinux.path if vmlinux else None) as memory:
            yield memory
    except PageownerError as error:
        filtered = (_FILTERED if opened.head.startswith(KDUMP) and "cannot be read" in str(error)
                    and "as a vmcore" not in str(error) else "")
        raise PageownerError(f"{opened.name}: {error}{filtered}") from error
    except OSError as error:
        raise PageownerError(f"{opened.name}: cannot read: {error.strerror}") from error
    except _DAMAGED as error:
        raise PageownerError(f"{opened.name}: the vmcore is damaged: {type(error).__name__}:"
                             f" {' '.join(str(error).split())[:200]}") from error
