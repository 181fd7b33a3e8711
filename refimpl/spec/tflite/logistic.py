"""LOGISTIC and TANH of int8 and uint8: a table of all 256 inputs, computed in floating point."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.tflite.float_table import check_table, look_up
from karat24.refimpl.spec.tflite.rounded_tanhf import rounded_tanhf
from karat24.refimpl.spec.tflite.tanhf import tanhf


def check_logistic(view: LayerView) -> None:
    """One int8 or uint8 input; the output has its shape and any parameters."""
    check_table(view)


check_tanh = check_logistic


def logistic(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """LOGISTIC. ``float_table``: ``1 / (1 + exp(-x))`` in float32; ``xnnpack``: in float64."""
    return look_up(view, values, rule, _logistic_float64 if rule.method == "xnnpack" else _logistic_float32)


def tanh(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """TANH, by the C library's ``tanhf``, which ``rule.tanhf`` names.

    ``unspecified`` (nobody knows the library): rounded correctly, and never compared.
    """
    if rule.method == "unspecified":
        return look_up(view, values, Rule("float_table"), rounded_tanhf)
    return look_up(view, values, rule, {"fdlibm": tanhf, "correctly_rounded": rounded_tanhf}[rule.tanhf])


def _logistic_float32(x: np.float32) -> np.float32:
    with np.errstate(over="ignore"):  # exp(88.73) and more are infinite in float32
        exponential = np.float32(math.exp(-float(x))) if -float(x) < 89 else np.float32(np.inf)
    return np.float32(1.0) / (np.float32(1.0) + exponential)


def _logistic_float64(x: np.float32) -> np.float32:
    if x > 100:
        return np.float32(1.0)
    if x < -100:
        return np.float32(0.0)
    return np.float32(math.exp(float(x)) / (1.0 + math.exp(float(x))))
