"""Metrics, a page and an API of one source: ``pageowner serve``."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.analysis.filters import duration_ns
from pageowner.errors import PageownerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["serve"]


def serve(source: str | os.PathLike[str] | None = None, *, listen: str = "127.0.0.1:9463",
          history: str | os.PathLike[str] | None = None, every: str = "60s", window: str = "1h",
          top: int = 50, token_file: str | os.PathLike[str] | None = None,
          allow_hosts: Sequence[str] = (), on: str = "", keep: str = "7d",
          told: Callable[[str], None] = lambda text: None,
          ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve this machine, or ``source`` (a directory of `record`, a dump or a snapshot), until a
    signal ends it.

    ``listen``: HOST:PORT, or unix:PATH; addresses other than loopback need a ``token_file``.
    ``history``: a directory of `record` to show in addition to this machine. Figures are updated
    every ``every`` while clients read them; leaks are judged over ``window``. ``top``: how many
    stacks and cgroups have metrics of their own. ``allow_hosts``: further host names to answer to.
    ``on``: events to capture into ``history`` when they happen, as `record` does; these captures
    are removed after ``keep``. ``told`` is called with a sentence about each event, from another
    thread, and with the reason when figures cannot be gathered. ``ready`` is called with the
    address when the server listens.

    Raises UsageError for invalid arguments; PageownerError if the source does not exist, the
    address cannot be listened on, events cannot be watched for, another process records into
    ``history``, or the packages that `serve` needs are not installed.
    """
    step, length = duration_ns(every), duration_ns(window)
    if step < 10**9 or length < 4 * step:
        raise UsageError("--every must be a second at least, and --window four times that: a trend"
                         " takes 4 looks")
    if on and (history is None or source is not None):
        raise UsageError("--on captures this machine into the directory of --history: name one, and"
                         " no SOURCE")
    kept = duration_ns(keep) / 1e9
    for path in (source, None if on else history):
        if path is not None and not os.path.exists(path):
            raise PageownerError(f"{os.fspath(path)}: cannot read: No such file or directory")
    if history is not None and not on and not os.path.isdir(history):
        raise UsageError(f"{os.fspath(history)}: --history takes a directory of 'pageowner record'")
    try:
        from pageowner.server import app, calling, listening, metrics
    except ImportError as error:
        raise PageownerError(f"serve needs further packages ({error.name}): pip install"
                             " 'pageowner[serve]'") from error
    address = listening.parse(listen)
    rules = listening.rules_for(address, "" if token_file is None else
                                listening.token_in(token_file), allow_hosts)
    with ExitStack() as stack:
        if on:
            # else the server would have what writes captures in its memory
            from pageowner.storage.recording import owned_folder
            from pageowner.witness.starting import Watching

            assert history is not None
            handle = stack.enter_context(owned_folder(Path(history)))
            stack.enter_context(Watching(on, handle, kept, None, told))
        listener = listening.listen(address)
        stack.callback(listener.close)
        if address.path:
            stack.callback(_remove, address.path)
        folder = None if source is None or not os.path.isdir(source) else os.fspath(source)
        worker = calling.Worker(calling.Settings(
            None if source is None else os.fspath(source),
            folder if history is None else os.fspath(history), step / 1e9, length / 1e9), told)
        shown = str(address)
        if not address.path:
            shown = str(listening.Address("", address.host, listener.getsockname()[1]))
        ready(shown)
        listening.run(app.application(worker, metrics.Metrics(worker, top), rules), listener)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
