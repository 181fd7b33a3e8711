"""Patches of depthwise convolutions: the taps of a column, one above the other, in one 32-bit word.

The multiplying instructions add up the products of the values in a word: four bytes, or two
int16. A depthwise convolution adds values of one channel, so a
patch is int32 ``[filter_y / values per word, column, channel]``: neighbouring rows of the filter
share words. A word is made once and read by every tap along x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.convolution.patches import ByteToElement, PatchSource
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inside


class WordSource(NamedTuple):
    """The input of a row of outputs."""

    image: Array
    """Bytes of the whole input, NHWC flat."""
    borders: Array
    """A row of the patch outside the image: bytes, the input's zero point."""
    conversion: ByteToElement
    """From an input byte to an element of the patch."""
    per_word: int
    """Elements of a 32-bit word: four bytes or two int16."""
    reading: PatchSource
    """Sizes and steps."""
    batch: int
    """Which image of the batch."""
    in_y: int
    """Input row that the filter's first row reads; above the image, it is negative."""


@no_refcount_inside
def fill_words(source: WordSource, in_x: int, pixels: int, patch: Array) -> None:
    """Fills ``patch`` for ``pixels`` outputs, whose first patch starts at column ``in_x``.

    Rows behind the filter's last row are undefined: their weights are zero.
    """
    r, per_word = source.reading, source.per_word
    row_size = r.patch_columns * r.in_channels
    one: Any = np.int64(1)  # Numba would compile another version of a function for a literal
    pitch = row_size * r.copies
    for group in range((r.taps_y + per_word - 1) // per_word):
        row = patch[group * pitch : (group + 1) * pitch]
        first = group * per_word
        if r.gathered:
            for pixel in range(pixels):
                for tap_x in range(r.taps_x):
                    column = (pixel * r.taps_x + tap_x) * r.in_channels
                    target = row[column : column + r.in_channels]
                    x = in_x + pixel * r.in_x_step + tap_x * r.tap_x_step
                    _fill_columns(source, first, x, one, target)
        else:
            target = row[:row_size]
            _fill_columns(source, first, in_x, r.patch_columns, target)
        for i in range(row_size - 1 if r.copies > 1 else -1, -1, -1):
            for copy in range(r.copies):  # from the end, so that none is lost
                row[i * r.copies + copy] = row[i]


@no_refcount_inside
def _fill_columns(source: WordSource, first_tap: int, first: int, columns: int, target: Array) -> None:
    """Fills ``columns`` columns from ``first`` on, for the filter's rows from ``first_tap`` on."""
    r, borders, conversion = source.reading, source.borders, source.conversion
    channels = r.in_channels
    left = min(max(-first, 0), columns)
    right = max(min(r.in_width - first, columns), left)
    inside = (right - left) * channels
    begin = (first + left) * channels
    a = _bytes_read(source, first_tap, begin, inside)
    b = _bytes_read(source, first_tap + 1, begin, inside)
    inner = target[left * channels : right * channels]
    before, behind = target[: left * channels], target[right * channels : columns * channels]
    flip, offset = np.uint8(conversion.flip), np.int16(conversion.offset)
    if source.per_word == 2:
        _pairs(a, b, flip, offset, inner)
        _pairs(borders, borders, flip, offset, before)
        _pairs(borders, borders, flip, offset, behind)
        return
    c = _bytes_read(source, first_tap + 2, begin, inside)
    if first_tap + 3 == r.taps_y:
        _triples(a, b, c, flip, inner)
    else:
        d = _bytes_read(source, first_tap + 3, begin, inside)
        _quads(a, b, c, d, flip, inner)
    _quads(borders, borders, borders, borders, flip, before)
    _quads(borders, borders, borders, borders, flip, behind)


@njit(cache=True, nogil=True, inline="always")
def _bytes_read(source: WordSource, tap_y: int, begin: int, size: int) -> Array:
    """``size`` bytes of the input row that a filter row reads, or of the border."""
    r = source.reading
    y = source.in_y + tap_y * r.tap_y_step
    if tap_y < r.taps_y and 0 <= y < r.in_height:
        start = (source.batch * r.in_height + y) * r.in_width * r.in_channels + begin
        return source.image[start : start + size]
    return source.borders[:size]


@no_refcount_inside
def _pairs(a: Array, b: Array, flip: np.uint8, offset: np.int16, target: Array) -> None:
    for i in range(target.size):
        low = np.int32(np.int16(a[i] ^ flip) - offset)
        high = np.int32(np.int16(b[i] ^ flip) - offset)
        target[i] = np.int32(low & np.int32(0xFFFF)) | np.int32(high << np.int32(16))


@no_refcount_inside
def _triples(a: Array, b: Array, c: Array, flip: np.uint8, target: Array) -> None:
    flips = np.uint32(flip) * np.uint32(0x010101)
    for i in range(target.size):
        word = np.uint32(a[i]) | np.uint32(np.uint32(b[i]) << np.uint32(8))
        target[i] = np.uint32(word | np.uint32(np.uint32(c[i]) << np.uint32(16))) ^ flips


@no_refcount_inside
def _quads(a: Array, b: Array, c: Array, d: Array, flip: np.uint8, target: Array) -> None:
    flips = np.uint32(flip) * np.uint32(0x01010101)
    for i in range(target.size):
        low = np.uint32(np.uint8(a[i])) | np.uint32(np.uint32(np.uint8(b[i])) << np.uint32(8))
        high = np.uint32(np.uint8(c[i])) | np.uint32(np.uint32(np.uint8(d[i])) << np.uint32(8))
        target[i] = np.uint32(low | np.uint32(high << np.uint32(16))) ^ flips


@no_refcount_inside
def pack_neighbours(patch: Array, neighbour: int, size: int, words: Array) -> None:
    """Fills words with a value of the patch and the values ``neighbour``, 2 * ``neighbour``, … behind it.

    Takes the first ``size`` elements of ``patch``, and fills every word that has all its values.
    """
    if patch.itemsize > 1:
        _pairs_of_values(patch[:size], patch[neighbour:size], words)
    else:
        c, d = patch[2 * neighbour : size], patch[3 * neighbour : size]
        _quads(patch[:size], patch[neighbour:size], c, d, np.uint8(0), words[: d.size])


@no_refcount_inside
def _pairs_of_values(a: Array, b: Array, target: Array) -> None:
    for i in range(b.size):
        target[i] = np.int32(np.int32(a[i]) & np.int32(0xFFFF)) | np.int32(np.int32(b[i]) << np.int32(16))
