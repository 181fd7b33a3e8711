"""float32 functions whose last bits belong to a library: exponentials, logarithms, Softmax, normalization.

As in ``unspecified.py`` they are computed in float64 and rounded once, and never compared for equality.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.unspecified import require_float, rounded
from karat24.refimpl.spec.shared.requirements import (
    broadcast_shape,
    operand,
    require,
    require_arity,
    require_rank,
    require_shape,
    resolve_axis,
)

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _elu(view: LayerView, x: Array) -> Array:
    return np.where(x < 0, np.float32(view.real("alpha", 1.0)) * np.expm1(np.minimum(x, 0)), x)


def _gelu(view: LayerView, x: Array) -> Array:
    if view.text("approximate", "none") == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _quick_gelu(view: LayerView, x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-np.float32(view.real("alpha", 1.702)) * x)))


FUNCTIONS: dict[str, Callable[[LayerView, Array], Array]] = {
    "Elu": _elu,
    "Erf": lambda view, x: np.asarray(_erf(x)),  # noqa: ARG005
    "Exp": lambda view, x: np.exp(x),  # noqa: ARG005
    "Gelu": _gelu,
    "com.microsoft:Gelu": _gelu,
    "com.microsoft:QuickGelu": _quick_gelu,
    "Log": lambda view, x: np.log(x),  # noqa: ARG005
    "Softplus": lambda view, x: np.logaddexp(x, 0.0),  # noqa: ARG005
    "Tanh": lambda view, x: np.tanh(x),  # noqa: ARG005
}


def check_function(view: LayerView) -> None:
    """One input, an output of its shape."""
    require_arity(view, 1)
    require_float(view)
    require_shape(view, view.output(), view.input(0).shape)


def function(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """One of ``FUNCTIONS``."""
    with np.errstate(all="ignore"):
        return rounded(FUNCTIONS[view.op](view, operand(values, 0).astype(np.float64)))


def check_biased(view: LayerView) -> None:
    """BiasGelu and FastGelu: data and a bias along its last axis, which FastGelu may leave out."""
    fast = view.op.endswith("FastGelu")
    require_arity(view, 1 if fast else 2, optional=int(fast))
    require_float(view)
    require_shape(view, view.output(), view.input(0).shape)
    bias = view.optional_input(1)
    if bias is not None:
        require_shape(view, bias, view.input(0).shape[-1:])


def biased(values: Values) -> Array:
    """What such a layer takes the function of: a float32 sum."""
    bias = values[1] if len(values) > 1 else None
    return operand(values, 0) if bias is None else np.asarray(operand(values, 0) + bias)


def biased_gelu(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """``x / 2 (1 + erf(x / sqrt 2))``, FastGelu with tanh, of data plus bias."""
    x = biased(values).astype(np.float64)
    if view.op.endswith("FastGelu"):
        return rounded(np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))))
    return rounded(np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2)))))


def check_pow(view: LayerView) -> None:
    """Two broadcasting inputs."""
    require_arity(view, 2)
    require_float(view)
    require_shape(view, view.output(), broadcast_shape(view, view.input(0), view.input(1)))


def pow_(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """Pow."""
    with np.errstate(all="ignore"):
        return rounded(np.power(operand(values, 0).astype(np.float64), operand(values, 1)))


def check_softmax(view: LayerView) -> None:
    """One input, an output of its shape; attribute ``axis`` (-1)."""
    check_function(view)
    resolve_axis(view, view.integer("axis", -1), len(view.input(0).shape))


def softmax(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """``exp(x - max) / sum`` along one axis."""
    data, axis = operand(values, 0).astype(np.float64), view.integer("axis", -1)
    with np.errstate(all="ignore"):
        exponentials = np.exp(data - data.max(axis=axis, keepdims=True))
        return rounded(exponentials / exponentials.sum(axis=axis, keepdims=True))


def check_batch_normalization(view: LayerView) -> None:
    """Inputs: data ``[batch, channel, ...]``, and scale, bias, mean and variance per channel."""
    require_arity(view, 5)
    require_float(view)
    if view.integer("training_mode", 0):
        raise UnsupportedOp(f"{view} is in training mode")
    require_rank(view, view.input(0), 2, 8)
    require_shape(view, view.output(), view.input(0).shape)
    for position in range(1, 5):
        tensor = view.input(position)
        fits = tensor.shape == view.input(0).shape[1:2]
        require(view, fits, f"{tensor.name!r} of shape {tensor.shape} for {view.input(0).shape[1]} channels")


def batch_normalization(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias``."""
    data, *others = (operand(values, position).astype(np.float64) for position in range(5))
    shape = (-1, *[1] * (data.ndim - 2))
    scale, bias, mean, variance = (other.reshape(shape) for other in others)
    with np.errstate(all="ignore"):
        deviation = np.sqrt(variance + np.float32(view.real("epsilon", 1e-5)))
        return rounded((data - mean) / deviation * scale + bias)
