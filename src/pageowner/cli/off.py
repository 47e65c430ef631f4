"""``pageowner off``: Stop tracking and remove everything."""

from __future__ import annotations

import click

from pageowner.cli.messages import heed_log
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("off")
@click.option("--at-boot", is_flag=True,
              help="Only remove what 'pageowner on --at-boot' installed; tracking continues.")
def command(at_boot: bool) -> None:
    """Stop tracking and remove everything, even after a crash.

    Examples:
        sudo pageowner off            stop tracking now
        sudo pageowner off --at-boot  no longer start at boot
    """
    if at_boot:
        from pageowner.tracker import at_boot as unit

        print(f"{unit.UNIT} is removed; tracking does not begin at boot" if unit.remove()
              else "tracking did not begin at boot")
        return
    from pageowner.tracker import control

    heed_log()
    print("tracking is off" if control.off() else "tracking was off already")
