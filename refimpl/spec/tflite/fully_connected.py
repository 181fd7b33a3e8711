"""FULLY_CONNECTED: ``acc[n, o] = bias[o] + sum over i of (input[n, i] - zp) * (filter[o, i] - zp)``."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_rank,
    require_shape,
)
from karat24.refimpl.spec.tflite.hybrid import hybrid, is_hybrid
from karat24.refimpl.spec.tflite.weights import finish, require_weighted, zero_point_removed


def check_fully_connected(view: LayerView) -> None:
    """Inputs: input of any rank, filter ``[O, I]`` with any zero point, computed or constant, optional bias
    ``[O]``.

    The input is read as rows of I values. The output is ``[rows, O]``, or with
    ``keep_num_dims`` the input's shape with its last size, then I, replaced by O.
    """
    require_arity(view, 2, optional=1)
    input_, filter_, output = view.input(0), view.input(1), view.output()
    require_rank(view, input_, 1, 8)
    require_rank(view, filter_, 2)
    weights_format = view.text("weights_format", "DEFAULT")
    if weights_format != "DEFAULT":
        raise UnsupportedOp(f"{view}: weights_format {weights_format!r} is not implemented, only DEFAULT is")
    require_weighted(view, input_, filter_, view.optional_input(2), channel_axis=0, any_filter=True)
    out_channels, in_channels = filter_.shape
    elements = math.prod(input_.shape)
    require(
        view,
        elements % in_channels == 0,
        f"{elements} input values are not whole rows of {in_channels}",
    )
    if view.flag("keep_num_dims"):
        require(
            view,
            input_.shape[-1] == in_channels,
            f"keep_num_dims with a last size of {input_.shape[-1]}; the filter takes {in_channels}",
        )
        require_shape(view, output, (*input_.shape[:-1], out_channels))
    else:
        require_shape(view, output, (elements // in_channels, out_channels))


def fully_connected(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """One matrix product, requantized; for float32 data scaled (``hybrid``)."""
    if is_hybrid(view):
        return hybrid(view, values, rule, _products)
    input_, filter_ = view.input(0), view.input(1)
    data = zero_point_removed(input_, operand(values, 0))
    products = _products(view, data, zero_point_removed(filter_, operand(values, 1)))
    return finish(view, input_, filter_, products, values[2] if len(values) > 2 else None, rule)


def _products(view: LayerView, data: Array, weights: Array) -> Array:
    return np.asarray((data.reshape(-1, weights.shape[1]) @ weights.T).reshape(view.output().shape))
