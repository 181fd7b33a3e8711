"""The numbers the Edge TPU's compiler derives from a model's scales and zero points.

All of it is float32 arithmetic in one fixed order. The order was found by measurement on public
pairs of a model and its compiled file; each formula below gives every bit of every such value.
The device computes with unsigned bytes, so an int8 tensor's zero point counts 128 more here.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.spec.tflite.rational_sum import operand_factors


def bits(value: object) -> int:
    """The 32 bits of a float32 value."""
    return int(np.asarray(value, np.float32).view(np.uint32))


def from_bits(pattern: int) -> float:
    """The float32 value with these 32 bits."""
    return float(np.uint32(pattern).view(np.float32))


def unsigned_zero_point(tensor: Tensor) -> int:
    """The zero point of the tensor's values as unsigned bytes."""
    return tensor.zero_point + (128 if tensor.dtype == "int8" else 0)


def reciprocal(tensor: Tensor) -> np.float32:
    """``1 / scale`` in float32: the compiler multiplies by it where one would divide."""
    return np.float32(1) / np.float32(tensor.scale)


def multipliers(view: LayerView) -> Array:
    """``(s_in * s_filter[channel]) * (1 / s_out)`` of a layer with a filter, float32 ``[scale]``.

    Raises UnsupportedOp for a filter without scales.
    """
    filter_ = view.input(1).quantization
    if filter_ is None:
        raise UnsupportedOp(f"{view}: its filter has no quantization parameters")
    products = np.float32(view.input(0).scale) * np.array(filter_.scale, np.float32)
    result: Array = products * reciprocal(view.output())
    return result


def pool_multiplier(view: LayerView, window: int) -> np.float32:
    """``(s_in * (1 / window)) * (1 / s_out)`` of an average over ``window`` pixels."""
    return np.float32(view.input(0).scale) * (np.float32(1) / np.float32(window)) * reciprocal(view.output())


def product_multiplier(view: LayerView) -> np.float32:
    """``(s_a * s_b) * (1 / s_out)`` of a product of two tensors."""
    return np.float32(view.input(0).scale) * np.float32(view.input(1).scale) * reciprocal(view.output())


def clamps(tensor: Tensor, activation: str) -> tuple[int, int]:
    """Bits of the lower and upper clamp of an output, before its zero point is added.

    The range in real numbers, cut by the activation, times ``1 / scale``.
    """
    zero_point, scale = unsigned_zero_point(tensor), np.float32(tensor.scale)
    low, high = scale * np.float32(-zero_point), scale * np.float32(255 - zero_point)
    floor, ceiling = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}.get(
        activation, (-np.inf, np.inf)
    )
    low, high = max(low, np.float32(floor)), min(high, np.float32(ceiling))
    # Adding 0 makes 0 of -0, which an unsigned output's lower end would otherwise be.
    return bits(low * reciprocal(tensor) + np.float32(0)), bits(high * reciprocal(tensor) + np.float32(0))


def addition_factors(first: Tensor, second: Tensor) -> tuple[int, int]:
    """The integers A and B an addition scales its operands by.

    A / B is the best rational approximation of ``s_first / s_second`` with neither above 32,767.
    """
    return operand_factors(first.scale, second.scale)


def addition_multiplier(operand: Tensor, factor: int, output: Tensor) -> np.float32:
    """``(s_operand / factor) * (1 / s_out)``; both operands give one value."""
    return np.float32(operand.scale) / np.float32(factor) * reciprocal(output)
