"""Cases of layers that keep a state: SVDF on ties of both its requantizations and at its saturations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.cases.case import Case
from tests.cases.quantized import seeded
from tests.cases.single_layer import Constant, Feed, Result, State, single_layer


def svdf(
    edge: str,
    *,
    batch: int = 2,
    depth: int = 6,
    units: int = 3,
    rank: int = 2,
    memory: int = 4,
    bias: bool = True,
    to_state: float = 0.0123,
    to_output: float = 0.0031,
    zero_point: int = -128,
) -> Case:
    """One layer; ``to_state`` and ``to_output`` are the multipliers of its requantizations."""
    rng, filters = seeded(f"svdf {edge}"), units * rank
    inputs: list[Feed | Constant | State | None] = [
        Feed(rng.integers(-128, 128, (batch, depth)).astype(np.int8), 0.5, 7),
        Constant(rng.integers(-127, 128, (filters, depth)).astype(np.int8), to_state * 2),
        Constant(rng.integers(-300, 301, (filters, memory)).astype(np.int16), to_output * 0.5),
        Constant(rng.integers(-9000, 9001, units).astype(np.int32), to_output * 0.5) if bias else None,
        State((batch, filters * memory), "int16", 1.0),
    ]
    return single_layer(
        "svdf",
        edge,
        "SVDF",
        inputs,
        [Result((batch, units), "int8", 0.5, zero_point)],
        rank=rank,
        fused_activation_function="RELU",
    )


def cases() -> list[Case]:
    """All cases; multipliers of 1/8 and 1/64 put every eighth and every 64th sum on a tie."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    yield svdf("usual")
    yield svdf("ties", batch=3, depth=9, units=6, to_state=0.125, to_output=1 / 64, zero_point=-3)
    yield svdf("the state saturates", depth=40, to_state=4.0, to_output=1e-5)
    yield svdf("the output saturates", rank=1, to_output=0.9, zero_point=5)
    yield svdf("one value of memory, no bias", memory=1, bias=False, zero_point=0)
