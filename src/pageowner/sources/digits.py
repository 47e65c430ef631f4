"""Decimal numbers in a text, of all its lines at a time: eight characters as one number, the first
its lowest byte."""

from __future__ import annotations

import numpy as np

__all__ = ["BLANKS", "bytes_at", "is_all_digits", "is_number", "number_of", "numbers_between"]

BLANKS, _ZEROS = 0x2020202020202020, 0x3030303030303030
_ONES, _LOW, _SIX = 0x0101010101010101, 0x0f0f0f0f0f0f0f0f, 0x0606060606060606


def bytes_at(text: bytes, at: np.ndarray, number: int) -> np.ndarray:
    """The ``number`` bytes (4 or 8) of the text at each of these places."""
    found: np.ndarray = np.ndarray(
        max(len(text) - number + 1, 0), f"<u{number}", text, strides=(1,))[at]
    return found


def is_number(characters: np.ndarray) -> np.ndarray:
    """Whether they are blanks and then digits, of which there is one."""
    blanks = (~characters >> np.uint64(4) & np.uint64(_ONES)) * np.uint64(255)
    digits = characters | np.uint64(0x1010101010101010)
    high = np.uint64(~_LOW & (1 << 64) - 1)
    good: np.ndarray = (characters & np.uint64(_LOW) & blanks) == 0
    good &= (blanks & blanks + np.uint64(1) == 0) & (blanks >> np.uint64(56) == 0)
    good &= digits & high == np.uint64(_ZEROS)
    good &= digits + np.uint64(_SIX) & high == np.uint64(_ZEROS)
    return good


def is_all_digits(number: np.ndarray) -> np.ndarray:
    """Whether there is no blank in front, where `is_number` holds."""
    good: np.ndarray = number & np.uint64(0x1010101010101010) == np.uint64(0x1010101010101010)
    return good


def number_of(characters: np.ndarray) -> np.ndarray:
    """Eight digits, or blanks in front of them, as a number: pairs, fours and all in turn."""
    value = (characters & np.uint64(_LOW)) * np.uint64(2561) >> np.uint64(8)
    value = (value & np.uint64(0x00ff00ff00ff00ff)) * np.uint64(6553601) >> np.uint64(16)
    value = (value & np.uint64(0x0000ffff0000ffff)) * np.uint64(42949672960001) >> np.uint64(32)
    return value.astype(np.int64)


def numbers_between(text: bytes, array: np.ndarray, begin: np.ndarray, end: np.ndarray,
                    most: int) -> np.ndarray | None:
    """Numbers of up to ``most`` digits at these places; None if they are not all such, as written
    by a kernel, without zeros in front. ``array``: the bytes of the text, of which 16 stand in
    front of the end of any number."""
    width = end - begin
    widest, least = int(width.max()), int(width.min())
    if least < 1 or widest > most:
        return None
    if widest == 1:
        digit = array[begin] - np.uint8(ord("0"))
        return None if (digit > 9).any() else digit.astype(np.uint64)
    if ((array[begin] == ord("0")) & (width > 1)).any():
        return None
    characters = _cut(bytes_at(text, end - 8, 8), min(widest, 8) if least >= min(widest, 8)
                      else np.minimum(width, 8))
    if not is_number(characters).all():
        return None
    value = number_of(characters).astype(np.uint64)
    if widest > 8:
        long = np.flatnonzero(width > 8)
        characters = _cut(bytes_at(text, end[long] - 16, 8), width[long] - 8)
        if not is_number(characters).all():
            return None
        value[long] += number_of(characters).astype(np.uint64) * np.uint64(10**8)
    return value


def _cut(characters: np.ndarray, width: np.ndarray | int) -> np.ndarray:
    """The last ``width`` of eight characters, and blanks in front of them."""
    if isinstance(width, int):
        mask = np.uint64((1 << 64) - (1 << 8 * (8 - width)))
        return characters & mask | np.uint64(BLANKS) & ~mask
    bits = (8 * (8 - width)).astype(np.uint64)
    # A shift by all 64 bits is none.
    kept = np.where(width == 0, np.uint64(0), ~np.uint64(0) << np.minimum(bits, np.uint64(63)))
    return characters & kept | np.uint64(BLANKS) & ~kept
