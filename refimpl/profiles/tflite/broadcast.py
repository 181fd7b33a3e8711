"""How the optimised kernels of TFLite cut a broadcast operation into inner loops.

Source: TensorFlow Lite ``ProcessBroadcastShapes`` and ``BinaryBroadcastFiveFold``.
Which inner loop runs, and how long it is, decides where whole blocks end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from karat24.refimpl.graph import LayerView


@dataclass(frozen=True)
class InnerLoop:
    """``elementwise``: both operands advance. ``scalar``: one operand is a single value.
    ``general``: no inner loop, values are computed one by one.

    ``run`` is the number of consecutive outputs one pass covers.
    """

    kind: Literal["elementwise", "scalar", "general"]
    run: int


def inner_loop(view: LayerView) -> InnerLoop:
    """The inner loop over the outputs of a layer with two inputs that broadcast together.

    From the innermost dimension out, the five folds are: both operands equal, one
    repeats, equal, the other repeats, equal. Sizes left over make it general.
    """
    left, right = view.input(0).shape, view.input(1).shape
    rank = max(len(left), len(right))
    pairs = list(
        zip(
            reversed((1,) * (rank - len(left)) + left),
            reversed((1,) * (rank - len(right)) + right),
            strict=True,
        )
    )
    unequal = [pair for pair in pairs if pair[0] != pair[1]]
    if not unequal:
        return InnerLoop("elementwise", math.prod(left))
    if unequal[0][0] != 1:  # the operand that repeats first comes first
        pairs = [(b, a) for a, b in pairs]

    folds = []
    for fold in ("equal", "first", "equal", "second", "equal"):
        size = 1
        while pairs and _continues(fold, *pairs[0]):
            size *= max(pairs.pop(0))
        folds.append(size)
    if pairs:
        return InnerLoop("general", 1)
    return InnerLoop("elementwise", folds[0]) if folds[0] > 1 else InnerLoop("scalar", folds[1])


def _continues(fold: str, first: int, second: int) -> bool:
    """Whether a dimension of these two sizes belongs to the fold."""
    return {"equal": first == second, "first": first == 1, "second": second == 1}[fold]
