"""What the jobs found, as a page of the documentation."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from kernels import KERNELS

from pageowner.model.hook_states import in_words

HEAD = """# Kernels

Written by `scripts/vmtest --table docs/kernels.md` on {day}, from guests in software emulation
(QEMU). The text below each table explains its columns.

"""


def write_table(results: Path, target: Path) -> None:
    """Write the Markdown page from what lies in the folder of the results, KERNEL/JOB/JOB.json."""
    order = {name: place for place, name in enumerate(KERNELS)}
    folders = sorted((folder for folder in results.iterdir() if folder.is_dir()),
                     key=lambda folder: (order.get(folder.name, len(order)), folder.name))
    kernels = {folder.name: {job.name: _said(job) for job in folder.iterdir() if job.is_dir()}
               for folder in folders}
    kernels = {name: jobs for name, jobs in kernels.items() if any(jobs.values())}
    text = HEAD.format(day=date.today().isoformat())
    for part in (_tracked, _many, _panics, _prices, _agreement):
        text += part(kernels)
    target.write_text(text)


def _said(job: Path) -> dict[str, Any]:
    try:
        if (job / "job.status").read_text().strip() != "0":
            return {}
    except OSError:
        return {}
    for file in sorted(job.glob("*.json")):
        found = json.loads(file.read_text())
        if isinstance(found, dict):  # some jobs, as promise, write what is for no table here
            return found | {"day": date.fromtimestamp(file.stat().st_mtime).isoformat()}
    return {}


def _grid(titles: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n\n"


def _tracked(kernels: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows, lacking = [], []
    for name, jobs in kernels.items():
        if jobs.get("refused"):
            said = jobs["refused"]
            rows.append([name, said["kernel"], said["day"], f"refused: `{said['refused']}`",
                         *["-"] * 8])
        said = jobs.get("track")
        if not said:
            continue
        frames, memo, hooks = said["frames"], said["memo"], said["hooks"]
        active = [hook for hook, how in hooks.items() if how == "active"]
        lacking += [f"- {name}, `{hook}`: {in_words(how)}\n" for hook, how in hooks.items()
                    if how != "active"]
        closed = sum(frames.values()) == said["known"]
        rows.append([
            name, said["kernel"], said["day"], f"{len(active)} of {len(hooks)}",
            "yes" if closed else "NO", f"{said['missed']:,}" if "missed" in said else "-",
            f"{frames['untracked']:,}", *_checked(memo),
            *_price(jobs), "no" if said.get("no_block_types") else "yes"])
    if not rows:
        return ""
    return ("## Tracking under load\n\n" + _grid(
        ["kernel", "release", "tested on", "active hooks", "sums add up", "events lost",
         "untracked pages", "stacks checked", "different", "instructions per fault",
         "kernel's page owner", "pageblock types"], rows)
        + ("Hooks that saw no event:\n\n" + "".join(lacking) + "\n" if lacking
           else "")
        + "Built kernels are Debian's source with page owner compiled in, but not switched on here;"
        " stock kernels are Debian's packages; the running kernel is that of the host. The loads"
        " also allocate contiguous memory: a huge page of 1 GiB and, on built kernels, CMA. The"
        " sums add up if the frames of all states are as many as /proc/kpageflags has. An event is"
        " lost if every program that could record it was busy."
        " [Second programs](tracking.md#interrupts-and-preemption), which record what interrupts do"
        " while the first programs run, are attached from the start here (`--second-programs"
        " always`), except those listed as waiting above. By default they are attached when"
        " pageowner is next called and finds them needed: until then, lost allocations leave"
        " untracked pages, and lost frees leave records of owners that are gone."
        " Every recognised stack was also unwound and compared; on arm64 stacks are not"
        " recognised, so each is unwound. The instructions are those that the tracker and the"
        " kernel's own page owner add to a page fault, see below. Pageblock types are shown if they"
        " add up to /proc/pagetypeinfo.\n\n")


def _checked(memo: dict[str, int]) -> list[str]:
    """How many recognised stacks were unwound too, and how many of these were different."""
    if not memo.get("hits"):
        return ["each is unwound", "-"]
    return [f"{memo['checks']:,}", f"{memo['differences']:,}"]


def _many(kernels: dict[str, dict[str, dict[str, Any]]]) -> str:
    """What hundreds of possible CPUs cost, against as many frames with two."""
    rows = []
    for name, jobs in kernels.items():
        said, few = jobs.get("many-cpus"), jobs.get("track")
        if said and few and "memory_bytes" in said and "memory_bytes" in few:
            a_frame = few["memory_bytes"] / sum(few["frames"].values())
            rows.append([
                name, f"{said['possible_cpus']:,}", f"{said['missed']:,}",
                f"{said['frames']['untracked']:,}",
                f"{said['memo']['checks']:,}", f"{said['memo']['differences']:,}",
                f"{said['memory_bytes'] / 2**20:.1f}",
                f"{said['memory_bytes'] / sum(said['frames'].values()):.1f}", f"{a_frame:.1f}"])
    if not rows:
        return ""
    return ("## Where many CPUs are possible\n\n" + _grid(
        ["kernel", "possible CPUs", "events lost", "untracked", "stacks checked", "different",
         "tracker's memory, MiB", "bytes per page frame", "with 2 CPUs"], rows)
        + "Two CPUs run, on two nodes. The others could be plugged in, and the tracker's maps have"
        " space for each of them.\n\n")


def _panics(kernels: dict[str, dict[str, dict[str, Any]]]) -> str:
    """What dumps of kernels that panicked tell, against what was saved just before."""
    rows = []
    for name, jobs in kernels.items():
        for job in ("panic-sysrq", "panic-oom", "kdump"):
            said = jobs.get(job, {})
            for dump, found in said.get("dumps", {}).items():
                rows.append([
                    name, said["kernel"], said["day"], job, f"{dump}, {found['mib']:,} MiB",
                    *(f"{found[what]:,}" for what in (
                        "records", "steady", "equal", "freed", "wrong", "unexplained")),
                    "{:,}, {:,}".format(*found["untracked"]),
                    "{:,} of {:,}".format(*found["user"])])
    if not rows:
        return ""
    return ("## Dumps after a panic\n\n" + _grid(
        ["kernel", "release", "tested on", "job", "dump", "records", "stood still before", "equal",
         "freed since", "different", "not explained", "untracked before, in the dump",
         "same user"], rows)
        + "The guest was tracked, under load and quiet again, and saved what was tracked twice just"
        " before it panicked: by SysRq (`panic-sysrq`, `kdump`), or since memory was all taken"
        " (`panic-oom`). vmcore.elf of `kdump` is a copy of /proc/vmcore, vmcore.kdump is"
        " makedumpfile's; the others were made by QEMU. Stood still: the same in both that were"
        " saved. Different: what the dump says of the same allocation. Not explained: records in"
        " the dump alone that are older than what was saved. Untracked: blocks in use without a"
        " record; were one lost in the dump, it would not be freed but be one of these. Until"
        " `panic-oom` panics, the kernel takes back and moves what it can, so that users change."
        "\n\n")


def _price(jobs: dict[str, dict[str, Any]]) -> list[str]:
    """What the tracker adds to a page fault, and what the kernel's own page owner adds."""
    off, own = jobs.get("price"), jobs.get("price-own")
    if not off:
        return ["-", "-"]
    ns = off["ns"]
    return [f"+{ns['tracker'] - ns['nothing']:,.0f}",
            f"+{own['ns']['nothing'] - ns['nothing']:,.0f}" if own else "-"]


def _prices(kernels: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for name, jobs in kernels.items():
        off, own = jobs.get("price"), jobs.get("price-own")
        if not off:
            continue
        ns = off["ns"]
        ours, plain = (ns[way] - ns["nothing"] for way in ("tracker", "tracker, plain"))
        row = [name, f"{ns['nothing']:,.0f}", f"+{ours:,.0f}", f"+{plain:,.0f}",
               f"{off['bytes_a_frame']:.1f}"]
        if own:
            kernels_own = own["ns"]["nothing"] - ns["nothing"]
            beside = own["ns"]["tracker"] - own["ns"]["nothing"]
            row += [f"+{kernels_own:,.0f}", f"{kernels_own / ours:.1f} : 1", f"+{beside:,.0f}"]
        else:
            row += ["-", "-", "-"]
        rows.append(row)
    if not rows:
        return ""
    return ("## Instructions per page fault\n\n" + _grid(
        ["kernel", "no page owner", "tracker", "tracker, `--plain`", "tracker's bytes per frame",
         "kernel's page owner", "kernel's : tracker", "tracker with kernel's page owner on"], rows)
        + "Each figure is the median number of instructions for faulting in one small page"
        " and unmapping it, counted by QEMU's `-icount`: the same in every run on any"
        " machine, but without the effect of caches. The kernel's own page owner cannot be"
        " switched on or off at run time, so its figure is the difference between two"
        " boots of the same guest. What the tracker adds in the boot with page owner on"
        " shows how comparable the two boots are. The kernel's page owner takes 72 bytes"
        " per page frame (64 of page_ext, 8 of its flags) and its stacks.\n\n")


def _rest(said: dict[str, Any]) -> str:
    """What differs, one by one; where more than 40 differ in time alone, by where they were
    allocated."""
    text = "".join(f"- `{line}`\n" for line in said["rest"])
    late = said["late"]
    if not late:
        return text + "\n" * bool(text)
    if len(late) <= 40:
        rows = [[f"{one['pfn']:#x}", str(one["order"]), f"`{one['comm']}`", f"{one['ms']:.2f}",
                 _from(one["stack"])] for one in sorted(late, key=lambda one: one["ms"])]
        return text + "\n" * bool(text) + _grid(
            ["pfn", "order", "comm", "our time is later by, ms", "allocated in"], rows)
    places: dict[str, list[float]] = {}
    for one in late:
        places.setdefault(_from(one["stack"]), []).append(one["ms"])
    rows = [[place, f"{len(ms):,}", f"{min(ms):.1f} to {max(ms):.1f}"]
            for place, ms in sorted(places.items(), key=lambda item: -len(item[1]))]
    return text + "\n" * bool(text) + _grid(
        ["allocated in", "records", "our time is later by, ms"], rows)


def _from(stack: str) -> str:
    return "`" + " ← ".join(stack.split()[:4]) + "`"


def _agreement(kernels: dict[str, dict[str, dict[str, Any]]]) -> str:
    text = ""
    for name, jobs in kernels.items():
        said = jobs.get("agree")
        if said:
            text += f"### {name} ({said['kernel']}, {said['day']})\n\n"
            rows = [[what, f"{number:,}"] for what, number in said["tally"].items()]
            rows += [[f"of these differing in {field}", f"{number:,}"]
                     for field, number in said["differing"].items()]
            rows += [["equal of those compared", f"{100 * said['share']:.4f} %"],
                     ["stale", f"{said['stale']:,}"], ["untracked", f"{said['untracked']:,}"]]
            rows += [[what, result] for what, result in said["tables"].items()]
            text += _grid(["records", ""], rows) + _rest(said)
        memcg = jobs.get("memcg")
        if memcg:
            text += (f"With the memory controller in use on {name}, the tracker names cgroups"
                     f" {'right' if memcg['right'] else 'WRONG'}; the kernel's own page owner"
                     f" {memcg['kernels own']}.\n\n")
    if not text:
        return ""
    return ("## Against the kernel's own page owner, record by record\n\n"
            "All loads of tests/vm/loads ran at once; then both page owners were read"
            " while nothing ran. Equal: order, gfp mask, pid, tgid, comm and stack are the"
            " same, and the times differ by less than a millisecond. Raced: the record"
            " changed between our two readings, one before and one after the kernel's. Our"
            " time is never earlier, because the kernel's page owner takes its time before"
            " it runs the tracepoint. The guest's clock counts instructions, since an"
            " emulated CPU can pause for milliseconds in between while the host is busy"
            " (with the host's clock, 99.99 % were equal on a quiet host, 99.96 % on a"
            " busy one).\n\n"
            + text)
