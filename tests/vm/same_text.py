"""same_text.py FOLDER: the text that pageowner writes of a dump's own page owner, beside what the
kernel printed just before and just after the dump (jobs/crash_own.py).

Exit status 0 if every record that the kernel printed both times is in ours, byte for byte, and not
more than one in a hundred of ours is in neither of its texts.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pageowner
from pageowner.sources import page_owner_text


def records(text: bytes) -> set[bytes]:
    return {record for record in text.split(b"\n\n") if record.strip()}


def main() -> int:
    folder = Path(sys.argv[-1])
    began = time.monotonic()
    snapshot = pageowner.read(folder / "vmcore.elf")
    took = time.monotonic() - began
    out = io.BytesIO()
    page_owner_text.write(snapshot, out)
    ours = records(out.getvalue())
    before, after = (records((folder / name).read_bytes()) for name in ("before.txt", "after.txt"))
    still = before & after
    missing, other = still - ours, ours - before - after
    print(f"{len(ours):,} records of the dump in {took:.1f} s; {len(before):,} and {len(after):,}"
          f" that the kernel printed, {len(still):,} of them both times: {len(missing):,} of those"
          f" are not in ours, and {len(other):,} of ours in neither; counters"
          f" {snapshot.meta.counters}")
    for record in sorted(missing)[:3]:
        print(record.decode(errors="replace"))
    return int(bool(missing) or len(still) < 1000 or len(other) * 100 > len(ours))


if __name__ == "__main__":
    sys.exit(main())
