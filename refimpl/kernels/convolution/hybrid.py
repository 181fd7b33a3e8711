"""Layers of float32 data with int8 filters: rows quantized as they come, whole sums, float32 factors.

Quantized values less their zero point lie within ±255, so the loop of int16 images (``wide``) gives the
sums; what is before and behind them are a few passes over arrays. A row is one of a FULLY_CONNECTED, one
image of a convolution; XNNPACK takes each pixel of a convolution with a single tap for a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.convolution.wide import WideConvolution, wide_convolution
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.rounding.fused_multiply_add import fma
from karat24.refimpl.kernels.rounding.wide_requantize import WideRequantization
from karat24.refimpl.profiles.rules import Method, Rule

Floats = NDArray[np.float32]

LEAST_RANGE = np.float32(2.0**-110)
"""Of a row that is not 0 throughout: below, steps per unit overflow float32, and a 0 times them is no number,
which no runtime's language lets become an integer."""

_CLAMPS = {"NONE": (-math.inf, math.inf), "RELU": (0, math.inf), "RELU_N1_TO_1": (-1, 1), "RELU6": (0, 6)}

_ONE, _HALF = np.float32(1), np.float32(0.5)


@dataclass(frozen=True)
class HybridLayer:
    """A prepared layer. ``rows``: rows of its data; ``method`` is for channels before ``body``."""

    view: LayerView
    sums: WideConvolution
    rows: int
    method: Method
    tail: Method
    body: int
    scales: Floats

    @property
    def compile_seconds(self) -> float:
        """As :class:`TaskKernel` says."""
        return self.sums.compile_seconds

    def uncompiled(self, inputs: Values, outputs: Sequence[Array]) -> Sequence[Hashable]:
        """What the sums need, unless compiled."""
        data = operand(inputs, 0)
        return self.sums.uncompiled([np.empty(data.shape, np.int16)], [np.empty(0, np.int16)])

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """The layer. Raises ModelError for rows that cannot be quantized."""
        rows = operand(inputs, 0).reshape(self.rows, -1)
        self._require_quantizable(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            self._run(rows, inputs[2] if len(inputs) > 2 else None, outputs[0], accumulator)

    def _run(self, rows: Floats, bias: Array | None, out: Array, accumulator: Array | None) -> None:
        stored, steps = quantized_rows(rows, self.method)
        sums = np.empty(out.shape, np.int64)
        self.sums([stored], [np.empty(0, np.int16)], sums)
        if accumulator is not None:
            accumulator[...] = sums
        by_row = (self.rows, -1, out.shape[-1])
        whole, results = sums.reshape(by_row).astype(np.float32), np.empty(out.shape, np.float32)
        steps = steps.reshape(-1, 1, 1)
        for channels, method in ((slice(self.body), self.method), (slice(self.body, None), self.tail)):
            if self.scales[channels].size:
                some = None if bias is None else bias[channels]
                results.reshape(by_row)[..., channels] = scaled(
                    whole[..., channels], steps, self.scales[channels], some, method
                )
        low, high = _CLAMPS[self.view.text("fused_activation_function", "NONE")]
        out[...] = np.clip(results, np.float32(low), np.float32(high))

    def _require_quantizable(self, rows: Array) -> None:
        if not np.isfinite(rows).all():
            raise ModelError(
                f"{self.view}: the data has values that are not finite, which cannot be quantized"
            )
        largest = np.abs(rows).max(axis=1)
        if ((largest > 0) & (largest < LEAST_RANGE)).any():
            raise ModelError(
                f"{self.view}: a row of the data has no value of {LEAST_RANGE:.1g} or more, which is too "
                "little to be quantized in float32"
            )


def prepare_hybrid(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """The kernel of a layer with float32 data and an int8 filter; None for other rounding."""
    data, filters = view.input(0), view.input(1)
    if rule.method not in _QUANTIZERS or (rule.tail is not None and rule.block_axis != "channel"):
        return None
    channels, rows = view.output().shape[-1], data.shape[0]
    if view.op == "FULLY_CONNECTED":
        rows = math.prod(data.shape) // filters.shape[1]
    elif rule.method == "rows_xnnpack" and _multiplies_pixels(view):
        rows = math.prod(data.shape[:-1])
    assert filters.quantization is not None
    scales = np.zeros(channels, np.float32)
    scales[:] = filters.quantization.scale
    nothing, none = np.zeros(channels, np.int64), np.zeros(channels)
    unused = WideRequantization(False, 0, 0, channels, nothing, nothing, none, 0, 0)
    return HybridLayer(
        view, wide_convolution(view, 0, None, unused), rows, rule.method, rule.tail or rule.method,
        channels if rule.tail is None else channels // rule.block * rule.block, scales,
    )  # fmt: skip


def _multiplies_pixels(view: LayerView) -> bool:
    """A CONV_2D of one tap, one group and no stride."""
    _, taps_y, taps_x, depth = view.input(1).shape
    steps = taps_y, taps_x, view.integer("stride_h"), view.integer("stride_w")
    return view.op == "CONV_2D" and steps == (1, 1, 1, 1) and depth == view.input(0).shape[3]


def quantized_rows(rows: Floats, method: Method) -> tuple[NDArray[np.int16], Floats]:
    """Each row's values less its zero point, int16 ``[row, any]``, and its step, float32 ``[row]``."""
    stored, steps = _QUANTIZERS[method](rows)
    return stored.astype(np.int16), steps


def _symmetric(rows: Floats) -> tuple[Floats, Floats]:
    per_unit, step = _of_largest(rows)
    return np.clip(_half_added(rows * per_unit[:, np.newaxis]), -127, 127), step


def _symmetric_half_away(rows: Floats) -> tuple[Floats, Floats]:
    per_unit, step = _of_largest(rows)
    return np.clip(_half_away(rows * per_unit[:, np.newaxis]), -127, 127), step


def _of_largest(rows: Floats) -> tuple[Floats, Floats]:
    """Steps per unit and units per step, 127 steps for the largest magnitude; a step of 1 for zeros."""
    largest = np.abs(rows).max(axis=1)
    zeros = largest == 0
    largest[zeros] = 1
    step = largest / np.float32(127)
    step[zeros] = 1
    return np.float32(127) / largest, step


def _affine(rows: Floats) -> tuple[Floats, Floats]:
    """The step is computed in float64, and so is the zero point, the one that the nearer end gives."""
    low, high = _ends(rows)
    step = (high - low).astype(np.float64) / 255
    step[low == high] = 1
    below, above = low.astype(np.float64) / step, high.astype(np.float64) / step
    nearest = np.where(128 + np.abs(below) < 127 + np.abs(above), -128 - below, 127 - above)
    zero = _half_away(np.clip(nearest, -128, 127)).astype(np.float32)[:, np.newaxis]
    rounded_step = step.astype(np.float32)
    stored = _half_added(rows * (_ONE / rounded_step)[:, np.newaxis]) + zero
    return np.clip(stored, -128, 127) - zero, rounded_step


def _xnnpack(rows: Floats) -> tuple[Floats, Floats]:
    low, high = _ends(rows)
    width = high - low
    width[low == high] = 255
    per_unit = np.float32(255) / width
    below, above = low * per_unit, high * per_unit
    errors = (below + np.float32(-128)) + (above + np.float32(127))
    nearest = np.where(errors > 0, np.float32(-128) - below, np.float32(127) - above)
    zero = np.rint(np.clip(nearest, np.float32(-128), np.float32(127)))[:, np.newaxis]
    stored = np.rint(rows * per_unit[:, np.newaxis]) + zero
    return np.clip(stored, -128, 127) - zero, _ONE / per_unit


def _ends(rows: Floats) -> tuple[Floats, Floats]:
    """Least and greatest value of each row, 0 between them."""
    zero = np.float32(0)
    return np.minimum(rows.min(axis=1), zero), np.maximum(rows.max(axis=1), zero)


def _half_added(values: Floats) -> Floats:
    """0.5 is added to the magnitude in float32, and the fraction cut off."""
    return np.copysign(np.floor(np.abs(values) + _HALF), values)


def _half_away(values: Array) -> Array:
    """To the nearest whole number, ties away from zero, exactly."""
    magnitude = np.abs(values)
    whole = np.floor(magnitude)
    return np.asarray(np.copysign(whole + (magnitude - whole >= 0.5), values))


_QUANTIZERS: dict[Method, Callable[[Floats], tuple[Floats, Floats]]] = {
    "rows_half_away": _symmetric_half_away,
    "rows_symmetric": _symmetric,
    "rows_affine": _affine,
    "rows_affine_filter_first": _affine,
    "rows_affine_step_first": _affine,
    "rows_xnnpack": _xnnpack,
}


def scaled(sums: Floats, steps: Floats, scales: Floats, bias: Array | None, method: Method) -> Floats:
    """Sums ``[row, any, channel]`` times a step per row ``[row, 1, 1]`` and a scale per channel, plus the
    bias; each operation rounded to float32."""
    if method == "rows_xnnpack":
        products = np.ascontiguousarray(sums * steps)
        addend = np.zeros(scales.size, np.float32) if bias is None else np.array(bias, np.float32)
        _fused(products.reshape(-1, scales.size), scales, addend)
        return products
    if method == "rows_affine_filter_first":
        products = sums * scales * steps
    elif method == "rows_affine_step_first":
        products = sums * steps * scales
    else:
        products = sums * (scales * steps)
    return products if bias is None else products + bias


@njit(cache=True, nogil=True)
def _fused(values: Any, scales: Any, addend: Any) -> None:
    """``values * scales + addend`` in place, ``values`` ``[any, channel]``, rounded once."""
    for i in range(values.shape[0]):
        for channel in range(values.shape[1]):
            values[i, channel] = fma(values[i, channel], scales[channel], addend[channel])
