"""Which scales of int16 tensors TFLite counts as powers of two, and which layers it shifts then."""

from __future__ import annotations

import math

from karat24.refimpl.graph import LayerView

INPUT_EXPONENTS = {"LOGISTIC": (-12,), "TANH": (-12, -11)}
"""Powers of two whose inputs LOGISTIC and TANH shift; inputs of all other scales are multiplied."""


def nearest_power(scale: float) -> tuple[int, bool]:
    """The exponent of the power of two nearest to ``scale``, and whether the scale counts as that power.

    It does when its binary logarithm lies within 0.001 of a whole number, so 1/32767 counts as 1/32768.
    Source: TFLite ``CheckedLog2``.
    """
    logarithm = math.log2(scale)
    exponent = math.floor(logarithm + 0.5)
    return exponent, abs(logarithm - exponent) < 1e-3


def shifts_input(view: LayerView) -> bool:
    """Whether an int16 LOGISTIC or TANH shifts its input. TFLite ``SigmoidPrepare``, ``TanhPrepare``."""
    exponent, counts = nearest_power(view.input(0).scale)
    return counts and exponent in INPUT_EXPONENTS[view.op]


def shifts_operands(view: LayerView) -> bool:
    """Whether an int16 ADD or SUB shifts its operands: its file says it may, and every scale counts as a
    power of two. Source: TFLite ``add.cc`` and ``sub.cc``, ``Prepare``."""
    tensors = (view.input(0), view.input(1), view.output())
    return view.flag("pot_scale_int16", True) and all(nearest_power(tensor.scale)[1] for tensor in tensors)
