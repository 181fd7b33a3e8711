"""DynamicQuantizeLinear: float32 values as uint8, with the scale and zero point that their range asks for.

Source: ONNX Runtime 1.31.1, ``GetQuantizationParameter`` in ``core/util/qmath.h``, and MLAS's
``MlasReduceMinimumMaximumF32KernelAvx``; 1.32.0, run on 64-bit Arm; the definition of the op in onnx 1.23 and
``onnx.reference``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import OF_ARM, Rule
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
    stored, parameters = quantized_to_its_range(
        operand(values, 0), rule.method == "reference", rule.overflow in OF_ARM
    )
    zero_point = parameters.zero_point.astype(np.uint8).reshape(())
    return SpecResult((stored, parameters.scale.reshape(()), zero_point))


def _extremes(data: Array) -> tuple[Array, Array]:
    """The least and the greatest value, as x86-64's AVX instructions find them where some are NaN."""
    most = np.finfo(np.float32).max
    return _reduced(data, _lesser, most), _reduced(data, _greater, -most)


def _extremes_on_arm(data: Array) -> tuple[Array, Array]:
    """The same on 64-bit Arm: four values at once, of which one that is no number stays, and the rest one by
    one, which is passed over where it is no number."""
    most, fours = np.finfo(np.float32).max, data.size // 4 * 4
    low, high = data[:fours].min(initial=most), data[:fours].max(initial=-most)
    for value in data[fours:]:
        low, high = np.where(value < low, value, low), np.where(high < value, value, high)
    return low, high


def _lesser(left: Array, right: Array) -> Array:
    """MINPS: the second operand unless the first is less, so also where one of the two is NaN."""
    return np.where(left < right, left, right)


def _greater(left: Array, right: Array) -> Array:
    """MAXPS."""
    return np.where(left > right, left, right)


def _reduced(data: Array, extreme: Callable[[Array, Array], Array], first: np.float32) -> Array:
    """All values by ``extreme``, which is not commutative: in four registers of eight values, in one, and
    the rest one by one."""
    registers = np.full((4, 8), first, np.float32)
    position = 0
    for position in range(32, data.size + 1, 32):
        registers = extreme(registers, data[position - 32 : position].reshape(4, 8))
    pairs = extreme(registers[0], registers[1]), extreme(registers[2], registers[3])
    values = extreme(*pairs)
    while position + 8 <= data.size:
        values = extreme(values, data[position : position + 8])
        position += 8
    while values.size > 1:
        values = extreme(values[: values.size // 2], values[values.size // 2 :])
    found = values.reshape(())
    for value in data[position:]:
        found = extreme(value, found)
    return found


def quantized_to_its_range(
    data: Array, by_reference: bool = False, on_arm: bool = False
) -> tuple[Array, Affine]:
    """The values as uint8, and their parameters; as onnx.reference computes them, or ONNX Runtime.

    Where the range is infinite or NaN, a zero point that is NaN is 255.
    """
    flat = data.reshape(-1)
    if by_reference or not np.isnan(flat).any():
        low, high = flat.min(), flat.max()
    else:
        low, high = _extremes_on_arm(flat) if on_arm else _extremes(flat)
    low, high = np.where(low > 0, np.float32(0), low), np.where(high < 0, np.float32(0), high)
    range_of_zeros = 1 if by_reference else HIGH
    with np.errstate(all="ignore"):
        scale = (np.float32(range_of_zeros) if low == high else high - low) / np.float32(HIGH - LOW)
        steps = np.float32(LOW) - low / scale
    zero_point = HIGH if np.isnan(steps) else int(np.rint(np.clip(steps, LOW, HIGH)))
    parameters = Affine(np.array([scale], np.float32), np.array([zero_point], np.int64), LOW, HIGH)
    return quantize(data, parameters).astype(np.uint8), parameters
