"""Output stages in an Edge TPU's instruction stream.

The instruction set is not published. An instruction has 128 bits, little-endian. Measured on
public compiled models (compilers of 2019 to 2021, runtimes 10 to 14): every operation that computes
ends in an *output stage*, which multiplies an accumulator by a float32, adds the output's zero point
and clamps. It stands in four neighbouring instructions k-2 to k+1:

=============  ==========  ==================================================================
instruction    bits        meaning
=============  ==========  ==================================================================
k-2            all         0
k-1            0 to 47     0
k-1            48 to 55    the unit, of which bit 52 is always set (:data:`UNITS`)
k-1            62 to 69    zero point of the second operand (a filter with one), or of the only one
k-1            78 to 85    zero point of the first operand
k              0 to 1      not 0: the multipliers stand with the parameters, one per channel
k              14 to 19    output channels of the last block, minus 1
k              20 to 25    output channels of every other block, minus 1
k              29 to 60    multiplier, float32
k              61 to 92    upper clamp, float32, before the zero point is added
k              93 to 124   lower clamp, float32
k, k+1         125 to 156  constant added to the accumulator, int32
k+1            29 to 36    zero point of the output
=============  ==========  ==================================================================

An addition scales its operands by integers, each stored in four earlier instructions
(:func:`operand_factors`). An operation whose image is split over the device's memory has one stage
for each part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array

MAX_STAGES = 50_000
"""A made-up file may be nothing but stages; known ones have some hundred."""

UNITS: Mapping[int, str] = MappingProxyType(
    {0x18: "multiply", 0x38: "multiply", 0x30: "move", 0x70: "pool", 0xB0: "add"}
)
"""What bits 48 to 55 before an output stage select; other values occur inside Softmax."""

FACTOR_PLACES = ((-77, 88), (-71, 104), (-59, 88), (-53, 104)), ((-47, 88), (-41, 104), (-29, 88), (-23, 104))
"""Instruction relative to an addition's output stage, and bit, of its two int16 operand factors."""


@dataclass(frozen=True)
class Stage:
    """One output stage. ``multiplier``, ``upper`` and ``lower`` are the bits of float32 values.

    ``instruction`` counts from the start of the stream. ``block`` and ``last_block`` are output
    channels. Zero points are unsigned, as the device has them: an int8 tensor's plus 128.
    """

    instruction: int
    unit: str
    per_channel: bool
    multiplier: int
    upper: int
    lower: int
    block: int
    last_block: int
    first_zero_point: int
    second_zero_point: int
    output_zero_point: int
    constant: int


class InstructionStream:
    """All bitstreams of an executable, joined; what does not fill an instruction is left out."""

    def __init__(self, bitstreams: tuple[bytes, ...]) -> None:
        whole = b"".join(stream[: len(stream) // 16 * 16] for stream in bitstreams)
        self._words: Array = np.frombuffer(whole, "<u8").reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._words)

    def _bits(self, instruction: int, first: int, count: int) -> int:
        """``count`` bits from bit ``first`` of an instruction on; they may reach into the next one."""
        low, high = (int(word) for word in self._words[instruction])
        value = low | high << 64
        if first + count > 128:
            value |= int(self._words[instruction + 1][0]) << 128
        return value >> first & (1 << count) - 1

    def stages(self) -> tuple[Stage, ...]:
        """Every output stage, in order. Raises ModelError for more than any model has."""
        places = self._places()
        if places.size > MAX_STAGES:
            raise ModelError(f"{places.size} output stages in one executable; models have some hundred")
        return tuple(self._stage(place) for place in places.tolist())

    def stage_count(self) -> int:
        """How many output stages there are."""
        return self._places().size

    def _places(self) -> Array:
        """The instructions that hold an output stage."""
        low, high = self._words[:, 0], self._words[:, 1]
        unit_bit, below_unit = np.uint64(1 << 52), np.uint64((1 << 48) - 1)
        if len(low) < 4:
            return np.empty(0, np.int64)
        empty = (low[:-3] == 0) & (high[:-3] == 0)
        selected = (low[1:-2] & unit_bit != 0) & (low[1:-2] & below_unit == 0)
        places: Array = np.flatnonzero(empty & selected) + 2
        return places

    def holding(self, multiplier: int, lower: int, upper: int) -> list[Stage]:
        """Every instruction with these float32 bits where a stage has them, whatever stands around it."""
        low, high = self._words[:, 0], self._words[:, 1]
        mask = np.uint64((1 << 32) - 1)
        found = (low >> np.uint64(29) & mask == np.uint64(multiplier)) & (
            high >> np.uint64(29) & mask == np.uint64(lower)
        )
        places = np.flatnonzero(found[1:-1])[:MAX_STAGES] + 1
        return [stage for at in places if (stage := self._stage(int(at))).upper == upper]

    def _stage(self, at: int) -> Stage:
        constant = self._bits(at, 125, 32)
        code = self._bits(at - 1, 48, 8)
        return Stage(
            instruction=at,
            unit=UNITS.get(code, f"unit {code:#x}"),
            per_channel=self._bits(at, 0, 2) != 0,
            multiplier=self._bits(at, 29, 32),
            upper=self._bits(at, 61, 32),
            lower=self._bits(at, 93, 32),
            block=self._bits(at, 20, 6) + 1,
            last_block=self._bits(at, 14, 6) + 1,
            first_zero_point=self._bits(at - 1, 78, 8),
            second_zero_point=self._bits(at - 1, 62, 8),
            output_zero_point=self._bits(at + 1, 29, 8),
            constant=constant - (1 << 32) if constant >> 31 else constant,
        )

    def operand_factors(self, stage: Stage) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The integers by which an addition scales its two operands, as often as each is stored.

        ``stage`` is the first of the addition's stages. None where the stream is too short.
        """
        if stage.instruction + FACTOR_PLACES[0][0][0] < 0:
            return None
        first, second = (
            tuple(self._bits(stage.instruction + offset, bit, 16) for offset, bit in places)
            for places in FACTOR_PLACES
        )
        return first, second

    def has_immediate(self, pattern: int) -> bool:
        """Whether some instruction holds these 32 bits at bit 70, where immediate values stand."""
        high = self._words[:, 1] >> np.uint64(70 - 64) & np.uint64((1 << 32) - 1)
        return bool((high == np.uint64(pattern)).any())
