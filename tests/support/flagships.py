"""The shipped networks, quantized as their users do."""

from __future__ import annotations

import numpy as np

from karat24.export.quantize import PRESETS, calibrate, quantize_graph
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import chain, fine_tune, tomogan

TITLES = ("tomogan bilinear", "tomogan transposed", "fine-tune", "chained")


def float_graph(title: str, size: int) -> Graph:
    if title == "fine-tune":
        return fine_tune(size, size)
    if title == "chained":
        return chain(tomogan(size, size), fine_tune(size, size))
    return tomogan(size, size, "transposed" if title.endswith("transposed") else "bilinear")


def smooth(shape: tuple[int, ...], seed: int) -> Array:
    """A picture-like sample: low frequencies and noise, in 0..1."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((shape[0], shape[1] // 8, shape[2] // 8, shape[3]))
    picture = coarse.repeat(8, axis=1).repeat(8, axis=2) + 0.1 * generator.standard_normal(shape)
    return np.clip(picture, 0, 1).astype(np.float32)


def quantized(title: str, size: int, scheme: str = "int8") -> Graph:
    """Ranges come from the 64×64 network: tensor indices are the same at any size."""
    small = float_graph(title, 64)
    shape = small.tensors[small.inputs[0]].shape
    ranges = calibrate(small, [smooth(shape, seed) for seed in range(2)], PRESETS[scheme].range_method)
    return quantize_graph(float_graph(title, size), ranges, PRESETS[scheme])
