"""MAX_POOL_2D: the largest valid tap, then the fused activation's clamp."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import activation_range
from karat24.refimpl.spec.shared.requirements import operand
from karat24.refimpl.spec.tflite.pool_windows import check_pool, valid_taps

check_max_pool_2d = check_pool


def max_pool_2d(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """MAX_POOL_2D; the rule says how the clamp's bounds are quantized."""
    data, output = operand(values, 0), view.output()
    result = np.empty(output.shape, data.dtype)
    rows, columns = valid_taps(view)
    for out_y, ys in enumerate(rows):
        for out_x, xs in enumerate(columns):
            window = data[:, ys.start : ys.stop, xs.start : xs.stop, :]
            result[:, out_y, out_x, :] = window.max(axis=(1, 2))
    activation = view.text("fused_activation_function", "NONE")
    if activation != "NONE":
        low, high = activation_range(activation, output.scale, output.zero_point, output.dtype, rule.clamp)
        # The runtimes first take the minimum with the high bound, then the maximum with the low one.
        result = np.maximum(np.minimum(result.astype(np.int64), high), low).astype(data.dtype)
    return SpecResult((result,))
