"""What a sample leaves uncertain: between which bounds the sum over all objects lies.

Of a source that has one object in N, chosen by a hash of the address, each stands for N. Whether an
object was chosen is a coin toss of its own, so that for n objects of one size the truth is about
N * n, give or take what a Poisson count of n leaves (its score interval: the numbers whose own
spread reaches n), less the part that is known: N = 1 leaves nothing. For objects of several sizes
n is the number of equal ones that would scatter as much: (sum of sizes)**2 / sum of squares (Kish's
effective sample size).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.model.metadata import Metadata

__all__ = ["bounds", "share"]

_Z = 1.959964
"""Of a normal distribution: 95 % lie between."""


def share(meta: Metadata) -> int:
    """One object in how many a source has; 1: all, and every source of pages."""
    return int((meta.extra.get("objects") or {}).get("share", 1))


def bounds(total: NDArray[np.int64], squares: NDArray[np.float64],
           one_in: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the most, with 95 % confidence, of sums over samples of one in so many.

    ``total``: each sum as it is estimated, so ``one_in`` times that of the sample; ``squares``: the
    sum of the squares of what the rows stand for. Both bounds are the sum itself where ``one_in``
    is 1.
    """
    spread = _Z ** 2 * (1 - 1 / one_in)
    sums = total.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.where(squares > 0, sums ** 2 / squares, 0.0)
        each = np.where(number > 0, sums / number, 0.0)
    half = np.sqrt(spread * number + spread ** 2 / 4)
    middle = number + spread / 2
    return (np.floor(each * (middle - half)).astype(np.int64),
            np.ceil(each * (middle + half)).astype(np.int64))
