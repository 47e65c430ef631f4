"""``pageowner on``: Start tracking: from now on, record the owner of every allocated page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli.messages import heed_log
from pageowner.cli.verb import verb
from pageowner.model.tracking import MOST_OBJECTS

if TYPE_CHECKING:
    from pageowner.tracker.control import Options

__all__ = ["command"]


@verb("on")
@click.option("--kernel-only", is_flag=True,
              help="Skip user-space memory: anonymous memory, page cache, tmpfs.")
@click.option("--min-order", type=click.IntRange(0, 18), default=0, metavar="N",
              help="Track only blocks of at least 2**N pages.")
@click.option("--pid", "tgid", type=click.IntRange(min=0), default=0, metavar="PID",
              help="Track only what this process allocates.")
@click.option("--cgroup", default="", metavar="PATH",
              help="Track only what tasks in this cgroup (v2), or below it, allocate.")
@click.option("--sample", type=click.IntRange(1, 1 << 20), default=1, metavar="N",
              help="Track only one page in N, chosen by pfn.")
@click.option("--objects", type=click.IntRange(1, MOST_OBJECTS), is_flag=False, flag_value=64,
              metavar="[N]",
              help="Also track objects in slabs and percpu memory, one in N, chosen by address; 64"
                   " if N is not given, 1 for all.")
@click.option("--free", "free_side", is_flag=True,
              help="Also record who last freed each page: 16 more bytes per page.")
@click.option("--depth", type=click.IntRange(1, 64), default=16, show_default=True,
              metavar="N", help="Record at most N frames of a stack.")
@click.option("--plain", is_flag=True,
              help="Unwind every stack instead of recognising those seen before.")
@click.option("--check", type=click.FloatRange(0, 1), default=1 / 1024, metavar="FRACTION",
              help="Share of the recognised stacks, 0 to 1, that are also unwound and compared."
                   " Default: 1/1024.")
@click.option("--second-programs", type=click.Choice(["auto", "always"]), default="auto",
              show_default=True,
              help="An interrupt can allocate or free memory while the tracker runs on its CPU;"
                   " second programs record these events. auto: attach them after the first missed"
                   " event, those on objects only with --objects=1; always: from the start, which"
                   " misses none and costs more.")
@click.option("--at-boot", is_flag=True,
              help="Do not start now: write and enable a systemd unit that starts tracking early in"
                   " each boot with page_owner=on on the kernel's command line.")
@click.option("--debug", is_flag=True, help="Show the verifier's log if the kernel refuses.")
def command(kernel_only: bool, min_order: int, tgid: int, cgroup: str, sample: int,
            free_side: bool, depth: int, plain: bool, check: float, second_programs: str,
            objects: int | None, at_boot: bool, debug: bool) -> None:
    """Start tracking: from now on, record the owner of every allocated page.

    No reboot, no daemon: BPF programs on the kernel's tracepoints record owners in BPF maps. Both
    are pinned in /sys/fs/bpf/pageowner until 'pageowner off'.

    Examples:
        sudo pageowner on                           every page of this machine
        sudo pageowner on --kernel-only --free      the kernel's own memory, and who freed it
        sudo pageowner on --pid 4711 --min-order 2  blocks of 4 pages or more of one process
        sudo pageowner on --at-boot --kernel-only   at each boot with page_owner=on
    """
    from pageowner.report import status_view
    from pageowner.report.terminal import paper
    from pageowner.tracker import control

    options = control.Options(
        kernel_only=kernel_only, min_order=min_order, tgid=tgid, cgroup=cgroup, sample=sample,
        free_side=free_side, depth=depth, memo=not plain, memo_check=check,
        second_programs=second_programs, objects=objects or 0)
    if at_boot:
        _install(options)
        return
    heed_log()
    status_view.draw_start(control.on(options, debug=debug), paper())


def _install(options: Options) -> None:
    from pageowner.tracker import at_boot

    path = at_boot.install(options)
    print(f"{path}: tracking begins early in each boot with {at_boot.WORD} on the kernel's command"
          " line")
    if not at_boot.is_wanted():
        print(f"{at_boot.WORD} is not there now; the boot loader's configuration adds it (GRUB:"
              " GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub)")
