"""CAST between element types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.profiles.rules import Method, Rule


def prepare_cast(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """CAST. Whatever NumPy and C agree on is NumPy's; from float to integer the rule says what
    becomes of values that do not fit, which C leaves open and processors answer differently."""
    source, result = DTYPES[view.input(0).dtype], DTYPES[view.output().dtype]
    if source.kind == "f" and result.kind in "iu":
        if rule.method not in ("exact", "saturating", "saturating_or_0"):
            raise UnsupportedOp(f"{view}: no kernel casts by {rule}")

        def to_integer(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
            outputs[0][...] = _integers(operand(inputs, 0), result, rule.method)

        return to_integer

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        with np.errstate(over="ignore"):
            outputs[0][...] = operand(inputs, 0).astype(result)

    return run


def _integers(values: Array, result: np.dtype[Any], method: Method) -> Array:
    """Toward zero. Out of range: the nearest bound (NaN: the upper one, or 0), or what x86 leaves,
    the lowest int32 or int64, of which a narrower type keeps the low bits."""
    saturating = method != "exact"
    wide = values.astype(np.float64)
    info = np.iinfo(result if saturating else np.int64 if result.itemsize == 8 else np.int32)
    low, high = int(info.min), int(info.max)
    # float64(high) may be high + 1; both lie outside what truncates into the range.
    inside = (wide > low - 1.0) & (wide < high + 1.0)
    whole = np.where(inside, wide, 0.0).astype(np.int64)
    outside = np.where(wide <= low, low, high) if saturating else np.full(wide.shape, low)
    if method == "saturating_or_0":
        outside = np.where(np.isnan(wide), 0, outside)
    return np.where(inside, whole, outside.astype(np.int64)).astype(result)
