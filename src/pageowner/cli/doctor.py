"""``pageowner doctor``: Check what this kernel allows, and how complete tracking can be."""

from __future__ import annotations

import click

from pageowner.cli.options import as_json
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("doctor")
@as_json
def command(as_json: bool) -> None:
    """Check what this kernel allows, and how complete tracking can be.

    Each check really does what tracking will do, such as loading a BPF program, and leaves nothing
    behind. Exit status 1 if tracking is not possible.

    Examples:
        sudo pageowner doctor         before the first 'on', or when something is missing
        sudo pageowner doctor --json  the same for programs
    """
    from pageowner.report import status_view
    from pageowner.tracker import doctor

    found = doctor.doctor()
    if as_json:
        write_out(status_view.findings_to_json(found))
    else:
        from pageowner.report.terminal import paper

        status_view.draw_findings(found, paper())
    if any(finding.needed and not finding.ok for finding in found):
        raise click.exceptions.Exit(1)
