"""ADD and SUB of int16 tensors whose scales are powers of two: the finer operand is shifted right.

Source: TFLite ``reference_ops::Add`` and ``Sub16`` for ``int16_t``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.tflite.powers_of_two import nearest_power
from karat24.refimpl.spec.shared.primitives import rounding_divide_by_pot


def check_shifts(view: LayerView) -> None:
    """Raises UnsupportedOp unless one operand has the output's scale and the other's is not coarser."""
    left, right = _shifts(view)
    if max(left, right) != 0 or min(left, right) < -15:
        raise UnsupportedOp(
            f"{view}: int16 scales {view.input(0).scale:.6g} and {view.input(1).scale:.6g}, output "
            f"{view.output().scale:.6g}; the runtimes take powers of two of which the larger input's is the "
            "output's and the other no more than 2^15 times finer"
        )


def _shifts(view: LayerView) -> tuple[int, int]:
    """The left shifts, 0 or negative, that bring the operands to the output's scale."""
    to, _ = nearest_power(view.output().scale)
    return nearest_power(view.input(0).scale)[0] - to, nearest_power(view.input(1).scale)[0] - to


def shifted_sum(view: LayerView, left: Array, right: Array, sign: int) -> Array:
    """``left + sign * right`` at the output's scale, saturated; a shift rounds half away from zero."""
    left_shift, right_shift = _shifts(view)
    total = rounding_divide_by_pot(left, -left_shift) + sign * rounding_divide_by_pot(right, -right_shift)
    return np.asarray(np.clip(total, -(2**15), 2**15 - 1))
