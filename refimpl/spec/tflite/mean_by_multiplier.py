"""A mean whose division is a part of the float32 multiplier, as the Edge TPU's compiler writes it."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import effective_multiplier, requantize


def mean_by_multiplier(view: LayerView, total: Array, count: int, rule: Rule) -> Array:
    """The mean of ``count`` stored values whose sums are ``total``, int64, requantized by the rule.

    ``rint((total - count * zero_point) * multiplier)`` plus the output's zero point; the multiplier is
    ``f32(f32(s_in * f32(1 / count)) * f32(1 / s_out))``.
    """
    data, output = view.input(0), view.output()
    share = np.float32(1) / np.float32(count)
    effective = effective_multiplier(rule.multiplier, data.scale, share, output.scale)
    centred = total - count * data.zero_point
    return requantize(centred, effective, rule, output.zero_point, *QUANTIZED_RANGE[output.dtype])
