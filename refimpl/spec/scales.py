"""What a check demands of scales: every multiplier derived from them must be one runtimes define."""

from __future__ import annotations

import math

from refimpl.errors import UnsupportedOp
from refimpl.graph import LayerView

MULTIPLIER_LIMIT = 2.0**29
"""Left shifts of 31 and more are undefined behaviour in C. 2^29 leaves every rounding of a
multiplier (float32 or float64) with a shift of at most 30."""


def require_multiplier(view: LayerView, real: float, what: str) -> None:
    """``real`` is a finite multiplier that shifts an int32 by 30 bits at most."""
    if not (math.isfinite(real) and abs(real) < MULTIPLIER_LIMIT):
        raise UnsupportedOp(
            f"{view}: the multiplier {what} is {real:.6g}; no runtime defines one of 2^29 or more, "
            "check the scales"
        )
