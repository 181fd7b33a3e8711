"""Cases of int8 LSTM: every variant, gates and products on ties, odd zero points, saturation of each sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.quantized import seeded
from tests.cases.single_layer import Constant, Feed, Result, State, single_layer

SEQUENCE = "UNIDIRECTIONAL_SEQUENCE_LSTM"


@dataclass(frozen=True)
class Lstm:
    """An LSTM to be built. ``to_gate``: multipliers of the sums over the data and over the last output;
    ``peephole`` and ``to_output``: those of products with peephole weights, which ``seen`` bounds, and of
    the projection. ``outputs`` differs from ``cells`` only with a projection."""

    edge: str
    op: str = SEQUENCE
    batch: int = 2
    steps: int = 3
    depth: int = 5
    cells: int = 6
    outputs: int = 6
    cifg: bool = False
    peephole: float = 0.0
    seen: int = 30000
    projection: bool = False
    projection_bias: bool = True
    norm: float = 0.0
    time_major: bool = False
    short: bool = False
    to_gate: tuple[float, float] = (0.61, 0.37)
    to_output: float = 0.0121
    bias: tuple[int, int] = (-3000, 3000)
    weights: tuple[int, int] = (-127, 127)
    cell_exponent: int = -11
    output: tuple[float, int] = (0.0071, -5)
    hidden: tuple[float, int] = (0.0065, 3)
    clips: tuple[float, float] = (0.0, 0.0)

    def case(self) -> Case:
        """The layer, fed with noise; without a projection the hidden tensor is the output."""
        rng = seeded(f"lstm {self.op} {self.edge}")
        gates = [not self.cifg, True, True, True]

        def between(bounds: tuple[int, int], shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
            return rng.integers(bounds[0], bounds[1] + 1, shape).astype(dtype)

        def weights(there: bool, columns: int, multiplier: float, source: float) -> Constant | None:
            values = between(self.weights, (self.cells, columns), np.int8)
            return Constant(values, multiplier * 2.0**-12 / source) if there else None

        def diagonal(there: bool, scale: float, bound: int = 30000) -> Constant | None:
            values = between((-bound, bound), (self.cells,), np.int16)
            return Constant(values, scale) if there and scale else None

        projection: list[Constant | None] = [None, None]
        if self.projection:
            scale = self.to_output * self.output[0] / self.hidden[0]
            projection[0] = Constant(between((-127, 127), (self.outputs, self.cells), np.int8), scale)
        if self.projection and self.projection_bias:
            projection[1] = Constant(between((-900, 900), (self.outputs,), np.int32))
        from_cell = self.peephole * 2.0**-12 / 2.0**self.cell_exponent
        hidden = self.hidden if self.projection else self.output
        shape = (
            (self.batch,) if self.op == "LSTM"
            else (self.steps, self.batch) if self.time_major
            else (self.batch, self.steps)
        )  # fmt: skip
        inputs: list[Feed | Constant | State | None] = [
            Feed(between((-128, 127), (*shape, self.depth), np.int8), 0.5, 7),
            *(weights(there, self.depth, self.to_gate[0], 0.5) for there in gates),
            *(weights(there, self.outputs, self.to_gate[1], self.output[0]) for there in gates),
            *(diagonal(gates[place], from_cell, self.seen) for place in (0, 1, 3)),
            *(Constant(between(self.bias, (self.cells,), np.int32)) if there else None for there in gates),
            *projection,
            State((self.batch, self.outputs), "int8", *self.output),
            State((self.batch, self.cells), "int16", 2.0**self.cell_exponent),
            *(diagonal(there, self.norm) for there in gates),
        ]
        inside = [Constant(np.zeros(0, np.int16), 0.0009 * (place + 1)) for place in range(4)]
        options = {"kernel_type": "FULL"} if self.op == "LSTM" else {"time_major": self.time_major}
        return single_layer(
            self.op.lower(),
            self.edge,
            self.op,
            inputs[:20] if self.short else inputs,
            [Result((*shape, self.outputs), "int8", *self.output)],
            intermediates=[*inside, Constant(np.zeros(0, np.int8), *hidden)],
            fused_activation_function="TANH",
            cell_clip=self.clips[0],
            proj_clip=self.clips[1],
            **options,
        )


def cases() -> list[Case]:
    """All cases. Multipliers of 1/8 put every eighth sum on a tie, of either sign."""
    return [lstm.case() for lstm in described()]


def described() -> Iterator[Lstm]:
    """All LSTMs that the cases are built of."""
    ties = (0.125, 0.0625)
    yield Lstm("usual")
    yield Lstm("one value of everything", batch=1, steps=1, depth=1, cells=1, outputs=1)
    yield Lstm("20 inputs", short=True)
    yield Lstm("ties", depth=9, cells=19, outputs=19, steps=5, to_gate=ties, output=(2.0**-7, 11))
    yield Lstm("time major", batch=3, time_major=True)
    yield Lstm("no input gate", cifg=True, steps=6)
    for exponent in range(-15, -8):
        yield Lstm(f"cells of scale 2^{exponent}", steps=9, cell_exponent=exponent, bias=(-30000, 30000))
    yield Lstm("cells clipped", steps=7, clips=(0.33, 0.0), bias=(-30000, 30000))
    yield Lstm("a clip below one step", clips=(2.0**-12, 0.0))
    yield Lstm("sums saturate", depth=30, to_gate=(0.9, 9.1), bias=(-30000, 30000), steps=5)
    yield Lstm("sums beyond int32", bias=(2**31 - 60000, 2**31 - 1), to_gate=(2.0**-17, 2.0**-4), batch=5)
    yield Lstm("a sum carried beyond int32", to_gate=(2.0**18 - 1, 2.0**17 - 1), bias=(-(2**14), 2**14))
    peephole = Lstm("peephole", cells=37, outputs=37, peephole=2.0**-9, steps=5, bias=(-9000, 9000))
    yield peephole
    yield replace(peephole, edge="peephole, 16 cells", cells=16, outputs=16)
    yield replace(peephole, edge="peephole, time major", time_major=True, cifg=True)
    ties_seen = replace(peephole, edge="peephole on ties", peephole=0.125, seen=9, cell_exponent=-13)
    yield replace(ties_seen, batch=40, steps=8, output=(1 / 128, 0))
    projection = Lstm("projected", cells=11, outputs=4, projection=True, steps=5)
    yield projection
    yield replace(projection, edge="projected, ties", to_output=2.0**-6, output=(2.0**-6, -9))
    yield replace(projection, edge="projected to more", outputs=14, projection_bias=False, time_major=True)
    yield replace(projection, edge="projection clipped", clips=(0.0, 0.31), hidden=(0.003, -71))
    norm = Lstm("normalized", cells=8, outputs=8, norm=2.0**-14, steps=4, bias=(-(2**20), 2**20))
    yield norm
    yield replace(norm, edge="normalized, 11 cells", cells=11, outputs=11, norm=0.00007)
    yield replace(norm, edge="normalized, nothing varies", weights=(0, 0), norm=0.0009)
    beyond = replace(norm, edge="normalized, products beyond int32", cells=1501, steps=1, weights=(118, 127))
    yield replace(beyond, outputs=2, projection=True, batch=4)
    yield replace(norm, edge="normalized, one cell", cells=1, outputs=1)
    everything = Lstm("everything", cells=18, outputs=18, cifg=True, peephole=0.011, projection=True,
                      norm=0.00005, time_major=True, clips=(2.0, 0.5), bias=(-(2**20), 2**20))  # fmt: skip
    yield everything
    yield Lstm("usual", op="LSTM")
    yield replace(everything, op="LSTM", time_major=False, cifg=False)
