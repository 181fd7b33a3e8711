"""Scales and zero points, which in ONNX are inputs of the node that uses them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.spec.shared.packed import PACKED
from karat24.refimpl.spec.shared.requirements import operand, require, require_dtype


@dataclass(frozen=True)
class Affine:
    """``real = scale * (q - zero_point)``: float32 (or float16) scales and int64 zero points, both ``[n]``
    with n = 1 per tensor and one per channel otherwise; ``low`` and ``high`` bound q."""

    scale: Array
    zero_point: Array
    low: int
    high: int

    @property
    def per_tensor(self) -> bool:
        """True when there is one scale."""
        return self.scale.size == 1

    def along(self, axis: int, rank: int) -> Affine:
        """These parameters, shaped to broadcast along ``axis`` of a tensor of ``rank`` dimensions."""
        shape = [1] * rank
        if not self.per_tensor:
            shape[axis] = -1
        return Affine(self.scale.reshape(shape), self.zero_point.reshape(shape), self.low, self.high)


def affine(
    view: LayerView,
    scale: int,
    zero_point: int,
    dtype: str,
    channels: int = 1,
    scale_types: tuple[str, ...] = ("float32",),
) -> Affine:
    """Parameters at inputs ``scale`` and ``zero_point`` (0 where left out) of values of type ``dtype``.

    One scale, or ``channels`` of them, of one of ``scale_types``. Raises ModelError when they do not
    fit, UnsupportedOp when the graph computes them.
    """
    scales = view.input(scale)
    require(view, dtype in QUANTIZED_RANGE, f"{dtype} is not a quantized type")
    if scales.dtype not in scale_types:
        raise UnsupportedOp(
            f"{view}: the scale {scales.name!r} is {scales.dtype}; {' and '.join(scale_types)} is implemented"
        )
    values = constant(view, scale).reshape(-1)
    require(
        view,
        len(scales.shape) <= 1 and values.size in (1, channels),
        f"{values.size} scales {scales.name!r} of shape {scales.shape} for {channels} channels",
    )
    positive = bool(np.isfinite(values).all() and (values > 0).all())
    require(view, positive, f"the scales {scales.name!r} are not all positive and finite")
    low, high = QUANTIZED_RANGE[dtype]
    zero_points = np.zeros(values.size, np.int64)
    given = view.optional_input(zero_point)
    if given is not None:
        require(
            view,
            given.dtype == dtype and given.shape in (scales.shape, (), (1,)),
            f"zero point {given.name!r} is {given.dtype} {given.shape} for {dtype} with {values.size} scales",
        )
        zero_points = np.broadcast_to(constant(view, zero_point).astype(np.int64).reshape(-1), values.shape)
    return Affine(values, zero_points, low, high)


def require_parameters(
    view: LayerView,
    scale: int,
    zero_point: int,
    dtype: str,
    channels: int = 1,
    scale_types: tuple[str, ...] = ("float32",),
) -> None:
    """As :func:`affine`, for parameters that the graph may compute: nothing is asked of their values.

    One scale or ``channels`` of them, of one of ``scale_types``; zero points as many, or one, of type
    ``dtype``.
    """
    scales, given = view.input(scale), view.optional_input(zero_point)
    if scales.data is not None and (given is None or given.data is not None) and dtype not in PACKED:
        affine(view, scale, zero_point, dtype, channels, scale_types)
        return
    require_dtype(view, scales, scale_types)
    shapes = ((), (1,), (channels,))
    require(view, scales.shape in shapes, f"scales {scales.name!r} of shape {scales.shape}")
    if given is not None:
        fits = given.dtype == dtype and given.shape in (scales.shape, (), (1,))
        require(view, fits, f"zero point {given.name!r} is {given.dtype} {given.shape} for {dtype} values")


def affine_of(view: LayerView, values: Values, scale: int, zero_point: int, dtype: str) -> Affine:
    """The parameters among a layer's values, scales as float32; :func:`require_parameters` has found them
    to fit. Four-bit values, which are only read, have no bounds here."""
    low, high = QUANTIZED_RANGE.get(dtype, (0, 0))
    scales = operand(values, scale).reshape(-1).astype(np.float32)
    zero_points = np.zeros(scales.size, np.int64)
    if view.optional_input(zero_point) is not None:
        given = operand(values, zero_point).astype(np.int64).reshape(-1)
        zero_points = np.broadcast_to(given, scales.shape)
    return Affine(scales, zero_points, low, high)


def constant(view: LayerView, position: int) -> Array:
    """The values of a constant input. Raises UnsupportedOp when the graph computes it."""
    tensor = view.input(position)
    if tensor.data is None:
        raise UnsupportedOp(
            f"{view}: input {position} ({tensor.name!r}) is computed by the graph; only constants are "
            "implemented, export the model with fixed shapes and static quantization"
        )
    return tensor.data
