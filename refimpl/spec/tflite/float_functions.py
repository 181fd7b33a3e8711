"""EXP, LOG and ELU of int8, GELU of int8 and uint8: tables made with functions of the C library.

Source: LiteRT 2.3 and TensorFlow Lite 2.14 ``kernels/elementwise.cc``, ``kernels/activations.cc``,
``kernels/gelu.cc`` and ``internal/reference/gelu.h``. ELU calls ``expm1f``, GELU ``erfcf`` or ``tanhf``.
glibc has fdlibm's functions up to 2.40 and correctly rounded ones from 2.41 on; ``rule.libm`` names them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.tflite.erfcf import erfcf, rounded_erfcf
from karat24.refimpl.spec.tflite.expf import expf, logf
from karat24.refimpl.spec.tflite.float_table import Function, check_table, look_up
from karat24.refimpl.spec.tflite.rounded_tanhf import rounded_tanhf
from karat24.refimpl.spec.tflite.tanhf import expm1f, tanhf


def check_int8_function(view: LayerView) -> None:
    """One int8 input; every kernel of the runtimes refuses uint8."""
    check_table(view, ("int8",))


def check_gelu(view: LayerView) -> None:
    """One int8 or uint8 input; attribute ``approximate``."""
    view.flag("approximate")
    check_table(view)


def exp(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """EXP, by ``expf``."""
    return look_up(view, values, rule, expf)


def log(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """LOG, by ``logf``. For 0 and below the kernel gives the least value of the output's type."""
    return look_up(view, values, rule, lambda x: logf(x) if x > 0 else np.float32(-math.inf))


def elu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """ELU: ``x`` from 0 on, ``exp(x) - 1`` below 0 by the C library's ``expm1f``."""
    rule = _settled(rule)
    below = expm1f if rule.libm == "fdlibm" else _rounded_expm1f
    return look_up(view, values, rule, lambda x: below(x) if x < 0 else x)


def gelu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """GELU: ``x / 2 * erfc(-x / sqrt(2))``, or with ``approximate`` its form with tanh."""
    rule = _settled(rule)
    fdlibm = rule.libm == "fdlibm"
    if view.flag("approximate"):
        tanh = tanhf if fdlibm else rounded_tanhf
        return look_up(view, values, rule, lambda x: _gelu_by_tanh(x, tanh))
    erfc = erfcf if fdlibm else rounded_erfcf
    return look_up(view, values, rule, lambda x: _gelu_by_erfc(x, erfc))


def _settled(rule: Rule) -> Rule:
    """``unspecified`` stands for an unknown library: results are rounded correctly and never compared."""
    return replace(rule, method="float_table") if rule.method == "unspecified" else rule


def _rounded_expm1f(x: np.float32) -> np.float32:
    return np.float32(math.expm1(float(x)))


def _gelu_by_erfc(x: np.float32, erfc: Function) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(0.5) * x * erfc(x * np.float32(-math.sqrt(0.5)))


def _gelu_by_tanh(x: np.float32, tanh: Function) -> np.float32:
    with np.errstate(over="ignore", invalid="ignore"):
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return np.float32(0.5) * x * (np.float32(1.0) + tanh(inner))
