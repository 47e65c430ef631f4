"""Texts cut, overwritten and joined at random, as copying, logs and full disks do it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from pageowner.sources.opening import Opened, open_source


def damaged(whole: bytes, chance: random.Random, alphabet: bytes) -> bytes:
    """``whole`` after one to four times something was taken out, put in from ``alphabet``,
    overwritten, or an empty line lost."""
    text = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        kind = chance.randrange(4)
        if kind == 0:
            del text[at:at + chance.randint(1, 400)]
        elif kind == 1:
            text[at:at] = bytes(chance.choices(alphabet, k=chance.randint(1, 9)))
        elif kind == 2:
            text[at:at + 3] = b"\xff\x00~"
        elif (found := text.find(b"\n\n", at)) > 0:
            del text[found]
    return bytes(text)


def opened_damaged(whole: bytes, chance: random.Random, alphabet: bytes, place: Path,
                   ) -> Iterator[tuple[bytes, Opened]]:
    """300 damaged texts, each written to ``place`` and open there."""
    for _ in range(300):
        text = damaged(whole, chance, alphabet)
        place.write_bytes(text)
        with open_source(place) as opened:
            yield text, opened
