"""What a check demands of scales: the multipliers and bounds derived from them are ones runtimes define."""

from __future__ import annotations

import math

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.profiles.tflite.beyond_int32 import carried_across
from karat24.refimpl.spec.shared.primitives import ACTIVATION_BOUNDS

MULTIPLIER_LIMIT = 2.0**29
"""Left shifts of 31 and more are undefined behaviour in C. 2^29 leaves every rounding of a
multiplier (float32 or float64) with a shift of at most 30."""


BOUND_LIMIT = 2.0**30
"""Activation bounds are converted to int32 before they are clamped."""


def require_bounds(view: LayerView, activation: str, output: Tensor) -> None:
    """The bounds of ``activation``, in steps of the output's scale, are whole numbers an int32 holds."""
    reach = max(abs(bound) for bound in (*ACTIVATION_BOUNDS[activation], 0.0) if math.isfinite(bound))
    if reach / output.scale >= BOUND_LIMIT:
        raise UnsupportedOp(
            f"{view}: {activation} of {reach:g} is {reach / output.scale:.6g} steps of output scale "
            f"{output.scale:.6g}; no runtime defines 2^30 or more"
        )


def require_multiplier(view: LayerView, real: float, what: str) -> None:
    """``real`` is a finite multiplier that shifts an int32 by 30 bits at most."""
    if not (math.isfinite(real) and abs(real) < MULTIPLIER_LIMIT):
        raise UnsupportedOp(
            f"{view}: the multiplier {what} is {real:.6g}; no runtime defines one of 2^29 or more, "
            "check the scales"
        )


def require_inside_int32(view: LayerView) -> None:
    """No sum of products that the weights allow, once multiplied, leaves int32 by the output's zero point."""
    if carried_across(view):
        raise UnsupportedOp(
            f"{view}: a sum of products times its multiplier can come so near 2^31 that the output's zero "
            "point carries it beyond int32, which no runtime defines; check the scales"
        )
