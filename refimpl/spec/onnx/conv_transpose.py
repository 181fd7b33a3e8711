"""ConvTranspose in float32, which ONNX Runtime computes in an order that can be known.

For each tap of the filter a matrix product over the input channels, whose sum is one chain of fused
multiply-adds, then the products are added to the image tap by tap, row of the filter by row, and the
bias last. Verified bit for bit against ONNX Runtime 1.31.1 on x86-64 (MLAS SGEMM, FMA3 and AVX512F); it
cuts sums over more than ``LONGEST_CHAIN`` channels into parts that depend on the number of threads, and
takes another way for images of one pixel (``variant_of`` in ``profiles/onnx/table.py`` tells these apart).
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_shape,
)


def check_conv_transpose(view: LayerView) -> None:
    """Inputs: image NCHW, filter ``[in, out / group, y, x]``, optional bias ``[out]``; explicit pads."""
    require_arity(view, 2, optional=1)
    for tensor in (*view.inputs, *view.outputs):
        if tensor is not None:
            require_dtype(view, tensor, ("float32",))
            require_elements(view, tensor)
    image, weights = view.input(0), view.input(1)
    require_rank(view, image, 4)
    require_rank(view, weights, 4)
    if view.text("auto_pad", "NOTSET") != "NOTSET":
        raise UnsupportedOp(f"{view}: auto_pad is not implemented; give pads")
    if "output_shape" in view.layer.attributes:
        raise UnsupportedOp(f"{view}: output_shape is not implemented; give pads")
    groups = view.integer("group", 1)
    require(
        view,
        groups >= 1 and weights.shape[0] == image.shape[1] and image.shape[1] % groups == 0,
        f"filter {weights.shape} in {groups} groups for an image {image.shape}",
    )
    strides, dilations = view.integers("strides", (1, 1)), view.integers("dilations", (1, 1))
    pads, extra = view.integers("pads", (0, 0, 0, 0)), view.integers("output_padding", (0, 0))
    fits = (len(strides), len(dilations), len(pads), len(extra)) == (2, 2, 4, 2)
    require(view, fits and min((*strides, *dilations)) >= 1 and min((*pads, *extra)) >= 0, "wrong attributes")
    sizes = (
        (image.shape[2 + i] - 1) * strides[i]
        + extra[i] + (weights.shape[2 + i] - 1) * dilations[i] + 1 - pads[i] - pads[2 + i]
        for i in (0, 1)
    )  # fmt: skip
    channels = weights.shape[1] * groups
    require_shape(view, view.output(), (image.shape[0], channels, *sizes))
    bias = view.optional_input(2)
    if bias is not None:
        require_shape(view, bias, (channels,))


def conv_transpose(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Each input value adds the filter at ``in * stride + tap * dilation - pad``.

    ``float32_fused``: in float32, in the order above; ``unspecified``: in float64, rounded once.
    """
    kind = np.float32 if rule.method == "float32_fused" else np.float64
    image, weights = operand(values, 0).astype(kind), operand(values, 1).astype(kind)
    strides, dilations = view.integers("strides", (1, 1)), view.integers("dilations", (1, 1))
    pads = view.integers("pads", (0, 0, 0, 0))
    result = np.zeros(view.output().shape, kind)
    for tap_y in range(weights.shape[2]):
        for tap_x in range(weights.shape[3]):
            rows = np.arange(image.shape[2]) * strides[0] + tap_y * dilations[0] - pads[0]
            columns = np.arange(image.shape[3]) * strides[1] + tap_x * dilations[1] - pads[1]
            y, x = (
                (at >= 0) & (at < size) for at, size in zip((rows, columns), result.shape[2:], strict=True)
            )
            seen = image[:, :, y][:, :, :, x]
            products = _products(seen, weights[:, :, tap_y, tap_x], view.integer("group", 1))
            result[:, :, rows[y][:, None], columns[x]] += products
    if len(values) > 2 and values[2] is not None:
        result += values[2].reshape(-1, 1, 1)
    return SpecResult((result.astype(np.float32),))


def _products(seen: Array, taps: Array, groups: int) -> Array:
    """``sum over channels`` of images ``[batch, in, y, x]`` by one tap ``[in, out / group]``, by group."""
    batch, channels, *size = seen.shape
    deep, wide = channels // groups, taps.shape[1]
    result = np.zeros((batch, groups * wide, *size), seen.dtype)
    for group in range(groups):
        own = slice(group * wide, (group + 1) * wide)
        for channel in range(group * deep, (group + 1) * deep):
            pixels, factors = seen[:, channel, None], taps[channel].reshape(-1, 1, 1)
            if seen.dtype == np.float32:
                terms = np.broadcast_arrays(pixels, factors, result[:, own])
                result[:, own] = fused_multiply_add(*terms)
            else:
                result[:, own] += pixels * factors
    return result
