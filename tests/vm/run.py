"""Run the jobs on the kernels, each in a guest of its own, and print what came out.

Results are in build/vmtest/KERNEL/JOB. Exit status: 0 if all that could run passed, 1 if not.
Guests that this machine cannot boot are left out, and a line says why.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from boot import CannotBoot, GuestError, boot, complaints_in, install, require_qemu
from jobs import JOBS, Job
from kernels import KERNELS, Kernel, NoKernel, obtain
from machines import machine_for
from table import write_table

RESULTS = Path(__file__).resolve().parents[2] / "build" / "vmtest"


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    kernel: str
    job: str
    result: str
    boot_seconds: float = 0
    seconds: float = 0


def run(kernel: Kernel, job: Job, limit: float | None = None) -> Row:
    """Run one job on one kernel; a guest that takes longer than ``limit`` seconds is left out."""
    row = Row(kernel.name, job.name, "passed")
    for number, words in enumerate(job.rounds):
        if len(job.rounds) > 1:
            print(f"-- boot {number + 1} of {len(job.rounds)}: {words}", flush=True)
        last = _run(kernel, job, words, limit)
        row = Row(row.kernel, row.job, last.result, row.boot_seconds or last.boot_seconds,
                  row.seconds + last.seconds)
        if row.result != "passed":
            break
    return row


def _run(kernel: Kernel, job: Job, words: str, limit: float | None) -> Row:
    out = RESULTS / kernel.name / job.name
    start = time.monotonic()
    try:
        done = boot(
            kernel.folder,
            job.command,
            out,
            memory=job.memory,
            nodes=job.nodes,
            hotplug=job.hotplug,
            counted=job.counted,
            dies=job.dies,
            cpus=job.cpus_on(kernel.name),
            possible_cpus=job.possible_cpus,
            append=f"{kernel.words(job.page_owner, job.memcg)} {words}".strip(),
            timeout=min(job.timeout, limit or job.timeout),
        )
    except CannotBoot as error:
        print(f"vmtest: {error}", flush=True)
        return Row(kernel.name, job.name, "skipped (cannot boot)")
    except GuestError as error:
        print(f"vmtest: {error}", flush=True)
        if limit and time.monotonic() - start >= limit and not complaints_in(out):
            return Row(kernel.name, job.name, f"skipped (not done in {limit:.0f} s)", seconds=limit)
        return Row(kernel.name, job.name, "FAILED", seconds=job.timeout)
    sys.stdout.write(done.log)
    for line in done.complaints:
        print(f"the kernel says: {line}")
    result = f"FAILED ({done.status})" if done.status else "passed"
    if done.complaints and not done.status and not (job.memcg or job.kills or job.dies):
        result = "FAILED (kernel complains)"
    if job.then and not done.status:
        sys.stdout.flush()
        if compared := subprocess.run([*job.then, out], check=False).returncode:
            result = "FAILED (see above)"
            (out / "job.status").write_text(f"{compared}\n")
    return Row(kernel.name, job.name, result, done.boot_seconds, done.seconds)


def here() -> Row:
    """The job ``track`` on the running kernel, with the loads that it has in a guest."""
    job = next(job for job in JOBS if job.name == "track")
    out = RESULTS / "running" / job.name
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with (out / "job.log").open("w") as log:
        # not on a machine in use: the loads that want memory in one piece of 1 GiB
        command = [word for word in job.command if word != "--contiguous"]
        status = subprocess.run(command, cwd=out, stdout=log, stderr=subprocess.STDOUT,
                                check=False).returncode
    (out / "job.status").write_text(f"{status}\n")
    sys.stdout.write((out / "job.log").read_text())
    return Row("running", job.name, f"FAILED ({status})" if status else "passed",
               seconds=time.monotonic() - start)


def chosen(text: str | None, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The names in a list separated by commas, all if there is none. Exits if one is unknown."""
    names = tuple(text.split(",")) if text else known
    for name in names:
        if name not in known:
            sys.exit(f"vmtest: no {what} {name!r}; there are {', '.join(known)}")
    return names


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="vmtest",
        description="Boot kernels in guests and run jobs in them.",
        epilog="Jobs: " + "; ".join(f"{job.name}: {job.says}" for job in JOBS) + ".",
    )
    parser.add_argument("--kernels", help=f"some of {','.join(KERNELS)}")
    parser.add_argument("--jobs", help=f"some of {','.join(job.name for job in JOBS)}")
    parser.add_argument("--cached", action="store_true", help="only kernels that are in the cache")
    parser.add_argument("--limit", type=float, help="leave out guests that take more seconds")
    parser.add_argument("--table", type=Path, help="write what all jobs found so far as Markdown")
    parser.add_argument("--within", type=float, help="start no guest after this many seconds")
    parser.add_argument("--here", action="store_true",
                        help="run the job track on the running kernel first; needs root")
    args = parser.parse_args()
    names = chosen(args.kernels, KERNELS, "kernel")
    wanted = chosen(args.jobs, tuple(job.name for job in JOBS), "job")
    start = time.monotonic()
    rows: list[Row] = []
    if args.here:
        print(f"\n== running ({platform.release()}): track", flush=True)
        rows.append(here())
    for name in names if args.kernels or not args.here else ():
        try:
            require_qemu(machine_for(name))
            kernel = obtain(name, cached_only=args.cached)
        except NoKernel as error:
            print(f"vmtest: {name}: {error}", flush=True)
            rows.append(Row(name, "-", "skipped" if args.cached else "FAILED (no kernel)"))
            continue
        except CannotBoot as error:
            print(f"vmtest: {name}: {error}", flush=True)
            rows.append(Row(name, "-", "skipped (cannot boot)"))
            continue
        install("mkfs.xfs", "xfsprogs")  # for one load, which says so where it is missing
        if any(job.name == "kdump" and job.wanted_on(name) for job in JOBS if job.name in wanted):
            install("kexec", "kexec-tools")
            install("makedumpfile", "makedumpfile")
        for job in JOBS:
            if job.name not in wanted or not job.wanted_on(name):
                continue
            if args.within and time.monotonic() - start > args.within:
                rows.append(Row(name, job.name, "skipped (out of time)"))
                continue
            print(f"\n== {name} ({kernel.release}): {job.name}: {job.says}", flush=True)
            rows.append(run(kernel, job, args.limit))
    print(f"\n{'kernel':<12} {'job':<12} {'to job':>7} {'in all':>7}  result")
    for row in rows:
        times = f"{row.boot_seconds:>6.0f}s {row.seconds:>6.0f}s"
        print(f"{row.kernel:<12} {row.job:<12} {times}  {row.result}")
    if args.table:
        write_table(RESULTS, args.table)
    return int(any(row.result.startswith("FAILED") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
