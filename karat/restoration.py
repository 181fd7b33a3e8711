"""Restoring a tomography slice: TomoGAN tile by tile, stitched, then Fine-Tune on the whole.

Images are float32 in the networks' own units (see ``karat.imaging``): a noisy
slice with its two neighbours ``[y, x, 3]`` goes in, a restored slice ``[y, x]`` comes out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from delegates.tiling import TileGrid
from export.quantize import float_runner
from refimpl.engine import compile_graph
from refimpl.errors import FeedError
from refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Graph, Tensor

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


def quantize_values(values: Array, tensor: Tensor) -> Array:
    """Real values as a tensor's integers, ``clip(rint(x / scale) + zero_point)``; floats pass through."""
    if tensor.dtype not in QUANTIZED_RANGE:
        return np.ascontiguousarray(values, DTYPES[tensor.dtype])
    qmin, qmax = QUANTIZED_RANGE[tensor.dtype]
    scaled = np.rint(values.astype(np.float32) / np.float32(tensor.scale)) + np.float32(tensor.zero_point)
    codes: Array = np.clip(scaled, qmin, qmax).astype(DTYPES[tensor.dtype])
    return codes


def dequantize_values(values: Array, tensor: Tensor) -> Array:
    """A tensor's integers as real values, float32; float tensors pass through."""
    if tensor.dtype not in QUANTIZED_RANGE:
        return values
    real: Array = (values.astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)
    return real


@dataclass(frozen=True)
class Network:
    """A quantized graph and who runs it."""

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


def on_oracle(graph: Graph, profile: str) -> Network:
    """The graph run by the oracle under a profile."""
    program = compile_graph(graph, profile)
    return Network(graph, lambda values: program.run([values]).outputs[0])


def on_onnx_runtime(graph: Graph) -> Network:
    """A float graph run by ONNX Runtime."""
    run = float_runner(graph)
    return Network(graph, lambda values: run(values)[0])


def restore(noisy: Array, tomogan: Network, fine_tune: Network | None = None, halo: int = 0) -> Restored:
    """Restores one slice of any size.

    ``tomogan`` sees tiles of its own size, overlapping by ``2 * halo``; ``fine_tune`` sees the
    stitched image, whole when it has that size and in tiles otherwise. Raises FeedError for an
    image that is not ``[y, x, 3]`` or holds NaN or infinity.
    """
    if noisy.ndim != 3 or noisy.shape[2] != 3:
        raise FeedError(f"a slice with its two neighbours is [y, x, 3], got {noisy.shape}")
    if not np.isfinite(noisy).all():
        raise FeedError("the slice holds NaN or infinity; mask or replace those pixels first")
    height, width, _ = noisy.shape
    seconds: dict[str, float] = {}
    stitched = _tiled(noisy, tomogan, TileGrid(height, width, *tomogan.size, halo), seconds, "tomogan")
    repaired = None
    if fine_tune is not None:
        grid = TileGrid(height, width, *fine_tune.size, 0 if fine_tune.size == (height, width) else 2)
        repaired = _tiled(stitched, fine_tune, grid, seconds, "fine_tune")[..., 0]
    return Restored(stitched[..., 0], repaired, seconds)


def _tiled(image: Array, network: Network, grid: TileGrid, seconds: dict[str, float], part: str) -> Array:
    """Runs the network over the grid; cutting and stitching count as 'stitching'."""
    began = time.perf_counter()
    tiles = grid.cut(image)
    middle = time.perf_counter()
    results = np.concatenate([network(tile[None]) for tile in tiles])
    ended = time.perf_counter()
    stitched = grid.stitch(results)
    seconds[part] = ended - middle
    seconds["stitching"] = seconds.get("stitching", 0.0) + (middle - began) + (time.perf_counter() - ended)
    return stitched
