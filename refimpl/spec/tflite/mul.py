"""MUL: the product of two values without their zero points, requantized."""

from __future__ import annotations

import operator

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.profiles.tflite.broadcast import inner_loop
from karat24.refimpl.spec.shared.primitives import (
    effective_multiplier,
    in_blocks,
    multiply,
    multiply_gemmlowp,
    quantize_multiplier,
    wrap16,
)
from karat24.refimpl.spec.shared.scales import require_multiplier
from karat24.refimpl.spec.tflite.binary import (
    bounds,
    check_binary,
    is_plain,
    plain,
    stored,
    zero_points_removed,
)


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

    def by(method: Method) -> Array:
        if method == "sse":
            return np.clip(_sse(view, left * right, float(effective)), low, high)
        return multiply(method, left * right, effective, output.zero_point, low, high)

    return stored(view, in_blocks(rule, output.shape, by, run=inner_loop(view).run))


def _sse(view: LayerView, products: Array, effective: float) -> Array:
    """LiteRT's NEON body: the product is rounded as by gemmlowp and narrowed to int16; then the zero point is
    added modulo 2^16.

    The narrowing saturates, except for a uint8 tensor times a single value, where it wraps.
    """
    scaled = multiply_gemmlowp(products, *quantize_multiplier(effective))
    wraps = view.output().dtype == "uint8" and inner_loop(view).kind == "scalar"
    narrow = wrap16(scaled) if wraps else np.clip(scaled, -(2**15), 2**15 - 1)
    return wrap16(narrow + view.output().zero_point)
