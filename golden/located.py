"""The places of the differing values of a tensor: per channel, per block of pixels, and as pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array, Format

MOST_BLOCKS = 48
"""The most blocks down and across in which places are counted."""

LEAST_PICTURE, MOST_PICTURE = 16, 1024
"""Height and width between which a tensor of 1 or 3 channels is shown as a picture."""


@dataclass(frozen=True)
class Located:
    """Counts of differing values.

    ``channels`` counts per channel, ``places`` per block of places, rows first; ``block`` is the height and
    width of a block. ``pictures`` are the first image of the batch, expected and found, uint8
    ``[y, x, 1 or 3]``, black and white being the lowest and the highest value of either; None for a tensor
    that is not a picture.
    """

    channels: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    block: tuple[int, int]
    pictures: tuple[Array, Array] | None = None


def locate(expected: Array, found: Array, format: Format) -> Located | None:
    """The places where two arrays of one shape and type differ; None for arrays without any axis.

    The channel is the last axis of .tflite files and the second of .onnx files, where an array has at least
    three axes; y and x are the two axes beside it of four. Other arrays have channels only.
    """
    if expected.ndim == 0 or expected.shape != found.shape or expected.dtype != found.dtype:
        return None
    if format == "onnx" and expected.ndim > 2:
        expected, found = np.moveaxis(expected, 1, -1), np.moveaxis(found, 1, -1)
    differing = expected != found
    if expected.dtype.kind == "f":
        differing &= ~(np.isnan(expected) & np.isnan(found))
    channels = np.count_nonzero(differing.reshape(-1, differing.shape[-1]), axis=0)
    if differing.ndim != 4:
        return Located(tuple(channels.tolist()), (), (0, 0))
    places = np.count_nonzero(differing, axis=(0, 3))
    block = -(-places.shape[0] // MOST_BLOCKS), -(-places.shape[1] // MOST_BLOCKS)
    return Located(
        tuple(channels.tolist()),
        tuple(tuple(row) for row in _blocks(places, *block).tolist()),
        block,
        _pictures(expected, found),
    )


def _blocks(places: Array, height: int, width: int) -> Array:
    """Sums over blocks; the last ones may reach beyond the edge."""
    if not places.size:
        return places
    missing = (-places.shape[0] % height, -places.shape[1] % width)
    padded = np.pad(places, ((0, missing[0]), (0, missing[1])))
    rows, columns = padded.shape[0] // height, padded.shape[1] // width
    return np.asarray(padded.reshape(rows, height, columns, width).sum(axis=(1, 3)))


def _pictures(expected: Array, found: Array) -> tuple[Array, Array] | None:
    _, height, width, channels = expected.shape
    fits = all(LEAST_PICTURE <= size <= MOST_PICTURE for size in (height, width))
    if not fits or channels not in (1, 3) or not expected.shape[0]:
        return None
    both = np.stack([expected[0], found[0]]).astype(np.float64)
    finite = both[np.isfinite(both)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    levels = np.nan_to_num((both - low) * (255 / (high - low or 1.0)), nan=0.0, posinf=255, neginf=0)
    grey = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return grey[0], grey[1]
