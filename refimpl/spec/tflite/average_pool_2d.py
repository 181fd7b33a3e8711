"""AVERAGE_POOL_2D: the mean of the valid taps, rounded half away from zero, then clamped."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import activation_range
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.tflite.mean_by_multiplier import mean_by_multiplier
from karat24.refimpl.spec.tflite.pool_windows import check_pool, valid_taps

check_average_pool_2d = check_pool


def average_pool_2d(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """AVERAGE_POOL_2D.

    ``(sum + n // 2) / n`` for a positive sum, ``(sum - n // 2) / n`` otherwise, the
    division truncating, of the stored values: the zero point stays in.

    For the rule ``float32_half_even`` see :func:`mean_by_multiplier`.
    """
    data, output = operand(values, 0).astype(np.int64), view.output()
    result = np.empty(output.shape, np.int64)
    rows, columns = valid_taps(view)
    for out_y, ys in enumerate(rows):
        for out_x, xs in enumerate(columns):
            total = data[:, ys.start : ys.stop, xs.start : xs.stop, :].sum(axis=(1, 2))
            count = len(ys) * len(xs)
            if rule.method == "float32_half_even":
                result[:, out_y, out_x, :] = mean_by_multiplier(view, total, count, rule)
                continue
            magnitude = (np.abs(total) + count // 2) // count
            result[:, out_y, out_x, :] = np.where(total > 0, magnitude, -magnitude)
    activation = view.text("fused_activation_function", "NONE")
    if activation != "NONE":
        low, high = activation_range(activation, output.scale, output.zero_point, output.dtype, rule.clamp)
        result = np.maximum(np.minimum(result, high), low)
    return SpecResult((result.astype(operand(values, 0).dtype),))
