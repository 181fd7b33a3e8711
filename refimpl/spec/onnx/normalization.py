"""float32 normalizations over groups of values of one layer: Layer-, Instance- and GroupNormalization.

As in ``unspecified.py`` they are computed in float64 and rounded once, and never compared for equality.
Source: the definitions of onnx 1.23; ``SkipLayerNormalization`` and ``SimplifiedLayerNormalization``, which
is RMSNormalization, are ONNX Runtime's, 1.31.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.unspecified import require_float, rounded
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_elements,
    require_rank,
    require_shape,
    resolve_axis,
)

FLOAT32 = 1
"""ONNX's number of the type, in which ``stash_type`` asks for the mean and the variance."""


@dataclass(frozen=True)
class Normalization:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias``, mean and variance over ``count`` values.

    ``data`` is float64 ``[group, count]``; ``scale`` and ``bias`` broadcast to it. ``lost``, which
    broadcasts, is the most by which a runtime's data may differ from ``data``. ``centred`` is False where no
    mean is taken.
    """

    data: Array
    scale: Array
    bias: Array
    epsilon: float
    lost: Array = field(default_factory=lambda: np.zeros(()))
    centred: bool = True


def check_layer_normalization(view: LayerView) -> None:
    """Inputs: data, scale and optional bias shaped like its axes from ``axis`` (-1) on."""
    _check(view, 2, 1)
    if view.integer("stash_type", FLOAT32) != FLOAT32:
        raise UnsupportedOp(
            f"{view} takes its mean in element type {view.integer('stash_type')}, not float32"
        )
    axis = resolve_axis(view, view.integer("axis", -1), len(view.input(0).shape))
    for tensor in view.inputs[1:]:
        if tensor is not None:
            wanted = view.input(0).shape[axis:]
            fits = len(tensor.shape) <= len(wanted) and all(
                size in (1, real) for size, real in zip(tensor.shape[::-1], wanted[::-1], strict=False)
            )
            require(view, fits, f"{tensor.name!r} of shape {tensor.shape} for values of shape {wanted}")


def check_instance_normalization(view: LayerView) -> None:
    """Inputs: data ``[batch, channel, ...]``, scale and bias per channel."""
    _check(view, 3)
    require_rank(view, view.input(0), 3, 8)
    for tensor in (view.input(1), view.input(2)):
        require_shape(view, tensor, view.input(0).shape[1:2])


def check_group_normalization(view: LayerView) -> None:
    """As InstanceNormalization, channels in ``num_groups`` groups; below version 21 scales are per group."""
    _check(view, 3)
    require_rank(view, view.input(0), 3, 8)
    channels, groups = view.input(0).shape[1], view.integer("num_groups")
    fits = groups >= 1 and channels % groups == 0
    require(view, fits, f"{groups} groups of {channels} channels")
    for tensor in (view.input(1), view.input(2)):
        require_shape(view, tensor, (groups if view.layer.version < 21 else channels,))


def check_skip_layer_normalization(view: LayerView) -> None:
    """Inputs: two images of one shape, which are added, scale, optional bias of the result and of the sum."""
    _check(view, 3, 2)
    require_shape(view, view.input(1), view.input(0).shape)
    for tensor in view.inputs[2:]:
        if tensor is not None:
            require_shape(view, tensor, view.input(0).shape[-1:])


def _default_epsilon(view: LayerView) -> float:
    return 1e-12 if view.op.endswith("SkipLayerNormalization") else 1e-5


def _check(view: LayerView, inputs: int, optional: int = 0) -> None:
    if len(view.outputs) > 1:
        raise UnsupportedOp(f"{view} shows its mean, its deviation or its sum, too")
    require_arity(view, inputs, optional=optional)
    require_float(view)
    data: Tensor = view.input(0)
    require_rank(view, data, 1, 8)
    require_elements(view, data)
    require_shape(view, view.output(), data.shape)
    epsilon = view.real("epsilon", _default_epsilon(view))
    require(view, math.isfinite(epsilon) and epsilon >= 0, f"epsilon {epsilon}")


def normalization(view: LayerView, values: Values) -> Normalization:
    """What the layer normalizes."""
    data = operand(values, 0).astype(np.float64)
    if view.op in ("InstanceNormalization", "GroupNormalization"):
        return _over_channels(view, values, data)
    position, lost = 1, np.zeros(())
    if view.op.endswith("SkipLayerNormalization"):
        data, lost, position = *_sum(values), 2
    simplified = view.op in ("RMSNormalization", "SimplifiedLayerNormalization")
    first = resolve_axis(view, view.integer("axis", -1), data.ndim)
    shape = (-1, math.prod(data.shape[first:]))
    scale, bias = (
        _row(values, place, data.shape[first:], missing)
        for place, missing in ((position, 1), (position + 1, 0))
    )
    lost = np.broadcast_to(lost, data.shape).reshape(shape)
    return Normalization(data.reshape(shape), scale, bias, _epsilon(view), lost, not simplified)


def _sum(values: Values) -> tuple[Array, Array]:
    """Both images and the bias of the sum, and what adding them in float32 may lose."""
    parts = [operand(values, 0), operand(values, 1)]
    if len(values) > 4 and values[4] is not None:
        parts.append(np.broadcast_to(values[4], parts[0].shape))
    wide = [part.astype(np.float64) for part in parts]
    magnitude = sum((np.abs(part) for part in wide), np.zeros(wide[0].shape))
    return sum(wide[1:], wide[0]), magnitude * (len(parts) - 1) * 2.0**-23


def _row(values: Values, position: int, shape: tuple[int, ...], missing: int) -> Array:
    """A scale or bias, which broadcasts to the axes normalized, as ``[1, count]``."""
    given = values[position] if position < len(values) else None
    row = np.full((), missing) if given is None else given
    return np.broadcast_to(row.astype(np.float64), shape).reshape(1, -1)


def _over_channels(view: LayerView, values: Values, data: Array) -> Normalization:
    """``[batch * group, channels of a group * pixels]``."""
    batch, channels = data.shape[:2]
    groups = view.integer("num_groups") if view.op == "GroupNormalization" else channels
    pixels = math.prod(data.shape[2:])

    def row(position: int) -> Array:
        each = operand(values, position).astype(np.float64)
        each = np.repeat(each, channels // each.size)
        return np.tile(np.repeat(each, pixels).reshape(groups, -1), (batch, 1))

    return Normalization(data.reshape(batch * groups, -1), row(1), row(2), _epsilon(view))


def _epsilon(view: LayerView) -> float:
    return float(np.float32(view.real("epsilon", _default_epsilon(view))))


def normalize(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """Any of these normalizations."""
    given = normalization(view, values)
    with np.errstate(all="ignore"):
        mean = given.data.mean(axis=1, keepdims=True) if given.centred else 0.0
        centred = given.data - mean
        variance = (centred**2).mean(axis=1, keepdims=True)
        result = centred / np.sqrt(variance + given.epsilon) * given.scale + given.bias
        return rounded(result.reshape(view.output().shape))
