"""RELU, RELU6 and RELU_N1_TO_1 as layers of their own."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    ACTIVATION_BOUNDS,
    activation_range,
    effective_multiplier,
    requantize,
)
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    operand,
    require_arity,
    require_dtype,
    require_quantized,
    require_same_dtype,
    require_same_quantization,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.shared.scales import require_bounds, require_multiplier


def check_relu(view: LayerView) -> None:
    """One int8, uint8, int16 or float32 input; an output of the same type and shape."""
    require_arity(view, 1)
    input_, output = view.input(0), view.output()
    require_dtype(view, input_, (*QUANTIZED, "float32"))
    require_same_dtype(view, input_, output)
    require_shape(view, output, input_.shape)
    if input_.dtype != "float32":
        require_quantized(view, input_, output)
        require_symmetric(view, input_, output)
        require_multiplier(view, input_.scale / output.scale, "s_in / s_out")
        require_bounds(view, view.op, output)


def relu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Requantizes to the output's scale, then clamps to the quantized bounds.

    ``exact`` only clamps: input and output then share their parameters.
    """
    input_, output = view.input(0), view.output()
    data = operand(values, 0)
    if output.dtype == "float32":
        low_real, high_real = ACTIVATION_BOUNDS[view.op]
        return SpecResult((np.clip(data, np.float32(low_real), np.float32(high_real)),))
    low, high = activation_range(view.op, output.scale, output.zero_point, output.dtype, rule.clamp)
    if rule.method == "exact":
        require_same_quantization(view, input_, output)
        result = np.clip(data.astype(np.int64), low, high)
    else:
        centred = data.astype(np.int64) - input_.zero_point
        effective = effective_multiplier(rule.multiplier, input_.scale, 1.0, output.scale)
        result = requantize(centred, effective, rule, output.zero_point, low, high)
    return SpecResult((result.astype(DTYPES[output.dtype]),))
