"""Words of the command line that name page frames."""

from __future__ import annotations

from typing import Any

import click

from pageowner.errors import UsageError

__all__ = ["AddressType", "FramesType", "VirtualType"]


class FramesType(click.ParamType[tuple[int, int] | int]):
    """A page frame number, decimal or 0x hexadecimal, or a range of them: as (first, last). An
    address of the kernel: as it is."""

    name = "PFN"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[int, int] | int:
        from pageowner.api.who import frames_of

        if (address := _kernel_address(str(value))) is not None:
            return address
        try:
            return frames_of(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _kernel_address(text: str) -> int | None:
    """An address in the upper half of all, as those of the kernel are; no frame has that number."""
    try:
        number = int(text, 0)
    except ValueError:
        return None
    return number if 1 << 63 <= number < 1 << 64 else None


class AddressType(click.ParamType[int]):
    """An address in bytes."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> int:
        try:
            address = int(str(value), 0)
        except ValueError:
            address = -1
        if not 0 <= address < 1 << 64:
            self.fail(f"{value!r} is not an address; write 0x1a2b3000", param, ctx)
        return address


class VirtualType(click.ParamType[tuple[int, int]]):
    """A process and an address in it."""

    name = "PID:ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[int, int]:
        pid, colon, address = str(value).partition(":")
        if not colon or not pid.isascii() or not pid.isdigit() or len(pid) > 10:
            self.fail(f"{value!r} is not an address of a process; write 1234:0x7f0012345000",
                      param, ctx)
        return int(pid), AddressType().convert(address, param, ctx)
