"""What a check demands of a layer, one phrase per demand.

Every function raises :class:`ModelError` (or :class:`UnsupportedOp` for what is
well formed but not implemented) naming the layer, what was found and what was
expected. After a check has passed, kernels index with raw pointers: each demand
is an equality or a bounded range, never a plausibility.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.errors import ModelError, UnsupportedOp, WrongShape
from karat24.refimpl.graph import Array, LayerView, Tensor

QUANTIZED_8 = ("int8", "uint8")
QUANTIZED = (*QUANTIZED_8, "int16")
INDEX = ("int32", "int64")

MAX_TAPS = 2**16
"""Taps of a float32 pool; padding costs a file nothing, so that windows may be of any size."""

MAX_RANK = 8
"""More dimensions than any op of the runtimes judged here handles."""


def require(view: LayerView, condition: bool, message: str) -> None:
    """Raises ModelError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ModelError(f"{view}: {message}")


def require_arity(view: LayerView, inputs: int, outputs: int = 1, optional: int = 0) -> None:
    """Exactly ``outputs`` outputs, ``inputs`` inputs that are present, at most ``optional`` more."""
    found = len(view.inputs)
    if not inputs <= found <= inputs + optional:
        wanted = str(inputs) if not optional else f"{inputs} to {inputs + optional}"
        raise ModelError(f"{view} has {found} inputs, the op takes {wanted}")
    for position in range(inputs):
        view.input(position)
    if len(view.outputs) != outputs:
        raise ModelError(f"{view} has {len(view.outputs)} outputs, the op gives {outputs}")
    for tensor in (*view.inputs, *view.outputs):
        if tensor is not None and len(tensor.shape) > MAX_RANK:
            raise UnsupportedOp(
                f"{view}: tensor {tensor.index} ({tensor.name!r}) has {len(tensor.shape)} dimensions; "
                f"karat24 implements at most {MAX_RANK}"
            )


def require_dtype(view: LayerView, tensor: Tensor, allowed: Iterable[str]) -> None:
    """The tensor's element type is implemented; UnsupportedOp otherwise."""
    allowed = tuple(allowed)
    if tensor.dtype not in allowed:
        raise UnsupportedOp(
            f"{view}: tensor {tensor.index} ({tensor.name!r}) is {tensor.dtype}; "
            f"karat24 implements {', '.join(allowed)}"
        )


def require_same_dtype(view: LayerView, *tensors: Tensor) -> None:
    """All tensors have the first one's element type."""
    for tensor in tensors[1:]:
        require(
            view,
            tensor.dtype == tensors[0].dtype,
            f"tensor {tensor.index} ({tensor.name!r}) is {tensor.dtype}, "
            f"tensor {tensors[0].index} ({tensors[0].name!r}) is {tensors[0].dtype}; they must agree",
        )


def require_shape(view: LayerView, tensor: Tensor, shape: Iterable[int]) -> None:
    """The tensor has exactly the shape the op computes for it; WrongShape otherwise."""
    shape = tuple(int(size) for size in shape)
    if tensor.shape != shape:
        raise WrongShape(
            f"{view}: tensor {tensor.index} ({tensor.name!r}) has shape {tensor.shape}, "
            f"the op computes {shape}",
            tensor.index,
            shape,
        )


def require_rank(view: LayerView, tensor: Tensor, low: int, high: int | None = None) -> None:
    """The tensor has ``low`` to ``high`` (default ``low``) dimensions."""
    high = low if high is None else high
    wanted = str(low) if low == high else f"{low} to {high}"
    require(
        view,
        low <= len(tensor.shape) <= high,
        f"tensor {tensor.index} ({tensor.name!r}) has shape {tensor.shape}; {wanted} dimensions are needed",
    )


def require_taps(view: LayerView, *sizes: int) -> None:
    """A float window small enough to be summed tap by tap; UnsupportedOp otherwise."""
    if math.prod(sizes) > MAX_TAPS:
        raise UnsupportedOp(f"{view}: a window of {sizes} has more than {MAX_TAPS} taps")


def require_elements(view: LayerView, tensor: Tensor) -> None:
    """The tensor is not empty."""
    require(
        view,
        0 not in tensor.shape,
        f"tensor {tensor.index} ({tensor.name!r}) of shape {tensor.shape} is empty",
    )


def require_same_quantization(view: LayerView, left: Tensor, right: Tensor) -> None:
    """Both tensors have the same per-tensor parameters, or none: what a copy needs to mean anything."""
    for tensor in (left, right):
        require(
            view,
            tensor.quantization is None or not tensor.quantization.per_channel,
            f"tensor {tensor.index} ({tensor.name!r}) is quantized per channel; one scale is needed",
        )
    require(
        view,
        _parameters(left) == _parameters(right),
        f"tensors {left.index} ({left.name!r}) and {right.index} ({right.name!r}) must share one scale "
        f"and zero point; found {_parameters(left)} and {_parameters(right)}",
    )


def require_quantized(view: LayerView, *tensors: Tensor) -> None:
    """Each tensor has one scale and one zero point."""
    for tensor in tensors:
        try:
            _ = tensor.scale, tensor.zero_point
        except ModelError as error:
            raise ModelError(f"{view}: {error}") from None


def require_symmetric(view: LayerView, *tensors: Tensor) -> None:
    """The zero points of int16 tensors are 0; UnsupportedOp otherwise, as the runtimes refuse them."""
    for tensor in tensors:
        if tensor.dtype == "int16" and tensor.zero_point != 0:
            raise UnsupportedOp(
                f"{view}: tensor {tensor.index} ({tensor.name!r}) is int16 with zero point "
                f"{tensor.zero_point}; the runtimes take 0 only"
            )


def _parameters(tensor: Tensor) -> tuple[float, int] | None:
    if tensor.quantization is None:
        return None
    return tensor.quantization.scale[0], tensor.quantization.zero_point[0]


def constant_integers(
    view: LayerView, position: int, what: str, shape: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Values, flattened, of the integers known at input ``position``, called ``what`` in messages.

    ``shape`` is the shape it must have; without it, any shape of rank 0 or 1.
    Raises UnsupportedOp when the values are computed instead of stored: the
    op's output shape or addressing depends on them.
    """
    tensor = view.input(position)
    require(
        view,
        tensor.dtype in INDEX,
        f"{what} (tensor {tensor.index}, {tensor.name!r}) is {tensor.dtype}, not int32 or int64",
    )
    if tensor.known is None:
        raise UnsupportedOp(
            f"{view}: {what} (tensor {tensor.index}, {tensor.name!r}) is computed by the graph; "
            "karat24 implements constants only, export the model with fixed shapes"
        )
    if shape is None:
        require_rank(view, tensor, 0, 1)
    else:
        require(
            view,
            tensor.shape == shape,
            f"{what} (tensor {tensor.index}, {tensor.name!r}) has shape {tensor.shape}, not {shape}",
        )
    return tuple(int(value) for value in np.asarray(tensor.known).reshape(-1))


def resolve_axis(view: LayerView, axis: int, rank: int) -> int:
    """``axis`` counted from the front. Raises ModelError outside ``-rank .. rank - 1``."""
    require(view, -rank <= axis < rank, f"axis {axis} of a tensor with {rank} dimensions")
    return axis % rank


def require_activation(view: LayerView, allowed: Iterable[str]) -> str:
    """The fused activation's name, one of ``allowed``."""
    name = view.text("fused_activation_function", "NONE")
    allowed = tuple(allowed)
    if name not in allowed:
        raise UnsupportedOp(
            f"{view}: karat24 does not implement the fused activation {name!r}; it knows {', '.join(allowed)}"
        )
    return name


def broadcast_shape(view: LayerView, left: Tensor, right: Tensor) -> tuple[int, ...]:
    """NumPy's broadcast of two tensors' shapes. Raises ModelError when they do not fit."""
    return broadcast(view, left.shape, right.shape)


def broadcast(view: LayerView, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcast of two shapes. Raises ModelError when they do not fit."""
    try:
        return tuple(np.broadcast_shapes(left, right))
    except ValueError:
        raise ModelError(f"{view}: shapes {left} and {right} do not broadcast together") from None


def operand(values: Values, position: int) -> Array:
    """The value of an input the check has found to be present."""
    value = values[position]
    if value is None:
        raise ModelError(f"no value for input {position}; was the layer checked?")
    return value
