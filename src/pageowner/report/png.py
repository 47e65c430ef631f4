"""Write PNG images (W3C PNG, third edition): 8-bit palette, which zlib shrinks well.

Thirty lines instead of an image library, which would be a heavy thing to ask for one function.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["write"]


def write(file: BinaryIO, pixels: NDArray[np.uint8], palette: NDArray[np.uint8],
          texts: Mapping[str, str] | None = None) -> None:
    """``pixels`` (height x width): places in ``palette`` (n x 3, n up to 256: red, green, blue);
    ``texts``: notes by keyword (Latin-1, 1 to 79 characters)."""
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
    _chunk(file, b"PLTE", palette.astype(np.uint8).tobytes())
    for keyword, text in (texts or {}).items():
        # iTXt: not compressed, no language, no translated keyword
        _chunk(file, b"iTXt", keyword.encode("latin-1") + b"\0" * 5 + text.encode())
    _chunk(file, b"IDAT", zlib.compress(rows.tobytes(), 6))
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content
               + struct.pack(">I", zlib.crc32(kind + content)))
