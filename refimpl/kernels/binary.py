"""Ops on two tensors: ADD, SUB, MUL, PRELU, MINIMUM, MAXIMUM.

Quantized ones are tables of all 256 x 256 pairs; int32 and float32 are computed
as they are. a and b are the operands' quantized values without zero points, s_a,
s_b and s_o the scales.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.contract import Kernel, Target, Values
from refimpl.errors import UnsupportedOp
from refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from refimpl.kernels.activations import ratio32
from refimpl.kernels.fixed_point import fixed_point, rescale
from refimpl.kernels.lookup import Tables, as_bytes, byte_values, full_range, operand, pair_kernel
from refimpl.kernels.multipliers import combined_scales, output_bounds
from refimpl.profiles.rules import Method, Rule

_LEFT_SHIFT = 20
"""Bits ADD's and SUB's operands gain before they are scaled."""

_SCALAR_BLOCK = 8
"""Elements per block of LiteRT's inner loop over one operand and a single value of the other."""

_PLAIN_BOUNDS: dict[str, tuple[float, float]] = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0, math.inf),
    "RELU_N1_TO_1": (-1, 1),
    "RELU6": (0, 6),
}


def prepare_add(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """ADD: ``a * s_a + b * s_b``."""
    if not _quantized(view):
        return _plain(view, np.add)
    if rule.tail is None:
        return pair_kernel(Tables.single(_sum_table(view, rule, rule.method, 1)))
    rest = _sum_table(view, rule, rule.tail, 1)
    row, one_scalar = _inner_loop(view)
    if row == 0:
        return pair_kernel(Tables.single(rest))
    blocks = _sum_table(view, rule, rule.method, 1, one_scalar)
    return pair_kernel(Tables.mixed(blocks, rest, _SCALAR_BLOCK if one_scalar else rule.block, row))


def prepare_sub(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SUB: ``a * s_a - b * s_b``."""
    if not _quantized(view):
        return _plain(view, np.subtract)
    return pair_kernel(Tables.single(_sum_table(view, rule, rule.method, -1)))


def prepare_mul(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MUL: ``a * b * (s_a * s_b / s_o)``."""
    if not _quantized(view):
        return _plain(view, np.multiply)
    left, right = _operands(view)
    output = view.output()
    (real,) = combined_scales(view.input(0).scale, [view.input(1).scale], output.scale, rule.multiplier)
    product = left[:, None] * right[None, :]
    bounds = output_bounds(output, view.text("fused_activation_function", "NONE"), rule.clamp, view)
    if rule.method == "float32_half_even":
        with np.errstate(over="ignore"):
            steps = product.astype(np.float32) * np.float32(real)
        scaled = np.rint(np.clip(steps, np.float32(-65536), np.float32(65536))).astype(np.int64)
    else:
        scaled = rescale(product, fixed_point(float(real), view), rule.method)
    return pair_kernel(Tables.single(as_bytes(scaled + output.zero_point, *bounds)))


def prepare_prelu(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """PRELU: ``a * (s_a / s_o)`` from zero up, ``a * b * (s_a * s_b / s_o)`` below."""
    data, alpha, output = view.input(0), view.input(1), view.output()
    left, right = _operands(view)
    (slope,) = combined_scales(data.scale, [alpha.scale], output.scale, "float32")
    above = rescale(left, fixed_point(float(ratio32(view)), view), rule.method)
    below = rescale(left[:, None] * right[None, :], fixed_point(float(slope), view), rule.method)
    table = np.where(left[:, None] >= 0, above[:, None], below) + output.zero_point
    return pair_kernel(Tables.single(as_bytes(table, *full_range(output.dtype))))


def prepare_minimum(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MINIMUM and MAXIMUM of the stored values."""
    return _plain(view, np.minimum if view.op == "MINIMUM" else np.maximum)


def _quantized(view: LayerView) -> bool:
    return view.output().dtype in ("int8", "uint8")


def _plain(view: LayerView, compute: np.ufunc) -> Kernel:
    """One NumPy operation in the tensors' own type (int32 wraps), then the fused activation."""
    dtype = view.output().dtype
    bounds = _PLAIN_BOUNDS[view.text("fused_activation_function", "NONE")]
    low: Any
    high: Any
    low, high = bounds
    if dtype in QUANTIZED_RANGE:
        low, high = (max(low, QUANTIZED_RANGE[dtype][0]), min(high, QUANTIZED_RANGE[dtype][1]))

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        with np.errstate(all="ignore"):
            compute(operand(inputs, 0), operand(inputs, 1), out=outputs[0])
        if bounds != _PLAIN_BOUNDS["NONE"]:
            np.clip(outputs[0], outputs[0].dtype.type(low), outputs[0].dtype.type(high), out=outputs[0])

    return run


def _operands(view: LayerView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The value without its zero point of every byte, for both inputs."""
    left, right = view.input(0), view.input(1)
    return (
        byte_values(left.dtype) - left.zero_point,
        byte_values(right.dtype) - right.zero_point,
    )


# ---- ADD and SUB


def _inner_loop(view: LayerView) -> tuple[int, bool]:
    """How LiteRT's broadcasting loops cut the output: elements per inner loop, and whether one
    operand is a single value there. ``(0, False)`` where its general loop adds element by element.

    From the innermost dimension out, dimensions are equal, or one operand
    repeats, then equal, or the other one repeats, then equal; any other order is
    left to the general loop. The first stretch is the inner loop. Source: TFLite
    ``ProcessBroadcastShapes`` and ``BinaryBroadcastFiveFold``.
    """
    shape = view.output().shape
    left, right = ((1,) * (len(shape) - len(view.input(i).shape)) + view.input(i).shape for i in (0, 1))
    kinds = "".join(
        "=" if a == b else "<" if a == 1 else ">"
        for a, b in zip(reversed(left), reversed(right), strict=True)
        if (a, b) != (1, 1)
    )
    sizes = [size for size in reversed(shape) if size != 1]
    if not re.fullmatch("=*(<*=*>*|>*=*<*)=*", kinds):
        return 0, False
    if not kinds:
        return 1, False
    stretch = len(kinds) - len(kinds.lstrip(kinds[0]))
    return math.prod(sizes[:stretch]), kinds[0] != "="


def _sum_table(
    view: LayerView, rule: Rule, method: Method, sign: int, one_scalar: bool = False
) -> NDArray[np.uint8]:
    """The output byte of each pair of input bytes, for ``a + sign * b``."""
    left, right = _operands(view)
    output = view.output()
    if method == "xnnpack":
        scaled = _xnnpack_sums(view, left, sign * right)
    else:
        # t = 2 * max(s_a, s_b): both operands become fractions of t below one half.
        scales = view.input(0).scale, view.input(1).scale
        twice = 2.0 * max(scales)
        factors = [fixed_point(scale / twice, view) for scale in scales]
        to_output = fixed_point(twice / (2.0**_LEFT_SHIFT * output.scale), view)
        if method == "gemmlowp":
            a, b = (
                rescale(values << _LEFT_SHIFT, factor, method)
                for values, factor in zip((left, right), factors, strict=True)
            )
        elif method == "sse":
            floors = output.dtype == "uint8" or one_scalar
            a, b = (
                _sse_scaled(values, factor, floors)
                for values, factor in zip((left, right), factors, strict=True)
            )
        else:
            raise UnsupportedOp(f"{view}: no kernel adds by {method!r}")
        scaled = rescale(a[:, None] + sign * b[None, :], to_output, "gemmlowp")
    bounds = output_bounds(output, view.text("fused_activation_function", "NONE"), rule.clamp, view)
    return as_bytes(scaled + output.zero_point, *bounds)


def _sse_scaled(values: NDArray[np.int64], factor: tuple[int, int], floors: bool) -> NDArray[np.int64]:
    """LiteRT's NEON bodies: one rounding of ``values * 2**20 * factor``, not two.

    Either the whole shift comes before the high multiply, or (``floors``: uint8,
    and int8 with a single value) the factor's part after it, rounding down.
    """
    multiplier, shift = factor
    if floors:
        return rescale(values << _LEFT_SHIFT, (multiplier, 0), "ruy") >> -shift
    kept = _LEFT_SHIFT + shift
    return rescale(values << kept if kept >= 0 else values >> -kept, (multiplier, 0), "ruy")


def _xnnpack_sums(view: LayerView, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """21-bit multipliers of a common exponent, one half-up shift."""
    out_scale = np.float32(view.output().scale)
    ratios = [np.float32(view.input(position).scale) / out_scale for position in (0, 1)]
    shift = 21 - math.frexp(float(max(ratios)))[1]
    first, second = (int(np.rint(math.ldexp(float(ratio), shift))) for ratio in ratios)
    if shift < 1:
        raise UnsupportedOp(f"{view}: an input scale is 2**20 times the output's; check the scales")
    return (left[:, None] * first + right[None, :] * second + (1 << (shift - 1))) >> shift
