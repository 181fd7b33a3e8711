"""ConvTranspose in float32, by fused multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.jit.packed_call import TaskLoop
from karat24.refimpl.kernels.rounding.fused_multiply_add import fma
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer
from karat24.refimpl.profiles.rules import Rule


@njit(cache=True, nogil=True)
def _accumulate(weight: Any, pixels: Any, sums: Any) -> None:
    for i in range(sums.size):
        sums[i] = fma(weight, pixels[i], sums[i])


@njit(cache=True, nogil=True)
def _add_tap(sums: Any, first_y: Any, first_x: Any, strides: Any, plane: Any) -> None:
    """Adds ``sums[y, x]`` at ``first + stride * (y, x)``, where that lies inside the plane."""
    height, width = plane.shape
    for y in range(sums.shape[0]):
        row = first_y + y * strides[0]
        if 0 <= row < height:
            for x in range(sums.shape[1]):
                column = first_x + x * strides[1]
                if 0 <= column < width:
                    plane[row, column] += sums[y, x]


@njit(cache=True, nogil=True)
def _transposed(
    image: Any,
    weights: Any,
    bias: Any,
    strides: Any,
    dilations: Any,
    pads: Any,
    out: Any,
    begin: int,
    end: int,
) -> None:
    filters = out.shape[1]
    _, channels, height, width = image.shape
    wide, taps_y, taps_x = weights.shape[1:]
    deep = channels // (filters // wide)
    for job in range(begin, end):
        item, filter_ = job // filters, job % filters
        first = filter_ // wide * deep
        plane = out[item, filter_]
        plane[:] = np.float32(0)
        sums = np.empty(height * width, np.float32)
        for tap_y in range(taps_y):
            for tap_x in range(taps_x):
                sums[:] = np.float32(0)
                for channel in range(first, first + deep):
                    weight = weights[channel, filter_ % wide, tap_y, tap_x]
                    _accumulate(weight, image[item, channel].reshape(-1), sums)
                tap = sums.reshape(height, width)
                top, left = tap_y * dilations[0] - pads[0], tap_x * dilations[1] - pads[1]
                _add_tap(tap, top, left, strides, plane)
        if bias.size:
            plane += bias[filter_]


def prepare_conv_transpose(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """ConvTranspose as one chain of fused multiply-adds per sum, planes shared out among threads."""
    if rule.method != "float32_fused":
        return None
    strides, dilations = view.integers("strides", (1, 1)), view.integers("dilations", (1, 1))
    pads = view.integers("pads", (0, 0, 0, 0))[:2]
    nothing, loop = np.empty(0, np.float32), TaskLoop(_transposed)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        image, weights = (np.ascontiguousarray(operand(inputs, position)) for position in (0, 1))
        bias = inputs[2] if len(inputs) > 2 else None
        arguments = (
            image, weights, nothing if bias is None else bias, strides, dilations, pads, outputs[0]
        )  # fmt: skip
        BoundLayer(loop, arguments, math.prod(outputs[0].shape[:2]), outputs[0].size)()

    return run
