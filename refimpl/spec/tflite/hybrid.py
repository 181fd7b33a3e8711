"""Layers of float32 data with int8 filters ("dynamic range"): the data is quantized row by row as it comes.

A row is one row of a FULLY_CONNECTED, one image of a convolution. Sums of products are exact integers; what
follows is float32: two factors, the bias, the clamp of the fused activation. Source: TFLite
``PortableSymmetricQuantizeFloats``, ``PortableAsymmetricQuantizeFloats`` and the ``EvalHybrid`` functions of
its kernels; XNNPACK's ``qd8`` quantization and ``qd8_f32_qc8w`` kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values, accumulator_dtype
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.primitives import ACTIVATION_BOUNDS, in_blocks, round_half_away
from karat24.refimpl.spec.shared.requirements import operand

Products = Callable[[LayerView, Array, Array], Array]
"""An op's sums of products of int64 data and filter: ``[..., out_channel]``, int64."""


LEAST_LARGEST = 2.0**-110
"""Below, the reciprocal of a row's step leaves float32, and a value of 0 times it is no number. C leaves its
conversion to an integer undefined."""


def is_hybrid(view: LayerView) -> bool:
    """Whether the data is float32 and the filter is not."""
    return view.input(0).dtype == "float32" != view.input(1).dtype


def hybrid(view: LayerView, values: Values, rule: Rule, products: Products) -> SpecResult:
    """The op whose sums ``products`` gives, by the rule's method.

    ``rows_symmetric``: steps of ``max|x| / 127``, no zero point; 0.5 is added in float32 and the fraction cut
    off. ``rows_half_away``: the same, rounded exactly. ``rows_affine``: steps of
    ``(max - min) / 255`` and a zero point, 0 within the range. Both multiply the sum by the product of the
    row's step and the filter's scale; ``rows_affine_filter_first`` by the filter's scale and then by the
    row's step, ``rows_affine_step_first`` in the other order. ``rows_xnnpack``: other roundings of step and
    zero point; the sum times the step, and a fused multiplication by the filter's scale and addition of the
    bias. Raises ModelError for data that is not finite, and for rows too small to be quantized.
    """
    data = operand(values, 0)
    if not np.isfinite(data).all():
        raise ModelError(f"{view}: the data has values that are not finite, which cannot be quantized")
    rows = data.reshape(_row_count(view, rule.method), -1)
    largest = np.abs(rows).max(axis=1)
    if np.any((largest > 0) & (largest < LEAST_LARGEST)):
        raise ModelError(
            f"{view}: a row of the data has no value of {LEAST_LARGEST:.1g} or more, which is too little to "
            "be quantized in float32"
        )
    centred, steps = zip(*(_QUANTIZE[rule.method](row) for row in rows), strict=True)
    weights = operand(values, 1).astype(np.int64)
    whole = products(view, np.stack(centred).reshape(data.shape), weights)
    sums = whole.astype(np.float32).reshape(len(rows), -1, whole.shape[-1])
    factors = np.array(steps, np.float32)[:, None, None]
    result = in_blocks(rule, sums.shape, lambda method: _scaled(view, sums, factors, values, method))
    low, high = ACTIVATION_BOUNDS[view.text("fused_activation_function", "NONE")]
    clamped = np.clip(result, np.float32(low), np.float32(high))
    output = clamped.astype(np.float32).reshape(view.output().shape)
    return SpecResult((output,), whole.astype(accumulator_dtype(view)))


def _row_count(view: LayerView, method: Method) -> int:
    """XNNPACK takes a convolution with one tap for a matrix product, each pixel for a row."""
    shape = view.input(0).shape
    if view.op == "FULLY_CONNECTED":
        return math.prod(shape) // view.input(1).shape[1]
    return math.prod(shape[:-1]) if method == "rows_xnnpack" and has_one_tap(view) else shape[0]


def has_one_tap(view: LayerView) -> bool:
    """Whether a CONV_2D without groups takes each pixel of its input once, by itself."""
    strides = view.integer("stride_h"), view.integer("stride_w")
    return view.input(1).shape[1:] == (1, 1, view.input(0).shape[3]) and strides == (1, 1)


def _scaled(view: LayerView, sums: Array, steps: Array, values: Values, method: Method) -> Array:
    quantization = view.input(1).quantization
    assert quantization is not None
    scales = np.array(quantization.scale, np.float32)
    bias = values[2] if len(values) > 2 else None
    if method == "rows_xnnpack":
        addend = np.zeros(1, np.float32) if bias is None else bias
        return fused_multiply_add(sums * steps, np.broadcast_to(scales, sums.shape), addend)
    if method == "rows_affine_filter_first":
        scaled = sums * scales * steps
    elif method == "rows_affine_step_first":
        scaled = sums * steps * scales
    else:
        scaled = sums * (scales * steps)
    return scaled if bias is None else scaled + bias


def _rounded(values: Array | np.float32 | float) -> Array:
    """0.5 is added to the magnitude, in float32, and the fraction cut off."""
    return np.asarray(np.trunc(values + np.copysign(np.float32(0.5), values)))


def _half_away(row: Array) -> tuple[Array, np.float32]:
    return _symmetric(row, round_half_away)


def _symmetric(row: Array, rounded: Callable[[Array], Array] = _rounded) -> tuple[Array, np.float32]:
    largest = np.abs(row).max()
    if largest == 0:
        return np.zeros(row.shape, np.int64), np.float32(1)
    steps = rounded(row * (np.float32(127) / largest))
    return np.clip(steps, -127, 127).astype(np.int64), largest / np.float32(127)


def _affine(row: Array) -> tuple[Array, np.float32]:
    low, high = min(row.min(), np.float32(0)), max(row.max(), np.float32(0))
    if low == high:
        return np.zeros(row.shape, np.int64), np.float32(1)
    step = float(high - low) / 255
    from_low, from_high = -128 - float(low) / step, 127 - float(high) / step
    nearer_low = 128 + abs(float(low) / step) < 127 + abs(float(high) / step)
    zero = int(round_half_away(np.float64(min(max(from_low if nearer_low else from_high, -128), 127))))
    steps = _rounded(row * (np.float32(1) / np.float32(step))) + zero
    return np.clip(steps, -128, 127).astype(np.int64) - zero, np.float32(step)


def _xnnpack(row: Array) -> tuple[Array, np.float32]:
    low, high = min(row.min(), np.float32(0)), max(row.max(), np.float32(0))
    per_unit = np.float32(1) if low == high else np.float32(255) / (high - low)
    from_low, from_high = np.float32(-128) - low * per_unit, np.float32(127) - high * per_unit
    sum_of_errors = (low * per_unit + np.float32(-128)) + (high * per_unit + np.float32(127))
    zero = int(
        np.rint(min(max(from_low if sum_of_errors > 0 else from_high, np.float32(-128)), np.float32(127)))
    )
    steps = np.rint(row * per_unit) + zero
    return np.clip(steps, -128, 127).astype(np.int64) - zero, np.float32(1) / per_unit


_QUANTIZE: dict[Method, Callable[[Array], tuple[Array, np.float32]]] = {
    "rows_half_away": _half_away,
    "rows_symmetric": _symmetric,
    "rows_affine": _affine,
    "rows_affine_filter_first": _affine,
    "rows_affine_step_first": _affine,
    "rows_xnnpack": _xnnpack,
}
