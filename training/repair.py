"""Training data of Fine-Tune: slices that the quantized TomoGAN restores on the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from karat24.export.quantize import PRESETS, quantize_learnt, quantize_model
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import Upsampling, learnt_ranges, tomogan
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.calibration_inputs import calibration_samples
from karat24.tomography.restoration import on_onnx_runtime, on_oracle, restore
from karat24.tomography.tiles import TileGrid

Float = NDArray[np.float32]


def quantized_tomogan(weights: Mapping[str, Array], upsampling: Upsampling, scheme: str, tile: int) -> Graph:
    """TomoGAN for ``tile`` × ``tile`` inputs, quantized in the ranges learnt with its weights, or calibrated
    on the simulated calibration slices where there are none."""
    float_graph = tomogan(tile, tile, upsampling, weights)
    learnt = learnt_ranges(weights)
    if learnt:
        return quantize_learnt(float_graph, learnt, PRESETS[scheme])
    return quantize_model(float_graph, calibration_samples(float_graph), PRESETS[scheme])


def restored_in_float(noisy: Float, weights: Mapping[str, Array], upsampling: Upsampling) -> Float:
    """``[slice, y, x, 3]`` to ``[slice, y, x]``: the output of the float network."""
    network = on_onnx_runtime(tomogan(*noisy.shape[1:3], upsampling, weights))
    return np.concatenate([network(image[None])[..., 0] for image in noisy])


def restored_by_oracle(noisy: Float, graph: Graph, halo: int = 0) -> Float:
    """``[slice, y, x, 3]`` to ``[slice, y, x, 1]``, each slice tile by tile under ``litert-2.3-ref``."""
    network = on_oracle(graph, CANONICAL)
    return _each(noisy, lambda image: restore(image, network, halo=halo).tomogan[..., None])


def tiles_by_oracle(noisy: Float, graph: Graph, grid: TileGrid) -> Float:
    """``[slice, y, x, 3]`` to ``[slice, tile, y, x]``, the tiles of ``grid`` under ``litert-2.3-ref``."""
    network = on_oracle(graph, CANONICAL)
    return _each(
        noisy, lambda image: np.concatenate([network(tile[None])[..., 0] for tile in grid.cut(image)])
    )


def _each(noisy: Float, restored: Callable[[Float], Float]) -> Float:
    """One result per slice; prints how many slices are restored."""
    results = []
    for number, image in enumerate(noisy, 1):
        results.append(restored(image))
        if number % 100 == 0:
            print(f"{number}/{len(noisy)} slices restored", flush=True)
    return np.stack(results)
