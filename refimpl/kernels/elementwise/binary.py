"""Ops on two tensors: ADD, SUB, MUL, PRELU, MINIMUM, MAXIMUM.

Quantized ones are tables of all 256 x 256 pairs; int32 and float32 are computed
as they are. a and b are the operands' quantized values without zero points, s_a,
s_b and s_o the scales.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.kernels.elementwise.activations import REAL_BOUNDS, ratio
from karat24.refimpl.kernels.elementwise.addition import (
    Operand,
    ScaledSum,
    Scaling,
    SumKernel,
    WeightedSum,
    sum_kernel,
    weighted_sums,
)
from karat24.refimpl.kernels.elementwise.lookup import (
    PairLookup,
    Tables,
    byte_values,
    clamped_bytes,
    full_range,
)
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.rounding.fixed_point import fixed_point, rescale
from karat24.refimpl.kernels.rounding.multipliers import combined_scales, output_bounds, rounded_products
from karat24.refimpl.profiles.rules import Method, Rule

_LEFT_SHIFT = 20
"""Bits ADD's and SUB's operands gain before they are scaled."""

_MAX_XNNPACK_SHIFT = 30
"""Up to here two products of 9 and 21 bits and half a step fit 32 bits."""


def prepare_add(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """ADD: ``a * s_a + b * s_b``."""
    if not _quantized(view):
        return _plain(view, np.add)
    return _sum_kernel(view, rule, 1) or _paired(view, rule, lambda method: _sums(view, method, 1))


def prepare_sub(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SUB: ``a * s_a - b * s_b``."""
    if not _quantized(view):
        return _plain(view, np.subtract)
    return _sum_kernel(view, rule, -1) or _paired(view, rule, lambda method: _sums(view, method, -1))


def prepare_mul(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MUL: ``a * b * (s_a * s_b / s_o)``."""
    if not _quantized(view):
        return _plain(view, np.multiply)
    scales = view.input(0).scale, [view.input(1).scale], view.output().scale
    (real,) = combined_scales(*scales, rule.multiplier)
    return _paired(view, rule, lambda method: _products(view, method, float(real)))


def _paired(view: LayerView, rule: Rule, compute: Callable[[Method], NDArray[np.int64]]) -> Kernel:
    """The kernel of a quantized op: ``compute`` gives the unclamped output of each pair of bytes."""
    activation = view.text("fused_activation_function", "NONE")
    bounds = output_bounds(view.output(), activation, rule.clamp, view)
    blocks = clamped_bytes(compute(rule.method), *bounds)
    if rule.tail is None:
        return PairLookup(Tables.single(blocks))
    rest = clamped_bytes(compute(rule.tail), *bounds)
    return PairLookup(Tables.mixed(blocks, rest, rule.block, inner_loop(view).length))


def prepare_prelu(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """PRELU: ``a * (s_a / s_o)`` from zero up, ``a * b * (s_a * s_b / s_o)`` below."""
    alpha, output = view.input(1), view.output()
    left, right = _operands(view)
    above = rescale(left, fixed_point(ratio(view, rule), view), rule.method)
    below = rescale(
        left[:, None] * right[None, :], fixed_point(ratio(view, rule, alpha.scale), view), rule.method
    )
    table = np.where(left[:, None] >= 0, above[:, None], below) + output.zero_point
    return PairLookup(Tables.single(clamped_bytes(table, *full_range(output.dtype))))


def prepare_minimum(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MINIMUM and MAXIMUM of the stored values."""
    if view.output().dtype != "float32":
        return _plain(view, np.minimum if view.op == "MINIMUM" else np.maximum)
    first_wins = np.less if view.op == "MINIMUM" else np.greater

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        # The result is the second operand unless the first is beyond it, which a NaN and an equal 0 are not.
        left, right = operand(inputs, 0), operand(inputs, 1)
        outputs[0][...] = right
        np.copyto(outputs[0], left, where=first_wins(left, right))

    return run


def _quantized(view: LayerView) -> bool:
    return view.output().dtype in ("int8", "uint8")


def _plain(view: LayerView, compute: np.ufunc) -> Kernel:
    """One NumPy operation in the tensors' own type (int32 wraps), then the fused activation."""
    dtype = view.output().dtype
    bounds = REAL_BOUNDS[view.text("fused_activation_function", "NONE")]
    low: Any
    high: Any
    low, high = bounds
    if dtype in QUANTIZED_RANGE:
        low, high = (max(low, QUANTIZED_RANGE[dtype][0]), min(high, QUANTIZED_RANGE[dtype][1]))

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        with np.errstate(all="ignore"):
            compute(operand(inputs, 0), operand(inputs, 1), out=outputs[0])
        if bounds != REAL_BOUNDS["NONE"]:
            np.clip(outputs[0], outputs[0].dtype.type(low), outputs[0].dtype.type(high), out=outputs[0])

    return run


def _operands(view: LayerView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The value without its zero point of every byte, for both inputs."""
    left, right = view.input(0), view.input(1)
    return (
        byte_values(left.dtype) - left.zero_point,
        byte_values(right.dtype) - right.zero_point,
    )


# ---- LiteRT's inner loops


class InnerLoop(NamedTuple):
    """Output elements per pass, and whether one operand is a single value there.

    A ``length`` of 0: elements are computed one by one.
    """

    length: int
    one_scalar: bool


def inner_loop(view: LayerView) -> InnerLoop:
    """How LiteRT's optimised kernels cut the output of a layer of two inputs.

    From the innermost dimension out, dimensions are equal, then one operand
    repeats, then equal, then the other repeats, then equal; any other order is
    left to a general loop. The first stretch is the inner loop. Source: TFLite
    ``ProcessBroadcastShapes`` and ``BinaryBroadcastFiveFold``.
    """
    shape = view.output().shape
    left, right = ((1,) * (len(shape) - len(t.shape)) + t.shape for t in (view.input(0), view.input(1)))
    kinds = "".join(
        "=" if a == b else "<" if a == 1 else ">"
        for a, b in zip(reversed(left), reversed(right), strict=True)
        if (a, b) != (1, 1)
    )
    sizes = [size for size in reversed(shape) if size != 1]
    if not re.fullmatch("=*(<*=*>*|>*=*<*)=*", kinds):
        return InnerLoop(0, False)
    if not kinds:
        return InnerLoop(1, False)
    stretch = len(kinds) - len(kinds.lstrip(kinds[0]))
    return InnerLoop(math.prod(sizes[:stretch]), kinds[0] != "=")


def _wrap16(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return (values + (1 << 15)) % (1 << 16) - (1 << 15)


# ---- ADD, SUB


def _sum_kernel(view: LayerView, rule: Rule, sign: int) -> Kernel | None:
    """The layer by arithmetic; None where a table is needed: for repeated operands or mixed rounding."""
    left, right, output = view.input(0), view.input(1), view.output()
    if rule.tail is not None or not left.shape == right.shape == output.shape:
        return None
    activation = view.text("fused_activation_function", "NONE")
    bounds = output_bounds(output, activation, rule.clamp, view)
    operands = Operand.of(left), Operand.of(right)
    if rule.method == "xnnpack":
        weights, shift = _xnnpack_weights(view)
        if shift > _MAX_XNNPACK_SHIFT:
            return None
        weighted = WeightedSum(*operands, weights[0], sign * weights[1], shift, output.zero_point, *bounds)
        return SumKernel(weighted_sums, (weighted,))
    if rule.method != "gemmlowp":
        return None
    factors, (multiplier, shift) = _fixed_point_factors(view)
    if shift > 0:
        return None
    first, second = (Scaling.gemmlowp(factor, -places, _LEFT_SHIFT) for factor, places in factors)
    of_sum = Scaling.gemmlowp(multiplier, -shift, 0)
    scaled = ScaledSum(*operands, first, second, sign, of_sum, output.zero_point, *bounds)
    steps = left.scale / output.scale, sign * right.scale / output.scale
    return sum_kernel(scaled, steps)


def _fixed_point_factors(view: LayerView) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Each operand's factor and the output's: operands are fractions of twice the larger scale."""
    scales = view.input(0).scale, view.input(1).scale
    twice = 2.0 * max(scales)
    factors = [fixed_point(scale / twice, view) for scale in scales]
    return factors, fixed_point(twice / (2.0**_LEFT_SHIFT * view.output().scale), view)


def _sums(view: LayerView, method: Method, sign: int) -> NDArray[np.int64]:
    """The output value, not yet clamped, of each pair of input bytes, for ``a + sign * b``."""
    left, right = _operands(view)
    zero_point = view.output().zero_point
    if method == "xnnpack":
        (first, second), shift = _xnnpack_weights(view)
        total = left[:, None] * first + sign * right[None, :] * second + (1 << (shift - 1))
        return (total >> shift) + zero_point
    if method == "rational" and sign == 1:
        return _rational_sums(view, left, right) + zero_point
    factors, to_output = _fixed_point_factors(view)
    if method not in ("gemmlowp", "sse"):
        raise UnsupportedOp(f"{view}: no kernel adds by {method!r}")
    floors = view.output().dtype == "uint8" or inner_loop(view).one_scalar
    a, b = (
        rescale(values << _LEFT_SHIFT, factor, method)
        if method == "gemmlowp"
        else _sse_scaled(values, factor, floors)
        for values, factor in zip((left, right), factors, strict=True)
    )
    sums = rescale(a[:, None] + sign * b[None, :], to_output, "gemmlowp") + zero_point
    return _wrap16(sums) if method == "sse" else sums


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


def _xnnpack_weights(view: LayerView) -> tuple[tuple[int, int], int]:
    """Both operands' 21-bit multipliers of a common exponent, and the one half-up shift."""
    out_scale = np.float32(view.output().scale)
    with np.errstate(over="ignore"):
        ratios = [float(np.float32(view.input(position).scale) / out_scale) for position in (0, 1)]
    if max(ratios) >= 256:
        raise UnsupportedOp(
            f"{view}: an input scale is {max(ratios):g} output scales; XNNPACK adds below 256"
        )
    shift = 21 - math.frexp(max(ratios))[1]
    first, second = (int(np.rint(math.ldexp(ratio, shift))) for ratio in ratios)
    return (first, second), shift


def _rational_sums(view: LayerView, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The Edge TPU's sums: operands times integers whose ratio is nearest to the scales', times a float32."""
    scales = [np.float32(view.input(position).scale) for position in (0, 1)]
    finer = int(scales[0] > scales[1])
    factors = _nearest_fraction(float(scales[finer]), float(scales[1 - finer]), (1 << 15) - 1)
    first, second = factors[::-1] if finer else factors
    if first == 0 or second == 0:
        raise UnsupportedOp(f"{view}: input scales {scales[0]:g} and {scales[1]:g} are too far apart to add")
    step = np.float32(scales[0] / np.float32(first)) * np.reciprocal(np.float32(view.output().scale))
    sums = first * left[:, None] + second * right[None, :]
    return np.asarray(np.rint(sums.astype(np.float32) * step), np.int64)


def _nearest_fraction(small: float, large: float, most: int) -> tuple[int, int]:
    """The fraction nearest to ``small / large``, at most 1, whose denominator is ``most`` at most.

    Best approximations are convergents of the continued fraction, or stop on the way to the next one.
    """
    n, d = int(math.ldexp(small, 149)), int(math.ldexp(large, 149))  # float32 values are multiples of 2**-149
    above, below, of = (1, 0), (0, 1), (n, d)
    while d:
        whole, rest = divmod(n, d)
        following = above[0] * whole + below[0], above[1] * whole + below[1]
        if following[1] > most:
            break
        below, above, n, d = above, following, d, rest
    else:
        return above
    fewer = (most - below[1]) // above[1]
    between = above[0] * fewer + below[0], above[1] * fewer + below[1]
    off_above, off_between = (abs(p * of[1] - q * of[0]) for p, q in (above, between))
    return above if off_above * between[1] <= off_between * above[1] else between


# ---- MUL


def _products(view: LayerView, method: Method, real: float) -> NDArray[np.int64]:
    """The output value, not yet clamped, of each pair of input bytes, for ``a * b * real``."""
    left, right = _operands(view)
    products, zero_point = left[:, None] * right[None, :], view.output().zero_point
    if method == "float32_half_even":
        return rounded_products(products, np.float32(real)) + zero_point
    factor = fixed_point(real, view)
    if method != "sse":
        return rescale(products, factor, method) + zero_point
    # The body is gemmlowp's too, but narrows to int16: by saturation, or by dropping the high bits.
    scaled = rescale(products, factor, "gemmlowp")
    drops = view.output().dtype == "uint8" and inner_loop(view).one_scalar
    narrow = _wrap16(scaled) if drops else np.clip(scaled, -(1 << 15), (1 << 15) - 1)
    return _wrap16(narrow + zero_point)
