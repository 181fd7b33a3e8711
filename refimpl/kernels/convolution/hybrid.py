"""Layers of float32 data with int8 filters: rows quantized as they come, whole sums, float32 factors.

Quantized values less their zero point lie within ±255, so the loop of int16 images (``wide``) gives the
sums; what is before and behind them are a few passes over arrays. A row is one of a FULLY_CONNECTED, one
image of a convolution; XNNPACK takes each pixel of a convolution with a single tap for a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
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
from karat24.refimpl.profiles.rules import Method, Rows, Rule

Floats = NDArray[np.float32]

Quantize = Callable[[Floats], tuple[Floats, Floats]]
"""Of rows ``[row, any]``: their values in whole steps less the zero point, and each row's step, ``[row]``."""

LEAST_RANGE = 2.0**-118
"""From the least to the greatest value of a row that is not 0 throughout, 0 between them: 255 steps of less
have a reciprocal that float32 does not hold."""

EIGHT = 8
"""Values of a row that the functions which add a half take together; they round those left over exactly."""

_CLAMPS = {"NONE": (-math.inf, math.inf), "RELU": (0, math.inf), "RELU_N1_TO_1": (-1, 1), "RELU6": (0, 6)}

_METHODS: frozenset[Method] = frozenset(
    {"row_product", "row_step_first", "row_step_first_fused", "row_filter_first"}
)

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@dataclass(frozen=True)
class HybridLayer:
    """A prepared layer. Input ``position`` is its data of ``rows`` rows, input ``of_bias``, if any, its bias;
    ``quantize`` makes of rows what ``quantized_rows`` says, ``sums`` reads that as its input 0; ``method`` is
    for channels before ``body``, ``tail`` for the others."""

    view: LayerView
    position: int
    of_bias: int
    sums: WideConvolution
    rows: int
    quantize: Quantize
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
        data = operand(inputs, self.position)
        return self.sums.uncompiled([np.empty(data.shape, np.int16)], [np.empty(0, np.int16)])

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """The layer. Raises ModelError for rows that cannot be quantized."""
        rows = operand(inputs, self.position).reshape(self.rows, -1)
        self._require_quantizable(rows)
        bias = inputs[self.of_bias] if len(inputs) > self.of_bias else None
        with np.errstate(over="ignore", invalid="ignore"):
            self._run(rows, bias, outputs[0], accumulator)

    def _run(self, rows: Floats, bias: Array | None, out: Array, accumulator: Array | None) -> None:
        centred, steps = self.quantize(rows)
        sums = np.empty(out.shape, np.int64)
        self.sums([centred.astype(np.int16)], [np.empty(0, np.int16)], sums)
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

    def _require_quantizable(self, rows: Floats) -> None:
        if not np.isfinite(rows).all():
            raise ModelError(
                f"{self.view}: the data has values that are not finite, which cannot be quantized"
            )
        low, high = _ends(rows)
        ranges = high.astype(np.float64) - low.astype(np.float64)
        possible = (ranges == 0) | ((ranges >= LEAST_RANGE) & (ranges <= np.finfo(np.float32).max))
        if not possible.all():
            raise ModelError(
                f"{self.view}: a row of the data reaches over {ranges[~possible][0]:g}, in steps that "
                f"float32 does not hold; rows that reach over {LEAST_RANGE:g} or more, within float32, can "
                "be quantized"
            )


def prepare_hybrid(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """The kernel of a layer with float32 data and an int8 filter; None for other rounding."""
    quantize, tail = _QUANTIZERS.get(rule.rows), rule.tail or rule.method
    if quantize is None or not {rule.method, tail} <= _METHODS:
        return None
    if rule.tail is not None and rule.block_axis != "channel":
        return None
    position, of_bias = (2, 3) if view.op == "TRANSPOSE_CONV" else (0, 2)
    data, filters = view.input(position), view.input(1)
    channels, rows = view.output().shape[-1], data.shape[0]
    if view.op == "FULLY_CONNECTED":
        rows = math.prod(data.shape) // filters.shape[1]
    elif rule.rows == "xnnpack_half_even" and _multiplies_pixels(view):
        rows = math.prod(data.shape[:-1])
    assert filters.quantization is not None
    scales = np.zeros(channels, np.float32)
    scales[:] = filters.quantization.scale
    nothing, none = np.zeros(channels, np.int64), np.zeros(channels)
    unused = WideRequantization(False, 0, 0, channels, nothing, nothing, none, 0, 0)
    return HybridLayer(
        view, position, of_bias, replace(wide_convolution(view, position, None, unused), position=0), rows,
        quantize, rule.method, tail,
        channels if rule.tail is None else channels // rule.block * rule.block, scales,
    )  # fmt: skip


def _multiplies_pixels(view: LayerView) -> bool:
    """A CONV_2D of one tap, one group and no stride."""
    if view.op != "CONV_2D":
        return False
    _, taps_y, taps_x, depth = view.input(1).shape
    steps = taps_y, taps_x, view.integer("stride_h"), view.integer("stride_w")
    return steps == (1, 1, 1, 1) and depth == view.input(0).shape[3]


Round = Callable[[Floats], Floats]


def _half_away(values: Array) -> Array:
    """To the nearest whole number, ties away from zero, exactly."""
    magnitude = np.abs(values)
    whole = np.floor(magnitude)
    return np.asarray(np.copysign(whole + (magnitude - whole >= _HALF), values))


def _half_added(values: Floats) -> Floats:
    """0.5 is added to the magnitude in float32 and the fraction cut off, in a row's whole eights."""
    body = values.shape[1] // EIGHT * EIGHT
    rounded = np.copysign(np.floor(np.abs(values) + _HALF), values)
    rounded[:, body:] = _half_away(values[:, body:])
    return rounded


def _symmetric(nearest: Round, rows: Floats) -> tuple[Floats, Floats]:
    """127 steps for the largest magnitude; a step of 1 for zeros."""
    largest = np.abs(rows).max(axis=1)
    zeros = largest == 0
    largest[zeros] = 1
    step = largest / np.float32(127)
    step[zeros] = 1
    per_unit = np.float32(127) / largest
    return np.clip(nearest(rows * per_unit[:, np.newaxis]), -127, 127), step


def _affine(rows: Floats) -> tuple[Floats, Floats]:
    """The difference of the ends is rounded to float32."""
    low, high = _ends(rows)
    zero, step = _zero_point(low, high, (high - low).astype(np.float64))
    stored = _half_added(rows * (_ONE / step)[:, np.newaxis]) + zero
    return np.clip(stored, -128, 127) - zero, step


def _affine_zero_point_first(rows: Floats) -> tuple[Floats, Floats]:
    low, high = _ends(rows)
    zero, step = _zero_point(low, high, high.astype(np.float64) - low.astype(np.float64))
    stored = _half_away(rows * (_ONE / step)[:, np.newaxis] + zero)
    return np.clip(stored, -128, 127) - zero, step


def _zero_point(low: Floats, high: Floats, width: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """The zero point ``[row, 1]``, the one that the nearer end gives, and the step ``[row]``; computed in
    float64."""
    step = width / 255
    step[low == high] = 1
    below, above = low.astype(np.float64) / step, high.astype(np.float64) / step
    nearest = np.where(128 + np.abs(below) < 127 + np.abs(above), -128 - below, 127 - above)
    zero = _half_away(np.clip(nearest, -128, 127)).astype(np.float32)
    return zero[:, np.newaxis], step.astype(np.float32)


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
    return np.minimum(rows.min(axis=1), _ZERO), np.maximum(rows.max(axis=1), _ZERO)


_QUANTIZERS: Mapping[Rows, Quantize] = MappingProxyType(
    {
        "symmetric": partial(_symmetric, _half_away),
        "symmetric_half_added": partial(_symmetric, _half_added),
        "affine_half_added": _affine,
        "affine_zero_point_first": _affine_zero_point_first,
        "xnnpack_half_even": _xnnpack,
    }
)


def scaled(sums: Floats, steps: Floats, scales: Floats, bias: Array | None, method: Method) -> Floats:
    """Sums ``[row, any, channel]`` times a step per row ``[row, 1, 1]`` and a scale per channel, plus the
    bias; each operation rounded to float32."""
    if method == "row_step_first_fused":
        products = np.ascontiguousarray(sums * steps)
        addend = np.zeros(scales.size, np.float32) if bias is None else np.array(bias, np.float32)
        _fused(products.reshape(-1, scales.size), scales, addend)
        return products
    if method == "row_filter_first":
        products = sums * scales * steps
    elif method == "row_step_first":
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
