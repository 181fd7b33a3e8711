"""QLinearMul as a table of all pairs; QLinearLeakyRelu and parts of QLinearConcat as tables of all bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, LayerView
from karat24.refimpl.kernels.elementwise.lookup import Lookup, PairLookup, Tables, byte_values, clamped_bytes
from karat24.refimpl.kernels.moves.concatenation import Concatenation
from karat24.refimpl.kernels.moves.image_layout import TO_NHWC
from karat24.refimpl.kernels.onnx.images import ImageKernel, elementwise
from karat24.refimpl.kernels.onnx.parameters import Parameters, parameters
from karat24.refimpl.kernels.rounding.fused_multiply_add import fma
from karat24.refimpl.profiles.rules import Rule


def prepare_qlinear_mul(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearMul: float32, the zero point added before rounding, by ``float32_fused`` in one step."""
    left, right, output = parameters(view, 1, 2), parameters(view, 4, 5), parameters(view, 6, 7)
    ratio = np.float32(left.scales[0]) * np.float32(right.scales[0]) / np.float32(output.scales[0])
    values = byte_values(view.output().dtype)
    products = ((values - left.zero_points[0])[:, None] * (values - right.zero_points[0])).astype(np.float32)
    zero_point = np.float32(output.zero_points[0])
    if rule.method == "float32_fused":
        return _pairs(view, _fused(products.reshape(-1), ratio, zero_point).reshape(products.shape))
    return _pairs(view, products * ratio + zero_point)


@njit(cache=True, nogil=True)
def _fused(products: Any, ratio: Any, zero_point: Any) -> Any:
    """``products * ratio + zero_point``, each rounded once."""
    reals = np.empty_like(products)
    for i in range(products.size):
        reals[i] = fma(products[i], ratio, zero_point)
    return reals


def _pairs(view: LayerView, reals: NDArray[np.float32]) -> Kernel:
    low, high = QUANTIZED_RANGE[view.output().dtype]
    whole = np.rint(np.minimum(np.maximum(reals, np.float32(low)), np.float32(high))).astype(np.int64)
    table = np.ascontiguousarray(clamped_bytes(whole, low, high))
    return elementwise(PairLookup(Tables.single(table)), 0, 3)


def prepare_qlinear_leaky_relu(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearLeakyRelu: dequantize, multiply what lies below zero, quantize; once per value."""
    source, output = parameters(view, 1, 2), parameters(view, 3, 4)
    low, high = QUANTIZED_RANGE[view.output().dtype]
    centred = (byte_values(view.output().dtype) - source.zero_points[0]).astype(np.float32)
    reals = centred * np.float32(source.scales[0])
    negative = reals < 0
    reals[negative] *= np.float32(view.real("alpha", 0.01))
    return elementwise(
        Lookup(Tables.single(clamped_bytes(_quantized(reals, output, low, high), low, high))), 0
    )


def _quantized(reals: NDArray[np.float32], output: Parameters, low: int, high: int) -> NDArray[np.int64]:
    zero_point = output.zero_points[0]
    steps = reals / np.float32(output.scales[0])
    bounded = np.minimum(np.maximum(steps, np.float32(low - zero_point)), np.float32(high - zero_point))
    whole: NDArray[np.int64] = np.rint(bounded).astype(np.int64) + zero_point
    return whole


def prepare_qlinear_concat(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearConcat: parts with the output's parameters are copied, others go through a table."""
    output, dtype = parameters(view, 0, 1), view.output().dtype
    positions = tuple(range(2, len(view.inputs), 3))
    tables = tuple(_part_table(parameters(view, n + 1, n + 2), output, dtype) for n in positions)
    return _concatenation(view, positions, tables)


def prepare_concat(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """Concat: a copy."""
    positions = tuple(range(len(view.inputs)))
    return _concatenation(view, positions, (None,) * len(positions))


def _part_table(part: Parameters, output: Parameters, dtype: str) -> NDArray[np.uint8] | None:
    if (part.scales[0], part.zero_points[0]) == (output.scales[0], output.zero_points[0]):
        return None
    low, high = QUANTIZED_RANGE[dtype]
    reals = (byte_values(dtype) - part.zero_points[0]).astype(np.float32) * np.float32(part.scales[0])
    return clamped_bytes(_quantized(reals, output, low, high), low, high)


def _concatenation(
    view: LayerView, positions: tuple[int, ...], tables: tuple[NDArray[np.uint8] | None, ...]
) -> Kernel:
    """Inputs side by side along ``axis``, in either layout."""
    rank = len(view.output().shape)
    axis = view.integer("axis") % rank
    shapes = [view.input(position).shape for position in positions]
    nchw = _joined(view, axis, shapes, tables)
    if rank != len(TO_NHWC):
        return elementwise(nchw, *positions)
    images = [tuple(shape[old] for old in TO_NHWC) for shape in shapes]
    return ImageKernel(_joined(view, TO_NHWC.index(axis), images, tables), positions, nchw)


def _joined(
    view: LayerView,
    axis: int,
    shapes: list[tuple[int, ...]],
    tables: tuple[NDArray[np.uint8] | None, ...],
) -> Concatenation:
    size = DTYPES[view.output().dtype].itemsize
    widths = tuple(math.prod(shape[axis:]) * size for shape in shapes)
    return Concatenation(axis, math.prod(shapes[0][:axis]), widths, tables)
