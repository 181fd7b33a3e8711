"""Ops on int8 and uint8 by a table of all 256 inputs, which is computed in floating point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import round_half_away, to_int32
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_same_dtype,
    require_shape,
)

LARGEST = 2.0**127
"""float64 values below this stay finite when they are rounded to float32."""

Function = Callable[[np.float32], np.float32]


def check_table(view: LayerView, dtypes: tuple[str, ...] = QUANTIZED_8) -> None:
    """One 8-bit input; the output has its shape, and any parameters with which all values are finite."""
    require_arity(view, 1)
    data, output = view.input(0), view.output()
    require_dtype(view, output, dtypes)
    require_same_dtype(view, data, output)
    require_quantized(view, data, output)
    require_shape(view, output, data.shape)
    if 255 * data.scale >= LARGEST or 1 / output.scale >= LARGEST:
        raise UnsupportedOp(
            f"{view}: input scale {data.scale:.6g} and output scale {output.scale:.6g} make infinite values, "
            "for which no runtime defines an integer; check the scales"
        )


def look_up(view: LayerView, values: Values, rule: Rule, function: Function) -> SpecResult:
    """Each stored value through the table of ``function``; only the entries that occur are computed."""
    data = operand(values, 0)
    stored, place = np.unique(data, return_inverse=True)
    entries = np.array([_entry(view, rule, function, int(q)) for q in stored], data.dtype)
    return SpecResult((entries[place].reshape(data.shape),))


def _entry(view: LayerView, rule: Rule, function: Function, q: int) -> int:
    """The output for the stored input value ``q``. TFLite's table adds ``zero_point`` after rounding,
    XNNPACK's before; ``rule.overflow`` says what steps beyond int32 become."""
    source, output = view.input(0), view.output()
    real = function(np.float32(source.scale) * np.float32(q - source.zero_point))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Array = np.asarray(real * (np.float32(1.0) / np.float32(output.scale)))
    if rule.method == "xnnpack":
        stored = np.rint(scaled + np.float32(output.zero_point))
    elif rule.method != "float_table":
        raise ModelError(f"{view}: a table by {rule.method!r} is not defined")
    elif rule.overflow == "wraps":
        stored = to_int32(round_half_away(scaled)) + output.zero_point
    else:
        stored = round_half_away(scaled) + np.float32(output.zero_point)
    low, high = QUANTIZED_RANGE[output.dtype]
    return int(np.clip(stored, low, high))
