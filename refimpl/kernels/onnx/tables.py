"""QLinearAdd and QLinearMul as tables of all pairs; QLinearLeakyRelu as one of all values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from refimpl.contract import Kernel, Target, Values
from refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from refimpl.kernels.elementwise.lookup import Lookup, PairLookup, Tables, byte_values, clamped_bytes
from refimpl.kernels.onnx.translation import Parameters, parameters
from refimpl.kernels.rounding.fused_multiply_add import fma
from refimpl.profiles.onnx.broadcast import left_is_scalar
from refimpl.profiles.rules import Rule


@njit(cache=True, nogil=True)
def _sums(left: Array, right: Array, ra: np.float32, rb: np.float32, fixed: np.float32, out: Array) -> None:
    for i in range(left.size):
        for k in range(right.size):
            out[i, k] = fma(left[i], ra, fma(right[k], rb, fixed))


@njit(cache=True, nogil=True)
def _shift(ra: np.float32, za: np.float32, rb: np.float32, zb: np.float32, zc: np.float32) -> np.float32:
    return np.float32(zc - fma(ra, za, np.float32(rb * zb)))


def prepare_qlinear_add(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearAdd: float32 with fused products; a and b change places where a is the single value."""
    left, right, output = parameters(view, 1, 2), parameters(view, 4, 5), parameters(view, 6, 7)
    swapped = left_is_scalar(view.input(0).shape, view.input(3).shape)
    if swapped:
        left, right = right, left
    out = np.float32(output.scales[0])
    ra, rb = np.float32(left.scales[0]) / out, np.float32(right.scales[0]) / out
    za, zb, zc = (np.float32(p.zero_points[0]) for p in (left, right, output))
    values = byte_values(view.output().dtype).astype(np.float32)
    reals = np.empty((256, 256), np.float32)
    _sums(values, values, ra, rb, np.float32(_shift(ra, za, rb, zb, zc)), reals)
    return _pairs(view, reals.T if swapped else reals)


def prepare_qlinear_mul(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearMul: float32, the zero point added before rounding."""
    left, right, output = parameters(view, 1, 2), parameters(view, 4, 5), parameters(view, 6, 7)
    ratio = np.float32(left.scales[0]) * np.float32(right.scales[0]) / np.float32(output.scales[0])
    values = byte_values(view.output().dtype)
    products = (values - left.zero_points[0])[:, None] * (values - right.zero_points[0])
    return _pairs(view, products.astype(np.float32) * ratio + np.float32(output.zero_points[0]))


def _pairs(view: LayerView, reals: NDArray[np.float32]) -> Kernel:
    low, high = QUANTIZED_RANGE[view.output().dtype]
    whole = np.rint(np.minimum(np.maximum(reals, np.float32(low)), np.float32(high))).astype(np.int64)
    look_up = PairLookup(Tables.single(np.ascontiguousarray(clamped_bytes(whole, low, high))))

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        look_up([inputs[0], inputs[3]], outputs, accumulator)

    return run


def prepare_qlinear_leaky_relu(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearLeakyRelu: dequantize, multiply what lies below zero, quantize; once per value."""
    source, output = parameters(view, 1, 2), parameters(view, 3, 4)
    low, high = QUANTIZED_RANGE[view.output().dtype]
    centred = (byte_values(view.output().dtype) - source.zero_points[0]).astype(np.float32)
    reals = centred * np.float32(source.scales[0])
    negative = reals < 0
    reals[negative] *= np.float32(view.real("alpha", 0.01))
    return Lookup(Tables.single(clamped_bytes(_quantized(reals, output, low, high), low, high)))


def _quantized(reals: NDArray[np.float32], output: Parameters, low: int, high: int) -> NDArray[np.int64]:
    zero_point = output.zero_points[0]
    steps = reals / np.float32(output.scales[0])
    bounded = np.minimum(np.maximum(steps, np.float32(low - zero_point)), np.float32(high - zero_point))
    whole: NDArray[np.int64] = np.rint(bounded).astype(np.int64) + zero_point
    return whole
