"""Representative inputs for quantizing the shipped networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array, Graph
from karat24.tomography.tiles import TileGrid

SLICES = 6
TILES_PER_SLICE = 12
FIRST_SEED = 100
"""Calibration slices are training samples; their seeds start here."""


def calibration_samples(graph: Graph, path: Path | None = None, seed: int = 0) -> list[Array]:
    """Float32 inputs ``[1, y, x, channel]`` for a float network: from a file, else simulated.

    A file holds ``[samples, y, x, channel]`` (``[samples, y, x]`` for one channel), at least as
    large as the network's input; samples are cut into tiles of that size. Simulated samples are
    noisy slices for three input channels (TomoGAN), clean ones for one (Fine-Tune).
    Raises FeedError for a file that does not fit.
    """
    _, height, width, channels = graph.tensors[graph.inputs[0]].shape
    if path is not None:
        return tiles_of(_load(path, channels), height, width, path)
    return tiles_of(simulated(max(height, width, 256), channels, seed), height, width)


def held_out_samples(graph: Graph, seed: int = 0) -> list[Array]:
    """Inputs to judge a quantized network on: simulated as for :func:`calibration_samples`, but samples of
    the validation split, which neither training nor calibration sees."""
    _, height, width, channels = graph.tensors[graph.inputs[0]].shape
    return tiles_of(simulated(max(height, width, 256), channels, seed, "validation"), height, width)


def simulated(size: int, channels: int, seed: int, split: str = "train") -> Array:
    """Simulated slices ``[sample, size, size, channels]``, one per training family."""
    from karat24.tomography.imaging.families import TRAINING_FAMILIES
    from karat24.tomography.imaging.simulate import simulate_slices

    slices = []
    for number in range(SLICES):
        family = TRAINING_FAMILIES[number % len(TRAINING_FAMILIES)]
        scan = simulate_slices(family, size, FIRST_SEED + SLICES * seed + number, split=split)
        slices.append(scan.noisy[0] if channels == 3 else scan.clean[0][..., None])
    return np.stack(slices)


def tiles_of(images: Array, height: int, width: int, path: Path | None = None) -> list[Array]:
    """At most :data:`TILES_PER_SLICE` tiles ``[1, height, width, channel]`` of each image, spread evenly."""
    chosen: list[Array] = []
    for image in images:
        if image.shape[0] < height or image.shape[1] < width:
            raise FeedError(
                f"{path or 'calibration'}: samples of {image.shape[:2]} are smaller than the network's "
                f"{height}×{width}"
            )
        tiles = TileGrid(image.shape[0], image.shape[1], height, width).cut(image)
        chosen += [tile[None] for tile in spread(tiles, TILES_PER_SLICE)]
    return chosen


def spread(items: Sequence[Array] | Array, most: int) -> Sequence[Array]:
    """At most ``most`` of the items, evenly spread."""
    picked = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in picked]


def signal_to_noise(float_graph: Graph, quantized: Graph, samples: Sequence[Array], most: int = 8) -> float:
    """Signal to noise of quantization: power of the float outputs over power of the error, in dB.

    Over at most ``most`` of the samples; the oracle runs the quantized network. Infinite without error.
    """
    from karat24.export.quantize.measure import deviation, float_outputs, quantized_outputs

    chosen = spread(samples, most)
    return deviation(float_outputs(float_graph, chosen), quantized_outputs(quantized, chosen)).snr_db


def _load(path: Path, channels: int) -> Array:
    if not path.is_file():
        raise FeedError(f"{path}: no such file")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FeedError(f"{path}: not a readable .npy file: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise FeedError(f"{path}: calibration needs one .npy array of floating-point values")
    if values.ndim == 3 and channels == 1:
        values = values[..., None]
    if values.ndim != 4 or values.shape[0] == 0 or values.shape[3] != channels:
        raise FeedError(
            f"{path}: holds {values.shape}; needed is [samples, y, x, {channels}], at least one sample"
        )
    if not np.isfinite(values).all():
        raise FeedError(f"{path}: holds NaN or infinity")
    single: Array = values.astype(np.float32)
    return single
