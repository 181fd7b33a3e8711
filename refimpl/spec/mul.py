"""MUL: the product of two values without their zero points, requantized."""

from __future__ import annotations

import operator

import numpy as np

from refimpl.contract import SpecResult, Values
from refimpl.graph import LayerView
from refimpl.profiles.rules import Rule
from refimpl.spec.binary import bounds, check_binary, is_plain, plain, stored, zero_points_removed
from refimpl.spec.primitives import effective_multiplier, requantize
from refimpl.spec.scales import require_multiplier


def check_mul(view: LayerView) -> None:
    """See :func:`check_binary`; the multiplier ``s_left * s_right / s_out`` must be a defined one."""
    check_binary(view)
    if not is_plain(view):
        left, right, output = view.input(0).scale, view.input(1).scale, view.output().scale
        require_multiplier(view, left * right / output, "s_left * s_right / s_out")


def mul(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``left * right``."""
    if is_plain(view):
        return plain(view, values, operator.mul)
    left, right = zero_points_removed(view, values)
    output = view.output()
    effective = effective_multiplier(
        rule.multiplier, view.input(0).scale, np.float32(view.input(1).scale), output.scale
    )
    low, high = bounds(view, rule)
    return stored(view, requantize(left * right, effective, rule, output.zero_point, low, high))
