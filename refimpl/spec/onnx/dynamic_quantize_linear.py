"""DynamicQuantizeLinear: float32 values as uint8, with the scale and zero point that their range asks for.

Source: ONNX Runtime 1.31.1, ``GetQuantizationParameter`` in ``core/util/qmath.h``; the definition of the op
in onnx 1.23 and ``onnx.reference``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.arithmetic import quantize
from karat24.refimpl.spec.onnx.parameters import Affine
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require_arity,
    require_dtype,
    require_elements,
    require_shape,
)

LOW, HIGH = QUANTIZED_RANGE["uint8"]


def check_dynamic_quantize_linear(view: LayerView) -> None:
    """Input: float32 values. Outputs: uint8 values, their float32 scale and uint8 zero point."""
    require_arity(view, 1, outputs=3)
    data, (stored, scale, zero_point) = view.input(0), view.outputs
    for tensor, dtype in ((data, "float32"), (stored, "uint8"), (scale, "float32"), (zero_point, "uint8")):
        require_dtype(view, tensor, (dtype,))
    require_elements(view, data)
    require_shape(view, stored, data.shape)
    require_shape(view, scale, ())
    require_shape(view, zero_point, ())


def dynamic_quantize_linear(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """``scale = (high - low) / 255``, where both include 0; ``zero_point = rint(clip(-low / scale))``.

    All in float32. Values that are all 0 have the scale 1, by ``reference`` (onnx.reference) 1 / 255.
    """
    del view
    range_of_zeros = 1 if rule.method == "reference" else HIGH
    stored, parameters = quantized_to_its_range(operand(values, 0), range_of_zeros)
    zero_point = parameters.zero_point.astype(np.uint8).reshape(())
    return SpecResult((stored, parameters.scale.reshape(()), zero_point))


def quantized_to_its_range(data: Array, range_of_zeros: float = HIGH) -> tuple[Array, Affine]:
    """The values as uint8, and their parameters.

    ``range_of_zeros`` stands for the range of values that are all 0. Where the range is infinite, a zero
    point that is no number is 255. Which values a runtime takes for the range where some are no numbers
    depends on their positions; they are left out of it here.
    """
    low = np.minimum(np.fmin.reduce(data, axis=None), np.float32(0))
    high = np.maximum(np.fmax.reduce(data, axis=None), np.float32(0))
    with np.errstate(all="ignore"):
        scale = (np.float32(range_of_zeros) if low == high else high - low) / np.float32(HIGH - LOW)
        steps = np.float32(LOW) - low / scale
    zero_point = HIGH if np.isnan(steps) else int(np.rint(np.clip(steps, LOW, HIGH)))
    parameters = Affine(np.array([scale], np.float32), np.array([zero_point], np.int64), LOW, HIGH)
    return quantize(data, parameters).astype(np.uint8), parameters
