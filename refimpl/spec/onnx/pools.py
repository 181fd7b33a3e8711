"""Pools over images ``[batch, channel, ...]``: MaxPool, QLinearAveragePool, QLinearGlobalAveragePool
(com.microsoft)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import reduce

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import dequantize, requantize, require_method
from karat24.refimpl.spec.onnx.parameters import Affine, affine
from karat24.refimpl.spec.onnx.sums import zero_of
from karat24.refimpl.spec.onnx.windows import windows_over
from karat24.refimpl.spec.shared.geometry import Index, Window, taken_by
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_same_dtype,
    require_shape,
)
from karat24.refimpl.spec.shared.scales import require_multiplier


def check_max_pool(view: LayerView) -> None:
    """Input ``[batch, channel, ...]`` with one to three spatial axes; attributes ``kernel_shape``,
    ``strides``, ``pads``, ``dilations``, ``auto_pad``, ``ceil_mode``. Every window covers a part of the
    image."""
    if len(view.outputs) > 1:
        raise UnsupportedOp(f"{view} gives the indices of its maxima too, which is not implemented")
    require_arity(view, 1)
    require_dtype(view, view.output(), (*QUANTIZED_8, "float32"))
    require_same_dtype(view, view.input(0), view.output())
    _check_pool(view)


def _check_pool(view: LayerView) -> None:
    require_elements(view, view.input(0))
    over = windows_of(view)
    sizes = tuple(axis.output_size for axis in over)
    require_shape(view, view.output(), (*view.input(0).shape[:2], *sizes))
    for axis in over:
        seen = np.unique(np.concatenate([axis.taken(tap)[0] for tap in range(axis.taps)]))
        require(view, seen.size == axis.output_size, "a window lies wholly in the padding")


def windows_of(view: LayerView) -> tuple[Window, ...]:
    """The windows over one to three spatial axes; ONNX Runtime has no pools over more."""
    image = view.input(0).shape
    if not 3 <= len(image) <= 5:
        raise UnsupportedOp(f"{view}: images of shape {image}; one to three spatial axes are implemented")
    return windows_over(view, image, view.integers("kernel_shape"))


def each_tap(over: tuple[Window, ...]) -> Iterator[tuple[Index, Index]]:
    """For each tap, the last axis fastest, the outputs ``[batch, channel, ...]`` that see it, and where."""
    whole = slice(None), slice(None)
    for taps in itertools.product(*(range(axis.taps) for axis in over)):
        out, taken = taken_by(over, taps)
        yield (*whole, *out), (*whole, *taken)


def max_pool(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - exact
    """The largest value of each window; padding is left out."""
    data = operand(values, 0)
    least = -np.inf if data.dtype == np.float32 else QUANTIZED_RANGE[data.dtype.name][0]
    result = np.full(view.output().shape, least, data.dtype)
    for out, taken in each_tap(windows_of(view)):
        result[out] = np.maximum(result[out], data[taken])
    return SpecResult((result,))


def check_qlinear_pool(view: LayerView) -> None:
    """Inputs: x ``[batch, channel, ...]``, scale, zero point, output scale, optional zero point."""
    require_arity(view, 4, optional=1)
    require_dtype(view, view.output(), QUANTIZED_8)
    require_same_dtype(view, view.input(0), view.output())
    if view.integer("channels_last", 0):
        raise UnsupportedOp(f"{view}: channels_last is not implemented")
    source, output = _parameters(view)
    require_multiplier(view, float(source.scale[0] / output.scale[0]), "x_scale / y_scale")


def check_qlinear_average_pool(view: LayerView) -> None:
    """Also the attributes of a pool and ``count_include_pad``."""
    check_qlinear_pool(view)
    _check_pool(view)


def check_qlinear_global_average_pool(view: LayerView) -> None:
    """The output is ``[batch, channel, 1, ...]``."""
    check_qlinear_pool(view)
    require_rank(view, view.input(0), 3, 8)
    require_elements(view, view.input(0))
    batch, channels, *spatial = view.input(0).shape
    require(view, int(np.prod(spatial)) < 2**23, f"windows of {spatial} are too large for an int32 sum")
    require_shape(view, view.output(), (batch, channels, *[1] * len(spatial)))


def _parameters(view: LayerView) -> tuple[Affine, Affine]:
    dtype = view.output().dtype
    return affine(view, 1, 2, dtype), affine(view, 3, 4, dtype)


def qlinear_average_pool(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Dequantized values added up in float32, the last axis fastest; ``rint(f32(sum / n) / scale + zp)``.

    n counts the values inside the image, or with ``count_include_pad`` all taps: unlike AveragePool also
    those that ``ceil_mode`` leaves behind the padding. A single window as large as the image is rounded by
    ``float32_half_even``, as QLinearGlobalAveragePool is.
    Source: ONNX Runtime 1.31.1, ``contrib_ops/cpu/quantization/qlinear_pool.cc``.
    """
    if rule.method == "float32_half_even":
        return qlinear_global_average_pool(view, values, rule)
    require_method(view, rule, "float32_zero_point_first")
    source, output = _parameters(view)
    reals = dequantize(operand(values, 0), source)
    over = windows_of(view)
    total = np.zeros(view.output().shape, np.float32)
    for out, taken in each_tap(over):
        total[out] += reals[taken]
    whole = np.array(math.prod(axis.taps for axis in over))
    count = whole if view.integer("count_include_pad", 0) else count_taps(view, over)
    mean = total / count.astype(np.float32)
    steps = np.rint(mean / output.scale + np.float32(zero_of(output)))
    return _stored(view, steps, output)


def count_taps(view: LayerView, over: tuple[Window, ...]) -> Array:
    """How many taps of each window count, an array with the spatial axes: those inside the image, or with
    ``count_include_pad`` also those in the padding."""
    behind = view.integers("pads", (0, 0) * len(over))[len(over) :]
    along = [_count_along(view, axis, pad) for axis, pad in zip(over, behind, strict=True)]
    return np.asarray(reduce(np.multiply.outer, along))


def _count_along(view: LayerView, axis: Window, behind: int) -> Array:
    if view.integer("count_include_pad", 0):
        last = axis.input_size + (behind if view.text("auto_pad", "NOTSET") == "NOTSET" else 0)
        starts = np.arange(axis.output_size) * axis.stride - axis.pad_before
        ends = np.minimum(starts + (axis.taps - 1) * axis.dilation + 1, last)
        return -(-(ends - starts) // axis.dilation)
    found = [axis.taken(tap)[0] for tap in range(axis.taps)]
    return np.bincount(np.concatenate(found), minlength=axis.output_size)


def qlinear_global_average_pool(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``(sum - n * zp) * f32(s_x / f32(s_y * n))``, requantized."""
    source, output = _parameters(view)
    data = operand(values, 0).astype(np.int64)
    axes = tuple(range(2, data.ndim))
    count = int(np.prod(data.shape[2:]))
    acc = (data - zero_of(source)).sum(axis=axes, keepdims=True)
    scale = source.scale / (output.scale * np.float32(count))
    result = requantize(view, rule, acc, scale, output)
    return SpecResult((result.astype(DTYPES[view.output().dtype]),))


def _stored(view: LayerView, steps: Array, output: Affine) -> SpecResult:
    return SpecResult((np.clip(steps, output.low, output.high).astype(DTYPES[view.output().dtype]),))
