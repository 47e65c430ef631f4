"""``pageowner serve``: A web page, metrics for Prometheus and an API, of this machine or a
source."""

from __future__ import annotations

import click

from pageowner.cli import complete
from pageowner.cli.messages import say, told
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("serve")
@click.argument("source", required=False, metavar="[SOURCE]", shell_complete=complete.files)
@click.option("--listen", default="127.0.0.1:9463", show_default=True, metavar="ADDRESS",
              help="HOST:PORT, or unix:PATH. Any address other than loopback requires"
                   " --token-file.")
@click.option("--history", metavar="DIR", shell_complete=complete.folders,
              help="A directory written by 'pageowner record': adds its captures, to compare two"
                   " times.")
@click.option("--on", default="", metavar="EVENT[,EVENT...]",
              help="Also capture into the --history directory when one of these happens, as"
                   " 'pageowner record --on' does; captures are kept for 7 days.")
@click.option("--every", default="60s", show_default=True, metavar="TIME",
              help="How often to update the figures while clients read them.")
@click.option("--window", default="1h", show_default=True, metavar="TIME",
              help="How long to watch this machine for leaks.")
@click.option("--top", type=click.IntRange(1, 1000), default=50, show_default=True, metavar="N",
              help="Export metrics of the N largest stacks and cgroups; sum up the others.")
@click.option("--token-file", metavar="FILE", shell_complete=complete.files,
              help="Require the token in this file, as a bearer token or a password.")
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME",
              help="Also answer requests to this host name.")
def command(source: str | None, listen: str, history: str | None, on: str, every: str,
            window: str, top: int, token_file: str | None, allow_hosts: tuple[str, ...]) -> None:
    """Serve a web page, metrics for Prometheus and an API, until Ctrl-C.

    It shows this machine, or SOURCE: a directory of 'pageowner record', a dump or a snapshot. It
    writes nothing unless --on is given. It needs the packages of 'pageowner[serve]'. 'go tool pprof
    ADDRESS/pages.pprof' opens the profile.

    Examples:
        pageowner serve                              this machine, on http://127.0.0.1:9463
        pageowner serve --history /var/lib/pageowner
            with the captures of 'pageowner record' to compare
        pageowner serve --history DIR --on oom,psi   and capture when memory is short
        pageowner serve dump.parquet                 explore a snapshot
        pageowner serve --listen unix:/run/pageowner.sock
            for a proxy on this machine
    """
    from pageowner.api.serve import serve

    def ready(address: str) -> None:
        say(f"serving {source or 'this machine'} on {address}", "")

    serve(source, listen=listen, history=history, every=every, window=window, top=top,
          token_file=token_file, allow_hosts=allow_hosts, on=on, told=told, ready=ready)
