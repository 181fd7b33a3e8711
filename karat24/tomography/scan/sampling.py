"""The sample of pixels that a volume is judged by: the same in every run."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.masks import Mask, constant_outside
from karat24.tomography.scan.volumes import Volume

SLICES = 64
PIXELS_PER_SLICE = 1 << 16
BINS = 128


@dataclass(frozen=True)
class Sample:
    """``ordered``: the sampled values in ascending order, float64, finite, unmasked. ``digest``: SHA-256 of
    the sampled pixels as they were read. ``masked``: the share of sampled pixels that are masked.
    ``constant``: names of sampled slices that hold one value only."""

    ordered: Array
    digest: str
    mask: Mask | None
    masked: float
    constant: tuple[str, ...] = ()

    def histogram(self) -> tuple[Array, float, float]:
        """Counts in :data:`BINS` equal bins between the 1st and the 999th thousandth of the sample, and these
        two ends. Counted from positions in the ordered sample: exact."""
        size = self.ordered.size
        low, high = (float(self.ordered[(size - 1) * rank // 1000]) for rank in (1, 999))
        edges = np.array([low + (high - low) * step / BINS for step in range(1, BINS)])
        places = np.searchsorted(self.ordered, edges, "left")
        return np.diff(np.concatenate([[0], places, [size]])), low, high


def take_sample(volume: Volume, declared: float | None, found_masks: bool = True) -> Sample:
    """Evenly spaced pixels of up to 64 evenly spaced slices.

    ``declared`` is the mask value that the user gives. Without one, a constant outside the circle is found.
    Raises FeedError for NaN and infinity outside the mask, with the first one's place, and for a sample that
    is masked altogether.
    """
    depth = volume.about.shape[0]
    chosen = sorted(
        {index * (depth - 1) // max(min(SLICES, depth) - 1, 1) for index in range(min(SLICES, depth))}
    )
    images, hashed = [], hashlib.sha256()
    step = max(1, math.isqrt(max(1, volume.about.shape[1] * volume.about.shape[2] // PIXELS_PER_SLICE)))
    for index in chosen:
        image = np.ascontiguousarray(volume.read(index)[::step, ::step])
        hashed.update(image.astype(image.dtype.newbyteorder("<")).tobytes())
        images.append(image)
    mask = _mask(images, volume, declared, found_masks)
    kept, constant = [], []
    for index, image in zip(chosen, images, strict=True):
        masked = mask.of(image) if mask is not None else np.zeros(image.shape, bool)
        require_finite(image, masked, volume.about.names[index], step)
        kept.append(image[~masked].astype(np.float64))
        if is_constant(image, masked):
            constant.append(volume.about.names[index])
    values = np.sort(np.concatenate(kept))
    if not values.size and mask is not None:
        value = f"every pixel of the sample is {mask.value:g}"
        raise FeedError(f"{value}: there is nothing to restore; name the array or --mask that is meant")
    total = sum(image.size for image in images)
    return Sample(values, hashed.hexdigest(), mask, 1 - values.size / total, tuple(constant))


def is_constant(image: Array, masked: Array) -> bool:
    """Whether a slice holds one value outside the mask, or none: nothing was reconstructed there."""
    values = image[~masked]
    return not values.size or bool((values == values[0]).all())


def _mask(images: list[Array], volume: Volume, declared: float | None, found_masks: bool) -> Mask | None:
    floats = volume.about.dtype.kind == "f"
    if declared is not None:
        if math.isnan(declared) and not floats:
            raise FeedError(f"--mask nan: the volume holds {volume.about.dtype}, which knows no NaN")
        if not _has(volume.about.dtype, declared):
            raise FeedError(
                f"--mask {declared:g}: the volume holds {volume.about.dtype}, which has no such value"
            )
        return Mask(declared, "everywhere")
    value = constant_outside(images) if found_masks else None
    if value is None or math.isnan(value):  # NaN is a mask only when the user says so
        return None
    return Mask(value, "everywhere" if floats else "outside the circle")


def _has(dtype: np.dtype, value: float) -> bool:
    """Whether a type has a value; floating-point numbers are rounded to it, and must stay finite."""
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= int(value) <= limits.max


def require_finite(image: Array, masked: Array, name: str, step: int = 1) -> None:
    """Raises FeedError for NaN and infinity outside the mask, with the first one's place in the slice."""
    if image.dtype.kind != "f":
        return
    bad = ~np.isfinite(image) & ~masked
    if not bad.any():
        return
    row, column = (int(place) * step for place in np.argwhere(bad)[0])
    value = float(image[row // step, column // step])
    raise FeedError(
        f"slice {name}: {int(np.count_nonzero(bad))} pixels are "
        f"{'NaN' if math.isnan(value) else 'infinite'}, the "
        f"first in row {row}, column {column}; --mask nan leaves NaN as it is, anything else must be replaced"
    )
