"""What a layer must be for its form in a compiled file to be known: ranks, sizes, element types.

A source may be anything a .tflite can hold, a float model among them; whatever no pair shows is refused
here, by name, before any formula is applied to it.
"""

from __future__ import annotations

import math

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView, Tensor

EIGHT_BITS = ("int8", "uint8")

FILTER_RANK = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 2}
"""The ops with a filter that pairs show, and the rank of it."""


def require_images(view: LayerView) -> None:
    """Raises UnsupportedOp unless everything the layer reads and writes, constants aside, is 8-bit integers
    of one scale, with at least one value."""
    for tensor in (*view.inputs, *view.outputs):
        if tensor is None or tensor.is_constant:
            continue
        if tensor.dtype not in EIGHT_BITS:
            raise UnsupportedOp(f"{view}: {tensor.name!r} is {tensor.dtype}; the device computes with 8 bits")
        if tensor.quantization is None or tensor.quantization.per_channel:
            raise UnsupportedOp(
                f"{view}: {tensor.name!r} has no quantization parameters, or more than one pair"
            )
        if not math.prod(tensor.shape):
            raise UnsupportedOp(f"{view}: {tensor.name!r} of shape {tensor.shape} is empty")


def require_filter(view: LayerView) -> None:
    """Raises UnsupportedOp unless the filter is a constant of 8-bit integers, and filter and bias have the
    sizes that input and output ask for."""
    require_images(view)
    filter_, channels = view.input(1), last_size(view.output())
    axis = 3 if view.op == "DEPTHWISE_CONV_2D" else 0
    if filter_.data is None or filter_.dtype not in EIGHT_BITS or filter_.quantization is None:
        raise UnsupportedOp(f"{view}: its filter is no constant of 8-bit integers")
    if len(filter_.shape) != FILTER_RANK[view.op] or not math.prod(filter_.shape):
        raise UnsupportedOp(f"{view}: a filter of shape {filter_.shape}, which no pair shows")
    if view.op != "FULLY_CONNECTED" and not len(view.input(0).shape) == len(view.output().shape) == 4:
        raise UnsupportedOp(f"{view}: from {view.input(0).shape} to {view.output().shape}, no images")
    depth = filter_.shape[0] if axis else filter_.shape[-1]
    wanted = 1 if axis else last_size(view.input(0))
    if view.op == "FULLY_CONNECTED":
        wanted = depth if math.prod(view.input(0).shape) % depth == 0 else 0
    if filter_.shape[axis] != channels or depth != wanted:
        raise UnsupportedOp(
            f"{view}: a filter of shape {filter_.shape} from {view.input(0).shape} to {view.output().shape}, "
            "which no pair shows"
        )
    if filter_.quantization.per_channel and filter_.quantization.axis != axis:
        raise UnsupportedOp(f"{view}: its filter has scales along axis {filter_.quantization.axis}")
    bias = view.optional_input(2)
    if bias is not None and (bias.data is None or bias.dtype != "int32" or bias.shape != (channels,)):
        raise UnsupportedOp(f"{view}: its bias is {bias.dtype} {bias.shape}, no constant int32 ({channels},)")


def last_size(tensor: Tensor) -> int:
    """The size of the innermost dimension, 1 for a scalar."""
    return tensor.shape[-1] if tensor.shape else 1
