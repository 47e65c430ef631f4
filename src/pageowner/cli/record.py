"""``pageowner record``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from pageowner.cli import complete
from pageowner.cli.messages import say, written
from pageowner.cli.verb import verb
from pageowner.errors import PageownerError, UsageError

__all__ = ["command"]

_EXAMPLES = (
    ("pageowner record /var/lib/pageowner", "every 10 minutes, for 7 days"),
    ("pageowner record --every 1m --keep 1d DIR", "more often, for a day"),
    ("pageowner report DIR --at 14:30", "as it was then, in any verb"),
    ("pageowner leaks DIR", "what grew all the time"),
)


@verb("record", *_EXAMPLES)
@click.argument("folder", metavar="DIR", shell_complete=complete.folders,
                type=click.Path(file_okay=False, path_type=Path))
@click.option("--every", default="10m", show_default=True, metavar="TIME",
              help="How often to capture.")
@click.option("--keep", default="7d", show_default=True, metavar="TIME",
              help="Remove what is older.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N captures.")
def command(folder: Path, every: str, keep: str, count: int | None) -> None:
    """Capture this machine again and again into DIR, until Ctrl-C.

    What changed little takes little room. A full disk, or an end by force, loses no capture but the
    one that is being written.
    """
    from pageowner.analysis.filters import duration_ns

    step, kept = duration_ns(every) / 1e9, duration_ns(keep) / 1e9
    if step < 1 or kept < step:
        raise UsageError("--every must be a second at least, and --keep no shorter than --every")
    from pageowner.sources.source import read
    from pageowner.storage.recording import Recorder, owned_folder

    with owned_folder(folder) as handle:
        recorder = Recorder(folder, step, kept, handle)
        number, due = 0, time.monotonic()
        while True:
            try:
                path = recorder.add(read())
            except (PageownerError, OSError, MemoryError) as error:
                # OSError: tracking was turned off and on while it was read
                if number == 0:
                    raise  # wrong from the beginning: tracking is off, or the folder is not ours
                why = str(error) or "out of memory"
                say(f"this capture is lost: {why}")
            else:
                if sys.stderr.isatty():
                    written(str(path))
            try:
                recorder.forget()
            except (PageownerError, OSError) as error:
                say(f"old captures stay: {error}")
            number += 1
            if count is not None and number >= count:
                return
            due = max(due + step, time.monotonic() - step)
            time.sleep(max(due - time.monotonic(), 0))
