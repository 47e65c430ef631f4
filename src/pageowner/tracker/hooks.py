"""The hooks that a kernel may lack or refuse, each attached for itself.

Names of the traced functions by kernel version, newest first; which arguments they have comes
from the running kernel's BTF, not from its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.tracker.libbpf import BpfError

if TYPE_CHECKING:
    from pageowner.tracker.calibrate import Calibration
    from pageowner.tracker.loading import Tracker

__all__ = ["attach_optional"]


def attach_optional(tracker: Tracker, found: Calibration, directory: str) -> dict[str, str]:
    """Attach what this kernel allows and pin the links; name to ``active`` or why not."""
    hooks = {}
    for name, program in (("mm_page_alloc_extfrag", "on_extfrag"),):
        hooks[name] = _attach(tracker, name, program, directory)
    return hooks


def _attach(tracker: Tracker, name: str, program: str, directory: str) -> str:
    try:
        obj = tracker.load_optional(program)
        tracker.bpf.pin(obj.attach(program), f"{directory}/link_{name}")
    except BpfError as error:
        return f"missing: {error}"
    return "active"
