"""What LiteRT's XNNPACK delegate demands of single tensors; the ops' own conditions are in ``xnnpack``."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Tensor

MAX_RANK = 6
"""XNN_MAX_TENSOR_DIMS."""

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
"""Scales below it are refused."""


def is_float(*tensors: Tensor | None) -> bool:
    """All float32."""
    return all(tensor is not None and tensor.dtype == "float32" for tensor in tensors)


def is_quantized_8(*tensors: Tensor | None) -> bool:
    """int8 or uint8 with one scale, stored for dimension 0 (an axis of 3 is refused even for one scale)."""
    return all(
        tensor is not None
        and tensor.dtype in ("int8", "uint8")
        and tensor.quantization is not None
        and not tensor.quantization.per_channel
        and tensor.quantization.axis == 0
        for tensor in tensors
    )


def is_value(*tensors: Tensor | None) -> bool:
    """Each float32, or quantized to eight bits per tensor."""
    return all(is_float(tensor) or is_quantized_8(tensor) for tensor in tensors)


def has_shape(tensor: Tensor, least: int = 0, most: int = MAX_RANK) -> bool:
    """A rank within bounds, and no empty dimension."""
    return least <= len(tensor.shape) <= most and 0 not in tensor.shape


def is_index_list(tensor: Tensor | None, *dtypes: str) -> bool:
    """A constant vector of indices, int32 unless said otherwise."""
    return (
        tensor is not None
        and tensor.is_constant
        and len(tensor.shape) == 1
        and tensor.dtype in (dtypes or ("int32",))
    )


def same_dtype(*tensors: Tensor) -> bool:
    """One element type."""
    return len({tensor.dtype for tensor in tensors}) == 1


def same_parameters(left: Tensor, right: Tensor) -> bool:
    """One scale and zero point; float tensors have none to differ."""
    if is_float(left, right):
        return True
    return left.scale == right.scale and left.zero_point == right.zero_point


def integers(tensor: Tensor) -> list[int]:
    """The values of a constant index tensor."""
    assert tensor.data is not None
    return [int(value) for value in tensor.data.reshape(-1)]


def ratio(numerator: float, denominator: float) -> float:
    """The float32 quotient of two float32 values."""
    with np.errstate(over="ignore"):
        return float(np.float32(numerator) / np.float32(denominator))


def product(left: float, right: float) -> float:
    """The float32 product of two float32 values."""
    with np.errstate(over="ignore"):
        return float(np.float32(left) * np.float32(right))


def is_filter(tensor: Tensor, axis: int) -> bool:
    """A constant filter, per tensor or per channel of ``axis``."""
    if not tensor.is_constant or tensor.dtype not in ("float32", "int8", "uint8"):
        return False
    if tensor.dtype == "float32":
        return True
    quantization = tensor.quantization
    if quantization is None or min(quantization.scale) < SMALLEST_NORMAL:
        return False
    if tensor.dtype == "uint8":
        return not quantization.per_channel and quantization.axis == 0
    return not quantization.per_channel or quantization.axis == axis


def is_int4_filter(tensor: Tensor) -> bool:
    """A constant int4 filter ``[O, I]``, per tensor or per channel of axis 0."""
    quantization = tensor.quantization
    if not tensor.is_constant or tensor.dtype != "int4" or quantization is None:
        return False
    return quantization.axis == 0 and min(quantization.scale) >= SMALLEST_NORMAL


def is_symmetric(tensor: Tensor) -> bool:
    """No zero point other than 0."""
    return tensor.quantization is None or not any(tensor.quantization.zero_point)


def is_bias(tensor: Tensor | None) -> bool:
    """A constant bias: float32, or int32 that carries its scale."""
    if tensor is None or not tensor.is_constant:
        return False
    if tensor.dtype == "float32":
        return True
    quantization = tensor.quantization
    if tensor.dtype != "int32" or quantization is None or quantization.axis != 0:
        return False
    if min(quantization.scale) < SMALLEST_NORMAL:
        return False
    return quantization.per_channel or quantization.zero_point[0] == 0
