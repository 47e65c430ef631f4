"""An object, who allocated it, and what else is in its slab: ``pageowner who ADDRESS``."""

from __future__ import annotations

from pathlib import Path

from pageowner.api.who import who
from pageowner.model.slab_at import SlabAt

__all__ = ["who_object"]


def who_object(address: int) -> SlabAt:
    """What is known about the object at an address of this machine's kernel, or around it, and
    about its slab.

    Raises PageownerError if tracking is off or without objects, if no slab is at that address, or
    if this process lacks the rights.
    """
    from pageowner.kernel.slabs import parse_slabinfo
    from pageowner.tracker.read.capture_objects import capture_slab
    from pageowner.tracker.read.maps import open_store

    with open_store() as store:
        slab = capture_slab(store, address)
    rows, meta = slab.objects.table.to_pylist(), slab.objects.meta
    share = int(meta.extra["objects"]["share"])
    blocks = who(slab.first)[0].blocks
    found = next((row for row in rows if row["address"] <= address < row["address"]
                  + row["amount"] // share), None)
    cache = rows[0]["cache"] if rows else None
    try:
        text = Path("/proc/slabinfo").read_text(errors="backslashreplace")
    except OSError:
        text = ""
    room = next((known.per_slab for known in parse_slabinfo(text)
                 if known.name == cache and known.slab_pages == slab.pages), 0)
    return SlabAt(address, found, [row for row in rows if row is not found], slab.address,
                  slab.first, slab.pages, room, rows[0]["amount"] // share if rows else 0,
                  blocks, meta)
