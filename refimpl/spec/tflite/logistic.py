"""LOGISTIC and TANH: of int8 and uint8 by a table of all 256 inputs, computed in floating point; of int16
by a table with interpolation, or in fixed point."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import QUANTIZED, operand, require_symmetric
from karat24.refimpl.spec.tflite.expf import expf
from karat24.refimpl.spec.tflite.float_table import check_table, look_up
from karat24.refimpl.spec.tflite.int16 import fixed_point, sigmoid
from karat24.refimpl.spec.tflite.rounded_tanhf import rounded_tanhf
from karat24.refimpl.spec.tflite.tanhf import tanhf


def check_logistic(view: LayerView) -> None:
    """One int8, uint8 or int16 input; the output has its shape and any parameters.

    int16 outputs are in steps of 2^-15, whatever their scale: runtimes refuse other scales.
    """
    check_table(view, QUANTIZED)
    require_symmetric(view, view.input(0), view.output())


check_tanh = check_logistic


def logistic(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """LOGISTIC. ``float_table``: ``1 / (1 + expf(-x))`` in float32; ``xnnpack``: in float64."""
    if view.output().dtype == "int16":
        return _of_int16(view, values, rule, sigmoid.logistic_by_table, fixed_point.logistic)
    return look_up(view, values, rule, _logistic_float64 if rule.method == "xnnpack" else _logistic_float32)


def tanh(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """TANH, by the C library's ``tanhf``, which ``rule.libm`` names.

    ``unspecified`` stands for an unknown library: results are rounded correctly and never compared.
    """
    if view.output().dtype == "int16":
        return _of_int16(view, values, rule, sigmoid.tanh_by_table, fixed_point.tanh)
    if rule.method == "unspecified":
        return look_up(view, values, Rule("float_table"), rounded_tanhf)
    return look_up(view, values, rule, {"fdlibm": tanhf, "correctly_rounded": rounded_tanhf}[rule.libm])


def _of_int16(
    view: LayerView,
    values: Values,
    rule: Rule,
    by_table: Callable[[Array, float], Array],
    in_fixed_point: Callable[[Array], Array],
) -> SpecResult:
    """``reference``: a table with interpolation. ``fixed_point``: gemmlowp's, of shifted inputs."""
    data, scale = operand(values, 0).astype(np.int64), view.input(0).scale
    if rule.method == "reference":
        return SpecResult((by_table(data, scale).astype(np.int16),))
    if rule.method != "fixed_point":
        raise ModelError(f"{view}: {rule.method!r} is not defined for int16")
    shift = sigmoid.input_shift(scale)
    return SpecResult((in_fixed_point(fixed_point.saturating_shift(data, shift)).astype(np.int16),))


def _logistic_float32(x: np.float32) -> np.float32:
    return np.float32(1.0) / (np.float32(1.0) + expf(-x))


def _logistic_float64(x: np.float32) -> np.float32:
    if x > 100:
        return np.float32(1.0)
    if x < -100:
        return np.float32(0.0)
    return np.float32(math.exp(float(x)) / (1.0 + math.exp(float(x))))
