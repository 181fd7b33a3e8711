"""Restoring a tomography slice: TomoGAN tile by tile, and Fine-Tune on what the tiles give.

Images are float32 in the networks' own units (see ``karat24.tomography.imaging``): a noisy
slice with its two neighbours ``[y, x, 3]`` goes in, a restored slice ``[y, x]`` comes out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from karat24.export.quantize import float_runner
from karat24.real_values import quantize_values, require_finite, require_meaningful
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Graph, Tensor
from karat24.tomography.tiles import TileGrid

RunModel = Callable[[Array], Array]
"""A quantized model as a function of one input batch ``[1, y, x, channel]``."""


@dataclass(frozen=True)
class Restored:
    """A restored slice ``[y, x]`` before and after Fine-Tune, float32, and the seconds each part took."""

    tomogan: Array
    fine_tuned: Array | None
    seconds: dict[str, float]

    @property
    def final(self) -> Array:
        """The fine-tuned slice where there is one."""
        return self.tomogan if self.fine_tuned is None else self.fine_tuned


def dequantize_values(values: Array, tensor: Tensor) -> Array:
    """A tensor's integers as real values, float32; float tensors pass through."""
    if tensor.dtype not in QUANTIZED_RANGE:
        return values
    real: Array = (values.astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)
    return real


@dataclass(frozen=True)
class Network:
    """A quantized graph and the function that runs it."""

    graph: Graph
    run: RunModel

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        _, height, width, _ = self.graph.tensors[self.graph.inputs[0]].shape
        return height, width

    def __call__(self, values: Array) -> Array:
        """Real values ``[1, y, x, channel]`` in and out."""
        given = quantize_values(values, self.graph.tensors[self.graph.inputs[0]])
        return dequantize_values(self.run(given), self.graph.tensors[self.graph.outputs[0]])


def on_oracle(graph: Graph, profile: str, threads: int | None = None) -> Network:
    """The graph run by the oracle under a profile, on all threads unless their number is given."""
    program = compile_graph(graph, profile, threads)
    return Network(graph, lambda values: program.run([values]).outputs[0])


def on_onnx_runtime(graph: Graph) -> Network:
    """A float graph run by ONNX Runtime."""
    run = float_runner(graph)
    return Network(graph, lambda values: run(values)[0])


def restore(
    noisy: Array, tomogan: Network, fine_tune: Network | None = None, halo: int = 0, blend: int = 0
) -> Restored:
    """Restores one slice of any size.

    ``tomogan`` sees tiles of its own size. They overlap by ``2 * halo``, and ``fine_tune`` sees the stitched
    image, whole when it has that size and in tiles otherwise. Or they overlap by ``blend`` and are averaged
    there: then ``fine_tune`` sees them one by one before, since an average lies between the 8-bit values
    that it takes. Raises FeedError for an image that is not ``[y, x, 3]``, holds NaN or infinity, or is in
    another unit than the network's, and UsageError for overlaps no tile has or, blended, networks of two
    sizes.
    """
    if noisy.ndim != 3 or noisy.shape[2] != 3:
        raise FeedError(f"a slice with its two neighbours is [y, x, 3], got {noisy.shape}")
    _require_unit(noisy, tomogan.graph.tensors[tomogan.graph.inputs[0]])
    height, width, _ = noisy.shape
    grid = TileGrid(height, width, *tomogan.size, halo, blend)
    clock = _Clock()
    tiles = clock.timed("stitching", grid.cut, noisy)
    restored = clock.timed("tomogan", _each, tomogan, tiles)
    stitched = clock.timed("stitching", grid.stitch, restored)
    if fine_tune is None:
        return Restored(stitched[..., 0], None, clock.seconds)
    if blend:
        if fine_tune.size != tomogan.size:
            raise UsageError(
                f"blended tiles are {tomogan.size}, and Fine-Tune takes {fine_tune.size}; give both one size"
            )
    else:
        grid = TileGrid(height, width, *fine_tune.size, 0 if fine_tune.size == (height, width) else 2)
        restored = clock.timed("stitching", grid.cut, stitched)
    repaired = clock.timed("fine_tune", _each, fine_tune, restored)
    return Restored(stitched[..., 0], clock.timed("stitching", grid.stitch, repaired)[..., 0], clock.seconds)


def _require_unit(noisy: Array, tensor: Tensor) -> None:
    """Raises FeedError for a slice that is not in the unit ``tensor`` quantizes: detector counts, 1/µm."""
    remedy = "bring it to the networks' unit first: Normalization.of(noisy).grey(noisy)"
    if noisy.dtype.kind != "f":
        raise FeedError(f"the slice holds {noisy.dtype}, not real values; {remedy}")
    if tensor.dtype in QUANTIZED_RANGE:
        require_meaningful(noisy, tensor, "the slice", remedy)
    else:
        require_finite(noisy, "the slice")


class _Clock:
    """Adds up the seconds that each part of the work takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, work: Callable[..., Array], *arguments: Any) -> Array:
        """The result of ``work(*arguments)``, whose time counts for ``part``."""
        began = time.perf_counter()
        result = work(*arguments)
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
        return result


def _each(network: Network, tiles: Array) -> Array:
    """The network's result for every tile, ``[tile, y, x, channel]``."""
    return np.concatenate([network(tile[None]) for tile in tiles])
