"""CONV_2D of int16 images and int8 filters, by float64 products.

A product of int16 and int8 is at most 2^22, so a sum of up to 2^31 of them is a whole number of at most 2^53:
float64 holds it and all its partial sums exactly, in whichever order a BLAS library adds them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.convolution.tiling import padding_before
from karat24.refimpl.kernels.rounding.multipliers import (
    combined_scales,
    fixed_point_multipliers,
    output_bounds,
)
from karat24.refimpl.profiles.rules import Rule

COLUMN_BYTES = 4 * 2**20
"""Bytes of the windows that are multiplied at once."""


class _Axis:
    """One axis of the image: its taps, stride and dilation, and what stands before it and is needed of it."""

    def __init__(self, view: LayerView, axis: int, letter: str) -> None:
        size, self.outputs = view.input(0).shape[axis], view.output().shape[axis]
        taps = view.input(1).shape[axis]
        self.stride = view.integer(f"stride_{letter}")
        self.dilation = view.integer(f"dilation_{letter}_factor", 1)
        self.span = (taps - 1) * self.dilation + 1
        self.before = padding_before(view.text("padding"), size, taps, self.stride, self.dilation)
        self.needed = (self.outputs - 1) * self.stride + self.span
        self.taken = min(size, self.needed - self.before)


@dataclass(frozen=True)
class WideConvolution:
    """A prepared layer. ``filter`` is float64 ``[tap, out_channel]``, taps as they lie in a window."""

    y: _Axis
    x: _Axis
    filter: NDArray[np.float64]
    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    low: int
    high: int

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """The layer, image by image, a few rows at a time."""
        images = inputs[0]
        assert images is not None
        step = max(COLUMN_BYTES // (8 * self.x.outputs * len(self.filter)), 1)
        for number, image in enumerate(images):
            windows = self._windows(image)
            for first in range(0, self.y.outputs, step):
                rows = slice(first, first + step)
                columns = windows[rows].astype(np.float64)
                pixels = columns.shape[:2]
                sums = columns.reshape(-1, len(self.filter)) @ self.filter
                acc = (sums.astype(np.int64) + self.bias).reshape(*pixels, -1)
                outputs[0][number, rows] = self._requantized(acc)
                if accumulator is not None:
                    accumulator[number, rows] = acc

    def _windows(self, image: Array) -> Array:
        """What each output pixel reads, ``[y, x, tap y, tap x, channel]``, a view of the padded image."""
        y, x = self.y, self.x
        padded = np.zeros((y.needed, x.needed, image.shape[2]), image.dtype)
        padded[y.before : y.before + y.taken, x.before : x.before + x.taken] = image[: y.taken, : x.taken]
        views = sliding_window_view(padded, (y.span, x.span), axis=(0, 1))
        views = views[:: y.stride, :: x.stride, :, :: y.dilation, :: x.dilation]
        return views.transpose(0, 1, 3, 4, 2)

    def _requantized(self, acc: NDArray[np.int64]) -> NDArray[np.int64]:
        """``acc * multiplier / 2^shift``, half up, of which 32 bits are kept and clamped."""
        scaled = acc * self.multiplier
        scaled += np.left_shift(np.int64(1), self.shift - 1)
        scaled >>= self.shift
        return np.clip(scaled.astype(np.int32), self.low, self.high)


def prepare_wide_convolution(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """The kernel of an int16 CONV_2D that TFLite multiplies by 16 bits; None for groups, other rules and an
    int32 bias, whose sums wrap.

    The BLAS library that NumPy is linked with decides on its threads itself.
    """
    image, filter_, output = view.input(0), view.input(1), view.output()
    bias = view.optional_input(2)
    if rule.method != "q15" or image.shape[3] != filter_.shape[3] or filter_.dtype != "int8":
        return None
    if bias is not None and bias.dtype == "int32":
        return None
    assert filter_.data is not None
    assert filter_.quantization is not None
    scales = combined_scales(image.scale, filter_.quantization.scale, output.scale, rule.multiplier)
    multiplier, shift = fixed_point_multipliers(scales, view)
    if (shift > 14).any() or math.prod(filter_.shape[1:]) >= 2**31:
        return None
    low, high = output_bounds(output, view.text("fused_activation_function", "NONE"), rule.clamp, view)
    channels = filter_.shape[0]
    return WideConvolution(
        _Axis(view, 1, "h"),
        _Axis(view, 2, "w"),
        np.ascontiguousarray(filter_.data.reshape(channels, -1).T, np.float64),
        np.zeros(channels, np.int64) if bias is None or bias.data is None else bias.data.astype(np.int64),
        np.minimum((multiplier.astype(np.int64) + 2**15) >> 16, 2**15 - 1),
        15 - shift.astype(np.int64),
        low,
        high,
    )
