"""L2_NORMALIZATION of each innermost row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import byte_values
from karat24.refimpl.kernels.jit.operands import buffer, byte_rows
from karat24.refimpl.kernels.rounding.fixed_point import gemmlowp, inverse_square_root
from karat24.refimpl.profiles.rules import Rule


def prepare_l2_normalization(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """L2_NORMALIZATION: 128 * (x - z) / sqrt(sum of squares), the root by Newton's method."""
    if rule.method != "fixed_point":
        raise UnsupportedOp(f"{view}: no kernel normalizes by {rule}")
    centred = byte_values(view.input(0).dtype) - view.input(0).zero_point
    signed = view.output().dtype == "int8"
    zero_point = view.output().zero_point

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        _l2_normalize(byte_rows(buffer(inputs, 0)), centred, signed, zero_point, byte_rows(outputs[0]))

    return run


@njit(cache=True, nogil=True)
def _l2_normalize(rows: Any, centred: Any, signed: bool, zero_point: int, out: Any) -> None:
    low, high = (-128, 127) if signed else (0, 255)
    for i in range(rows.shape[0]):
        row = rows[i]
        squares = 0
        for k in range(row.size):
            squares += centred[row[k]] * centred[row[k]]
        multiplier, shift = inverse_square_root(squares)
        for k in range(row.size):
            # The factor 128 goes into the shift (int8) or into the value (uint8).
            if signed:
                scaled = gemmlowp(centred[row[k]], multiplier, shift + 7)
            else:
                scaled = gemmlowp(centred[row[k]] * 128, multiplier, shift)
            out[i, k] = np.uint8(min(max(scaled + zero_point, low), high))
