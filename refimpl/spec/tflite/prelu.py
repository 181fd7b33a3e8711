"""PRELU: ``x`` above zero, ``alpha * x`` below; ``alpha`` is a tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import effective_multiplier, requantize
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    broadcast_shape,
    operand,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_same_dtype,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_multiplier

MAX_BROADCAST_RANK = 4


def check_prelu(view: LayerView) -> None:
    """Inputs: data and alpha. Both and the output are int8, uint8 or int16; alpha of int16 data may be int8.

    Alpha broadcasts to the data's shape.
    """
    require_arity(view, 2)
    data, alpha, output = view.input(0), view.input(1), view.output()
    require_dtype(view, data, QUANTIZED)
    require_same_dtype(view, data, output)
    if (data.dtype, alpha.dtype) != ("int16", "int8"):
        require_same_dtype(view, data, alpha)
    require_elements(view, data)
    require_shape(view, data, broadcast_shape(view, data, alpha))
    require_shape(view, output, data.shape)
    if data.shape != alpha.shape and len(data.shape) > MAX_BROADCAST_RANK:
        raise UnsupportedOp(
            f"{view}: alpha {alpha.shape} is broadcast over {len(data.shape)} dimensions; "
            f"at most {MAX_BROADCAST_RANK} are implemented"
        )
    require_quantized(view, data, alpha, output)
    require_symmetric(view, data, alpha, output)
    require_multiplier(view, data.scale / output.scale, "s_in / s_out")
    require_multiplier(view, data.scale * alpha.scale / output.scale, "s_in * s_alpha / s_out")


def prelu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``requantize(x)`` at and above zero, ``requantize(x * alpha)`` below.

    ``reads_int8``: LiteRT's kernel of int16 data reads alpha as int8 values, so that of an int16 alpha it
    reads the bytes of the first half, one after another.
    """
    data, alpha, output = view.input(0), view.input(1), view.output()
    slopes = operand(values, 1)
    if rule.method == "reads_int8":
        slopes = slopes.reshape(-1).astype("<i2").view(np.int8)[: slopes.size].reshape(slopes.shape)
        rule = replace(rule, method="gemmlowp")
    centred = operand(values, 0).astype(np.int64) - data.zero_point
    product = centred * (slopes.astype(np.int64) - alpha.zero_point)
    above = effective_multiplier(rule.multiplier, data.scale, 1.0, output.scale)
    below = effective_multiplier(rule.multiplier, data.scale, alpha.scale, output.scale)
    low, high = QUANTIZED_RANGE[output.dtype]
    result = np.where(
        centred >= 0,
        requantize(centred, above, rule, output.zero_point, low, high),
        requantize(product, below, rule, output.zero_point, low, high),
    )
    return SpecResult((result.astype(DTYPES[output.dtype]),))
