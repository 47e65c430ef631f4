"""What each verb costs as distinct stacks and tasks become many: CPU seconds and peak memory.

    python benchmarks/distinct.py [STACKS,…] [VERB,…] [FOLDER OF ANOTHER COMMIT]

The dumps are made up: as many stacks as asked for, 8 to 20 frames deep, of 3,000 functions, that
share their callers as calls do; a record or two for each, by a tenth as many tasks. Given another
commit's folder (with its .venv), both are run in turn and the last column is how many times less
CPU this one takes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from common import BIN, Run, folder, run

STACKS = (1_000, 10_000, 100_000, 1_000_000)
LIMIT = 170
"""Seconds after which a run is given up."""

_WORDS = """
    alloc page vma file inode dentry skb sock pipe buf map node list tree cache slab net tcp udp xfs
    ext4 btrfs bio blk req queue work task exec fork wait poll read write open close get put init
    free move copy sync lock irq soft timer bpf trace perf user kernel
"""


def functions(chance: random.Random, number: int) -> list[str]:
    """Names as the kernel's symbols, with offset and size."""
    words, names = _WORDS.split(), set()
    while len(names) < number:
        names.add("_".join(chance.sample(words, chance.randint(2, 4))))
    return [f"{name}+{chance.randrange(16, 4000):#x}/{chance.randrange(4000, 9000):#x}"
            for name in sorted(names)]


def write_dump(path: Path, stacks: int, seed: int = 1) -> None:
    """A dump of page owner with so many distinct stacks."""
    chance = random.Random(seed)
    names = functions(chance, 3000)
    # Callers first: a stack is a callee more than one that was there, so that a tree grows.
    tops = [[f" {names[n]}\n" for n in chance.sample(range(100), 5)] for _ in range(20)]
    grown: list[tuple[str, int]] = [("".join(top), len(top)) for top in tops]
    seen: set[str] = set()
    pfn, when = 4096, 1_000_000_000
    tasks = max(stacks // 10, 10)
    with path.open("w") as out:
        while len(seen) < stacks:
            callers, depth = grown[chance.randrange(len(grown))]
            more = chance.randint(1, 4)
            callees = "".join(f" {names[chance.randrange(3000)]}\n" for _ in range(more))
            text = callees + callers
            depth += more
            if depth < 16 and (len(grown) < 5000 or chance.random() < 0.01):
                grown.append((text, depth))
            if depth < 8 or text in seen:
                continue
            seen.add(text)
            for _ in range(1 + (chance.random() < 0.3)):
                pid = 1000 + chance.randrange(tasks)
                order = 0 if chance.random() < 0.8 else chance.randrange(1, 4)
                pfn = (pfn + (1 << order)) & -(1 << order) or pfn
                when += chance.randrange(1, 100_000)
                out.write(
                    f"Page allocated via order {order}, mask 0x140cca(GFP_HIGHUSER_MOVABLE|"
                    f"__GFP_COMP), pid {pid}, tgid {pid} (worker-{pid % tasks}), ts {when} ns\n"
                    f"PFN {pfn:#x} type Movable Block {pfn >> 9} type Movable Flags "
                    f"0xffe0000002002c(referenced|uptodate|lru|node=0|zone=2|lastcpupid=0x7ff)\n"
                    f" get_page_from_freelist+0x1ac6/0x1c90\n"
                    f" __alloc_frozen_pages_noprof+0x1a5/0x390\n{text}\n")
                pfn += 1 << order


def verbs(place: Path) -> dict[str, list[str]]:
    """Each verb with its words; ``dump.txt`` and ``saved.parquet`` lie in ``place``."""
    text, saved = str(place / "dump.txt"), str(place / "saved.parquet")
    out = str(place / "out")
    return {
        "save": ["save", str(place / "again.parquet"), text],
        "report-text": ["report", text],
        "report": ["report", saved],
        "report-full": ["report", saved, "--full"],
        "report-json": ["report", saved, "--json"],
        "report-comm": ["report", saved, "--by", "comm"],
        "flame-svg": ["flame", saved, "--svg", out],
        "flame-html": ["flame", saved, "--html", out],
        "map-html": ["map", saved, "--html", out],
        "pprof": ["export", "--format", "pprof", saved, "-o", out],
        "speedscope": ["export", "--format", "speedscope", saved, "-o", out],
        "folded": ["export", "--format", "folded", saved, "-o", out],
        "query": ["query", "SELECT stack, sum(pages) FROM pages GROUP BY 1"
                           " ORDER BY 2 DESC LIMIT 5", saved],
        "diff": ["diff", saved, saved],
        "frag": ["frag", saved, "--order", "9"],
        "filter": ["report", saved, "--stack", "*alloc*"],
        "dump": ["dump", saved, "-o", out],
    }


def _one(words: list[str], binary: Path) -> Run | str:
    try:
        return run(["timeout", str(LIMIT), str(binary / "pageowner"), *words])
    except SystemExit as error:
        return str(error).rpartition(": ")[2]


def _shown(found: Run | str) -> tuple[str, str]:
    if isinstance(found, str):
        return found, ""
    return f"{found.cpu:.1f}", f"{found.peak / 2**20:.0f}"


def main() -> None:
    words = sys.argv[1:]
    sizes = [int(word.replace("_", "")) for word in words[0].split(",")] if words else list(STACKS)
    chosen = words[1].split(",") if len(words) > 1 and words[1] else None
    other = Path(words[2]) / ".venv/bin" if len(words) > 2 else None
    print("| stacks | verb | CPU s | peak MiB |" + (" before, CPU s | MiB | times less |" if other
                                                    else ""))
    print("| --- | --- | --- | --- |" + (" --- | --- | --- |" if other else ""))
    for size in sizes:
        with folder() as name:
            place = Path(name)
            write_dump(place / "dump.txt", size)
            subprocess.run([BIN / "pageowner", "save", place / "saved.parquet", place / "dump.txt"],
                           check=True, stdout=subprocess.DEVNULL)
            for verb, arguments in verbs(place).items():
                if chosen and verb not in chosen:
                    continue
                mine = _one(arguments, BIN)
                row = [f"{size:,}", verb, *_shown(mine)]
                if other:
                    before = _one(arguments, other)
                    row += _shown(before)
                    row.append(f"{before.cpu / mine.cpu:.1f}" if isinstance(mine, Run)
                               and isinstance(before, Run) else "")
                print("| " + " | ".join(row) + " |", flush=True)
                for left in ("out", "again.parquet"):
                    if (place / left).exists():
                        os.unlink(place / left)


if __name__ == "__main__":
    main()
