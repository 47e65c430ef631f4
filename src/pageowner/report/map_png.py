"""``pageowner map --png``: one or more pixels a cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from pageowner.analysis.layout import fit
from pageowner.analysis.picture import aggregate
from pageowner.report import png
from pageowner.report.map_view import legend
from pageowner.report.palette import BACKGROUND, colours, shaded
from pageowner.report.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.analysis.picture import Picture
    from pageowner.model.metadata import Metadata

__all__ = ["SIDE", "Image", "MapPng", "image"]

SIDE = 1024
"""Pixels in a line, and at most in a column, but for lines between many zones."""

_SHADES = 16
_GAP = 3  # pixels between zones


class Image(NamedTuple):
    """``pixels`` (height x width): places in ``palette`` (n x 3); a cell of ``frames`` page frames
    is a square of ``scale`` pixels."""

    pixels: NDArray[np.uint8]
    palette: NDArray[np.uint8]
    frames: int
    scale: int


def image(drawn: Picture, order: str, side: int = SIDE) -> Image:
    """The picture as pixels: single pages if they fit, and those enlarged if there is room."""
    frames = max(drawn.frames, 1)
    scale = 1
    while (2 * scale) ** 2 * frames <= side * side and scale < side:
        scale *= 2
    layout = fit(drawn.stretches, max(side // scale, 1), max(side // scale, 1), order)
    cells = aggregate(drawn, layout.frames)
    kinds = len(drawn.categories)
    shade = np.maximum(np.ceil(cells.share * _SHADES), 1).astype(np.int64) - 1
    # at -1, where no cell stands: the background
    colour = np.append(cells.code.astype(np.int64) * _SHADES + shade, kinds * _SHADES)
    strips = [np.zeros((0, layout.places.shape[1]), np.int64)]
    for top, end in zip(layout.rows, layout.rows[1:], strict=False):
        if top:
            strips.append(np.full((-(-_GAP // scale), layout.places.shape[1]), -1, np.int64))
        strips.append(layout.places[top:end])
    pixels = colour[np.concatenate(strips)].astype(np.uint8)
    pixels = pixels.repeat(scale, 0).repeat(scale, 1)
    shares = np.tile((np.arange(_SHADES, dtype=np.float32) + 1) / np.float32(_SHADES), kinds)
    palette = np.concatenate([
        shaded(np.repeat(np.arange(kinds, dtype=np.uint8), _SHADES), shares,
               colours(drawn.categories, drawn.by)),
        shaded(np.zeros(1, np.uint8), np.ones(1, np.float32), [BACKGROUND])])
    return Image(pixels, palette, layout.frames, scale)


@dataclass(frozen=True)
class MapPng:
    """The picture as one PNG file, with the legend as text in it."""

    picture: Picture
    meta: Metadata
    order: str

    @cached_property
    def image(self) -> Image:
        """What is drawn."""
        return image(self.picture, self.order)

    def write(self, file: BinaryIO) -> None:
        texts = {
            "Title": f"Physical memory by {self.picture.by}: {printable(self.meta.source)}",
            "Description": "\n".join(name + share
                                     for _, name, share in legend(self.picture, self.meta)),
            "Software": "pageowner"}
        png.write(file, self.image.pixels, self.image.palette, texts)
