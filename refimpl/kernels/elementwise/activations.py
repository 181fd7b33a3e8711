"""Activation ops of one int8/uint8 tensor, each prepared as a table of 256 bytes.

x is the input's quantized value, z its zero point, s its scale; s_o and z_o are
the output's. ``f32`` marks each float32 rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import (
    Lookup,
    Tables,
    byte_values,
    clamped_bytes,
    full_range,
)
from karat24.refimpl.kernels.elementwise.rounded_tanhf import tanh_correctly_rounded
from karat24.refimpl.kernels.elementwise.tanhf import tanh_float32
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.rounding.exp_float32 import exp_float32
from karat24.refimpl.kernels.rounding.fixed_point import fixed_point, rescale
from karat24.refimpl.kernels.rounding.multipliers import combined_scales, output_bounds
from karat24.refimpl.profiles.rules import Rule

REAL_BOUNDS: dict[str, tuple[float, float]] = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}
"""What each clamp leaves of the real numbers."""


def round_half_away(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """float32 to integers, ties away from zero; exact, because float64 holds x + 1/2."""
    wide = np.clip(values.astype(np.float64), -(2.0**31), 2.0**31)
    return np.where(wide < 0, -np.floor(0.5 - wide), np.floor(wide + 0.5)).astype(np.int64)


def ratio32(view: LayerView) -> np.float32:
    """f32(s / s_o) of input 0 and output 0."""
    with np.errstate(over="ignore"):
        return np.float32(view.input(0).scale) / np.float32(view.output().scale)


def ratio(view: LayerView, rule: Rule, factor: float = 1.0) -> float:
    """``s * factor / s_o``, evaluated as the rule says."""
    (real,) = combined_scales(view.input(0).scale, [factor], view.output().scale, rule.multiplier)
    return float(real)


def coarse(values: NDArray[np.int64], ratio: np.float32) -> NDArray[np.int64]:
    """XNNPACK rounds the ratio itself to 1/256: ``(x * rint(256 * ratio) + 128) >> 8``."""
    return (values * int(np.rint(np.float32(256) * ratio)) + 128) >> 8


def _centred(view: LayerView) -> NDArray[np.int64]:
    """x - z for each of the 256 bytes."""
    return byte_values(view.input(0).dtype) - view.input(0).zero_point


def _no_kernel(view: LayerView, rule: Rule) -> UnsupportedOp:
    return UnsupportedOp(f"{view}: no kernel rounds {view.op} by {rule}")


# ---- LOGISTIC, TANH


def prepare_logistic(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """LOGISTIC: 1 / (1 + exp(-real))."""
    return _transcendental(view, rule, _logistic_in_float32, _logistic_in_float64)


def prepare_tanh(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """TANH, by the C library the rule names; rounded correctly where nobody knows which."""
    function = tanh_float32 if rule.libm == "fdlibm" else tanh_correctly_rounded
    if rule.method == "unspecified":
        rule = Rule("float_table")
    return _transcendental(view, rule, function, function)


def _transcendental(
    view: LayerView,
    rule: Rule,
    tflite: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    xnnpack: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Kernel:
    """``float_table``: round_half_away(f32(f(f32(s*(x-z))) * f32(1/s_o))) + z_o;
    ``xnnpack``: rint(f32(f32(f(...) * f32(1/s_o)) + z_o))."""
    output = view.output()
    reals = np.float32(view.input(0).scale) * _centred(view).astype(np.float32)
    function = tflite if rule.method == "float_table" else xnnpack
    results = function(reals)
    with np.errstate(over="ignore"):
        steps = results * (np.float32(1) / np.float32(output.scale))
    if rule.method == "float_table":
        rounded = round_half_away(steps)
        if rule.overflow == "wraps":
            rounded = np.where(rounded < 2**31, rounded, -(2**31))
        quantized = rounded + output.zero_point
    elif rule.method == "xnnpack":
        shifted = np.clip(steps + np.float32(output.zero_point), np.float32(-65536), np.float32(65536))
        quantized = np.rint(shifted).astype(np.int64)
    else:
        raise _no_kernel(view, rule)
    return Lookup(Tables.single(clamped_bytes(quantized, *full_range(output.dtype))))


def _logistic_in_float32(reals: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) / (np.float32(1) + exp_float32(-reals))


def _logistic_in_float64(reals: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.array([math.exp(min(max(real, -700.0), 700.0)) for real in reals.tolist()])
    results = np.where(np.abs(reals) > 100, reals > 0, powers / (1.0 + powers))
    return results.astype(np.float32)


# ---- RELU, RELU6, RELU_N1_TO_1, LEAKY_RELU


def prepare_relu(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """RELU, RELU6, RELU_N1_TO_1: rescale by f32(s/s_o), then clamp; ``exact`` clamps only."""
    output = view.output()
    if output.dtype == "float32":
        return _clamp_float(REAL_BOUNDS[view.op])
    bounds = output_bounds(output, view.op, rule.clamp, view)
    if rule.method == "exact":
        quantized = byte_values(output.dtype)
    elif rule.method == "gemmlowp":
        scaled = rescale(_centred(view), fixed_point(ratio(view, rule), view), rule.method)
        quantized = scaled + output.zero_point
    else:
        raise _no_kernel(view, rule)
    return Lookup(Tables.single(clamped_bytes(quantized, *bounds)))


def _clamp_float(bounds: tuple[float, float]) -> Kernel:
    low, high = np.float32(bounds[0]), np.float32(bounds[1])

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        np.clip(operand(inputs, 0), low, high, out=outputs[0])

    return run


def prepare_leaky_relu(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """LEAKY_RELU: x - z times f32(s/s_o), below zero times alpha as well."""
    output, alpha = view.output(), np.float32(view.real("alpha"))
    centred = _centred(view)
    if rule.method in ("gemmlowp", "gemmlowp_signed"):
        slope = ratio(view, rule, float(alpha))
        above = rescale(centred, fixed_point(ratio(view, rule), view), "gemmlowp")
        # A multiplier is never negative here: a negative slope flips the sign of the result, or of the input.
        if slope < 0 and rule.method == "gemmlowp_signed":
            centred = -centred
        below = rescale(centred, fixed_point(abs(slope), view), "gemmlowp")
        below = -below if slope < 0 and rule.method == "gemmlowp" else below
    elif rule.method == "xnnpack":
        above = coarse(centred, ratio32(view))
        below = coarse(centred, ratio32(view) * alpha)
    else:
        raise _no_kernel(view, rule)
    quantized = np.where(_centred(view) < 0, below, above) + output.zero_point
    return Lookup(Tables.single(clamped_bytes(quantized, *full_range(output.dtype))))


# ---- HARD_SWISH


def prepare_hard_swish(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """HARD_SWISH, ``x * relu6(x + 3) / 6`` in int16 fixed point. Source: TFLite ``hard_swish.h``."""
    if rule.method != "fixed_point":
        raise _no_kernel(view, rule)
    output = view.output()
    # Inputs carry 7 more bits: one step of x - z is 128 steps of "hires".
    hires_scale = np.float32(1 / 128) * np.float32(view.input(0).scale)
    with np.errstate(over="ignore"):
        to_output = fixed_point(float(hires_scale / np.float32(output.scale)), view)
        to_relu = fixed_point(float(hires_scale / np.float32(3 / 32768)), view)
    if to_output[1] > 0:
        raise UnsupportedOp(
            f"{view}: input scale {view.input(0).scale:g} is 128 times the output scale "
            f"{output.scale:g} or more; the runtimes' fixed-point HARD_SWISH has no meaning there"
        )
    quantized = [_hard_swish(int(x), to_output, to_relu) + output.zero_point for x in _centred(view)]
    wrapped = (np.array(quantized, np.int64) + 32768) % 65536 - 32768
    return Lookup(Tables.single(clamped_bytes(wrapped, *full_range(output.dtype))))


def _hard_swish(x: int, to_output: tuple[int, int], to_relu: tuple[int, int]) -> int:
    """One value of x - z, in Python integers, without the output's zero point."""
    hires = (x * 128 + 32768) % 65536 - 32768
    before_output_shift = _high_mul16(hires, _narrow(to_output[0]))
    # relu6(x + 3) / 6 as Q0.15 from [-1, 1], shifted in two steps so that it saturates as int16 does.
    shift, gate = to_relu[1], hires
    if shift > 0:
        gate = _saturate16(gate << (shift - 1))
    gate = _high_mul16(gate, _narrow(to_relu[0]))
    if shift > 0:
        gate = _saturate16(gate << 1)
    if shift < 0:
        gate = _half_away(gate, -shift)
    gate = (gate + 32768) >> 1
    product = gate * before_output_shift
    truncated = product >> 15 if product >= 0 else -(-product >> 15)
    return _half_away(truncated, -to_output[1])


def _narrow(multiplier: int) -> int:
    """Q0.31 to Q0.15, rounded half up, saturated."""
    return min((multiplier + (1 << 15)) >> 16, 32767)


def _saturate16(x: int) -> int:
    return min(max(x, -32768), 32767)


def _high_mul16(a: int, b: int) -> int:
    """``a * b / 2**15`` rounded half up."""
    return min((a * b + (1 << 14)) >> 15, 32767)


def _half_away(x: int, exponent: int) -> int:
    half = (1 << exponent) >> 1
    return (x + half) >> exponent if x >= 0 else -((half - x) >> exponent)
