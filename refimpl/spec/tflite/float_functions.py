"""EXP, LOG and ELU of int8, GELU of int8 and uint8: tables of functions of the C library.

Source: LiteRT 2.3 and TensorFlow Lite 2.14 ``kernels/elementwise.cc``, ``kernels/activations.cc``,
``kernels/gelu.cc`` and ``internal/reference/gelu.h``. The functions are rounded to float32 from float64,
which the C libraries' own float32 functions equal but for the last bit, at values that no table entry
depends on unless it lies within 1e-7 of a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.tflite.float_table import Function, check_table, look_up


def check_int8_function(view: LayerView) -> None:
    """One int8 input. uint8 is refused by every kernel of the runtimes."""
    check_table(view, ("int8",))


def check_gelu(view: LayerView) -> None:
    """One int8 or uint8 input; attribute ``approximate``."""
    view.flag("approximate")
    check_table(view)


def float_function(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """EXP, LOG or ELU, as the op says."""
    return look_up(view, values, rule, FUNCTIONS[view.op])


def gelu(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """GELU: ``x / 2 * erfc(-x / sqrt(2))``, or with ``approximate`` its form with tanh."""
    return look_up(view, values, rule, _gelu_by_tanh if view.flag("approximate") else _gelu_by_erfc)


def _exp(x: np.float32) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(math.exp(float(x)) if x < 89 else math.inf)


def _log(x: np.float32) -> np.float32:
    """For 0 and below the kernel gives the least value of the output."""
    return np.float32(math.log(float(x)) if x > 0 else -math.inf)


def _elu(x: np.float32) -> np.float32:
    return np.float32(math.expm1(float(x))) if x < 0 else x


def _gelu_by_erfc(x: np.float32) -> np.float32:
    with np.errstate(over="ignore"):
        erfc = np.float32(math.erfc(float(x * np.float32(-math.sqrt(0.5)))))
        return np.float32(0.5) * x * erfc


def _gelu_by_tanh(x: np.float32) -> np.float32:
    with np.errstate(over="ignore", invalid="ignore"):
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return np.float32(0.5) * x * (np.float32(1.0) + np.float32(math.tanh(float(inner))))


FUNCTIONS: Mapping[str, Function] = MappingProxyType({"ELU": _elu, "EXP": _exp, "LOG": _log})
