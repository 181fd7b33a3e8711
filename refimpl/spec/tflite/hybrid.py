"""Layers of float32 data with int8 filters ("dynamic range"): the data is quantized row by row as it comes.

A row is one row of a FULLY_CONNECTED, one image of a convolution. Sums of products are exact integers; what
follows is float32: two factors, the bias, the clamp of the fused activation. Source: TFLite
``PortableSymmetricQuantizeFloats``, ``PortableAsymmetricQuantizeFloats``, their NEON forms and the
``EvalHybrid`` functions of its kernels; XNNPACK's ``qd8`` quantization and ``qd8_f32_qc8w`` kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.contract import SpecResult, Values, accumulator_dtype
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rows, Rule
from karat24.refimpl.profiles.tflite.variants import has_one_tap
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.primitives import ACTIVATION_BOUNDS, in_blocks, round_half_away
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.tflite.weights import scales_of

VECTOR = 8
"""Values that TFLite's NEON functions quantize at once, those behind the last whole vector one by one."""

SMALLEST_EXTENT = 2.0**-118
"""255 steps whose size and reciprocal are normal float32 numbers."""

Products = Callable[[LayerView, Array, Array], Array]
"""An op's sums of products of int64 data and filter: ``[..., out_channel]``, int64."""


def is_hybrid(view: LayerView, data: int = 0) -> bool:
    """Whether the data, input ``data``, is float32 and the filter is not."""
    return view.input(data).dtype == "float32" != view.input(1).dtype


def hybrid(
    view: LayerView, values: Values, rule: Rule, products: Products, data: int = 0, bias: int = 2
) -> SpecResult:
    """The op whose sums ``products`` gives; its data is input ``data``, its bias, if any, input ``bias``.

    ``rule.rows`` quantizes each row, ``rule.method`` scales the sums. Raises ModelError for data that is not
    finite, or so close to 0 or so wide that float32 does not hold its steps and their reciprocals.
    """
    floats = operand(values, data)
    rows = quantized_rows(view, floats.reshape(_row_count(view, floats.shape, rule.rows), -1), rule.rows)
    weights = operand(values, 1).astype(np.int64)
    whole = products(view, rows.centred.reshape(floats.shape), weights)
    sums = whole.astype(np.float32).reshape(len(rows.steps), -1, whole.shape[-1])
    factors = rows.steps[:, None, None]
    scales = np.array(scales_of(view.input(1)), np.float32)
    addend = values[bias] if len(values) > bias else None
    result = in_blocks(rule, sums.shape, lambda method: scaled(sums, factors, scales, addend, method))
    return finished(view, result, None, whole)


def finished(view: LayerView, result: Array, bias: Array | None, accumulator: Array) -> SpecResult:
    """Float32 results, the bias added if one is given, within the fused activation's bounds."""
    if bias is not None:
        result = result + bias
    low, high = ACTIVATION_BOUNDS[view.text("fused_activation_function", "NONE")]
    clamped = np.clip(result, np.float32(low), np.float32(high))
    output = clamped.astype(np.float32).reshape(view.output().shape)
    return SpecResult((output,), accumulator.astype(accumulator_dtype(view)))


def _require_steps(view: LayerView, rows: Array) -> None:
    if not np.isfinite(rows).all():
        raise ModelError(f"{view}: the data has values that are not finite, which cannot be quantized")
    extents = rows.max(axis=1, initial=0).astype(np.float64) - rows.min(axis=1, initial=0)
    beyond = ((extents > 0) & (extents < SMALLEST_EXTENT)) | (extents > np.finfo(np.float32).max)
    if beyond.any():
        raise ModelError(
            f"{view}: a row of the data reaches over {extents[beyond][0]:g}, in steps that float32 does not "
            f"hold; rows that reach over {SMALLEST_EXTENT:g} or more, within float32, can be quantized"
        )


def _row_count(view: LayerView, shape: tuple[int, ...], rows: Rows) -> int:
    """XNNPACK takes a convolution with one tap for a matrix product, each pixel for a row."""
    if view.op == "FULLY_CONNECTED":
        return math.prod(shape) // view.input(1).shape[1]
    one_tap = view.op == "CONV_2D" and has_one_tap(view)
    return math.prod(shape[:-1]) if rows.startswith("xnnpack") and one_tap else shape[0]


def scaled(sums: Array, steps: Array, scales: Array, bias: Array | None, method: Method) -> Array:
    """``sum * step * scale + bias`` in the order of the method; arrays that broadcast against ``sums``."""
    order = method.removesuffix("_fused")
    if order == "row_product":
        left, right = sums, scales * steps
    elif order == "row_step_first":
        left, right = sums * steps, scales
    elif order == "row_filter_first":
        left, right = sums * scales, steps
    else:
        raise UnsupportedOp(f"float32 rows by {method!r} are not defined")
    if order != method:
        addend = np.zeros(1, np.float32) if bias is None else bias
        return fused_multiply_add(left, np.broadcast_to(right, left.shape), addend)
    product = left * right
    return np.asarray(product if bias is None else product + bias)


@dataclass(frozen=True)
class QuantizedRows:
    """``centred``: int64 ``[row, value]``, whole steps without the zero point; the size of a step, float32,
    and the zero point, int64, of each row."""

    centred: Array
    steps: Array
    zero_points: Array


def quantized_rows(view: LayerView, values: Array, rows: Rows) -> QuantizedRows:
    """Rows ``[row, value]`` of float32 values in steps of their own. Raises ModelError as ``hybrid`` does."""
    _require_steps(view, values)
    if rows.startswith("xnnpack"):
        quantized = [_xnnpack(row, rows) for row in values]
    elif rows.startswith("symmetric"):
        quantized = [_symmetric(row, rows) for row in values]
    else:
        quantized = [_affine(row, rows) for row in values]
    centred, steps, zero_points = zip(*quantized, strict=True)
    return QuantizedRows(np.stack(centred), np.array(steps, np.float32), np.array(zero_points, np.int64))


def _rounded(values: Array, rows: Rows) -> Array:
    """Half away from zero; ``half_added`` makes 1 of the largest float32 below 0.5, too, in whole vectors."""
    nearest = round_half_away(values)
    if rows.endswith("_half_added"):
        in_vectors = values[: len(values) // VECTOR * VECTOR]
        nearest[: len(in_vectors)] = np.trunc(in_vectors + np.copysign(np.float32(0.5), in_vectors))
    return nearest


def _symmetric(row: Array, rows: Rows) -> tuple[Array, np.float32, int]:
    largest = np.abs(row).max()
    if largest == 0:
        return np.zeros(row.shape, np.int64), np.float32(1), 0
    steps = _rounded(row * (np.float32(127) / largest), rows)
    return np.clip(steps, -127, 127).astype(np.int64), largest / np.float32(127), 0


def _affine(row: Array, rows: Rows) -> tuple[Array, np.float32, int]:
    low, high = min(row.min(), np.float32(0)), max(row.max(), np.float32(0))
    if low == high:
        return np.zeros(row.shape, np.int64), np.float32(1), 0
    portable = rows == "affine_zero_point_first"
    step = (float(high) - float(low) if portable else float(high - low)) / 255
    from_low, from_high = -128 - float(low) / step, 127 - float(high) / step
    nearer_low = 128 + abs(float(low) / step) < 127 + abs(float(high) / step)
    zero = int(round_half_away(np.float64(min(max(from_low if nearer_low else from_high, -128), 127))))
    per_unit = np.float32(1) / np.float32(step)
    if portable:
        steps = _rounded(np.float32(zero) + row * per_unit, rows)
    else:
        steps = _rounded(row * per_unit, rows) + zero
    return np.clip(steps, -128, 127).astype(np.int64) - zero, np.float32(step), zero


def _xnnpack(row: Array, rows: Rows) -> tuple[Array, np.float32, int]:
    low, high = min(row.min(), np.float32(0)), max(row.max(), np.float32(0))
    per_unit = np.float32(1) if low == high else np.float32(255) / (high - low)
    from_low, from_high = np.float32(-128) - low * per_unit, np.float32(127) - high * per_unit
    sum_of_errors = (low * per_unit + np.float32(-128)) + (high * per_unit + np.float32(127))
    zero = int(
        np.rint(min(max(from_low if sum_of_errors > 0 else from_high, np.float32(-128)), np.float32(127)))
    )
    nearest = np.rint if rows == "xnnpack_half_even" else round_half_away
    steps = nearest(row * per_unit) + zero
    return np.clip(steps, -128, 127).astype(np.int64) - zero, np.float32(1) / per_unit, zero
