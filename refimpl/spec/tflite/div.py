"""DIV, and FLOOR_DIV and FLOOR_MOD of int32."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import ACTIVATION_BOUNDS, wrap32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    broadcast_shape,
    operand,
    require,
    require_activation,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_same_dtype,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_bounds
from karat24.refimpl.spec.tflite.binary import plain
from karat24.refimpl.spec.tflite.quantized_div import quantized_div, require_quotient


def check_div(view: LayerView) -> None:
    """Two inputs, broadcast, of float32, int32, int8, uint8 or int16. Attribute
    ``fused_activation_function``. No value of a constant divisor may stand for 0."""
    _check_pair(view, "float32", "int32", *QUANTIZED)
    activation = require_activation(view, ACTIVATION_BOUNDS)
    divisor, output = view.input(1), view.output()
    if output.dtype == "float32":
        return
    require_elements(view, output)
    if output.dtype in QUANTIZED:
        require_quantized(view, view.input(0), divisor, output)
        require_symmetric(view, view.input(0), divisor, output)
        require_bounds(view, activation, output)
        require_quotient(view)
    if divisor.data is not None:
        zero = divisor.zero_point if output.dtype in QUANTIZED else 0
        require(view, bool(np.all(divisor.data != zero)), "division by 0")


def div(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """The quotient; of int32 rounded toward zero.

    Raises ModelError for an integer divisor of 0, and for -2^31 over -1, which ends the runtime's process.
    """
    if view.output().dtype == "float32":
        return plain(view, values, np.divide)
    if view.output().dtype in QUANTIZED:
        return quantized_div(view, values, rule)
    left, right = _integers(view, values)
    require(view, not np.any((left == -(2**31)) & (right == -1)), "-2^31 is divided by -1")
    return plain(view, values, lambda a, b: np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


def check_floor_div(view: LayerView) -> None:
    """Two int32 inputs, broadcast; a constant divisor without zeros."""
    _check_pair(view, "int32")
    if view.input(1).data is not None:
        _check_divisor(view, view.input(1).data)


def floor_div(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - integers
    """Quotient rounded toward minus infinity. Raises ModelError for a divisor of 0."""
    left, right = _integers(view, values)
    return SpecResult((wrap32(left // right).astype(np.int32),))


def floor_mod(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - integers
    """The remainder of FLOOR_DIV, which has the divisor's sign. Raises ModelError for a divisor of 0."""
    left, right = _integers(view, values)
    return SpecResult((np.asarray(left % right, np.int32),))


def _check_pair(view: LayerView, *dtypes: str) -> None:
    require_arity(view, 2)
    left, right, output = view.input(0), view.input(1), view.output()
    require_dtype(view, output, dtypes)
    require_same_dtype(view, output, left, right)
    require_shape(view, output, broadcast_shape(view, left, right))


def _check_divisor(view: LayerView, divisor: Array | None) -> None:
    require(view, divisor is None or bool(np.all(divisor != 0)), "division by 0")


def _integers(view: LayerView, values: Values) -> tuple[Array, Array]:
    _check_divisor(view, operand(values, 1))
    return operand(values, 0).astype(np.int64), operand(values, 1).astype(np.int64)
