"""Proving the output stages: every layer's multiplier, clamps, zero points, channels and order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from karat24.export.edgetpu.instructions import InstructionStream, Stage
from karat24.golden.edgetpu.arithmetic import (
    addition_factors,
    addition_multiplier,
    bits,
    from_bits,
    unsigned_zero_point,
)
from karat24.golden.edgetpu.blocks import unseen_blocks
from karat24.golden.edgetpu.evidence import Evidence
from karat24.golden.edgetpu.expected import STAGES, UNDESCRIBED, Expected
from karat24.golden.edgetpu.finding import Finding, Value
from karat24.golden.edgetpu.pairing import Paired, out_of_order, pair

FLOATS = ("multiplier", "lower", "upper")
"""Fields that hold the bits of a float32."""

NAMES = {
    "lower": "lower clamp",
    "upper": "upper clamp",
    "per_channel": "one multiplier per channel",
    "first_zero_point": "input zero point",
    "second_zero_point": "filter or input zero point",
    "output_zero_point": "output zero point",
    "constant": "constant added to the accumulator",
    "channels": "output channels of a block and of the last",
}
"""Names of fields in messages, where their own names do not say what they are."""

NO_STAGE = "no output stage of the instructions resembles what the layer must have"


def prove_stages(layers: Sequence[Evidence], stream: InstructionStream) -> list[int]:
    """Holds each layer against the stream; returns the instructions of stages that belong to no layer."""
    paired, left, elsewhere = pair([layer.view for layer in layers], stream)
    for layer, found in zip(layers, paired, strict=True):
        _conclude(layer, found, stream)
        if found.ways:
            for name in sorted(elsewhere):
                layer.cannot(f"the {NAMES.get(name, name)} does not stand where known compilers put it")
    by_index = {layer.view.layer.index: layer for layer in layers}
    if "channels" not in elsewhere:
        for index, reason in unseen_blocks(paired).items():
            by_index[index].cannot(reason)
    for before, behind in out_of_order(paired):
        where = f"layer {before.layer.index} must come before it"
        by_index[behind.layer.index].differs([Finding("order of operations", where, "behind", "before")])
    return [stage.instruction for stage in left]


def _conclude(layer: Evidence, found: Paired, stream: InstructionStream) -> None:
    layer.stages += [stage.instruction for stage in found.stages]
    layer.stages += [stage.instruction for stage, _, _ in found.changed]
    if _is_another_approximation(found, stream):
        layer.cannot("its operands are scaled by other integers than the best ones for their ratio")
    else:
        for stage, way, wrong in found.changed:
            layer.differs(_difference(stage, way, name) for name in wrong)
    if found.stages:
        way, _ = found.closest(found.stages[0])
        layer.proved["output stage values"] = (len(way.values) + bool(way.blocks)) * len(found.stages)
    if found.missing:
        layer.cannot(NO_STAGE)
    if found.view.op == "ADD" and found.stages:
        layer.differs(_factors(layer, found, stream))
    if found.view.op == "SOFTMAX":
        layer.attempt(partial(_softmax, layer, stream))
    elif found.view.op not in STAGES:
        layer.cannot(UNDESCRIBED.get(found.view.op, f"how {found.view.op} is compiled is not described"))
    elif not found.ways and not layer.reasons:
        layer.cannot(found.reason or f"how such a {found.view.op} is compiled is not described")
    elif found.view.op == "LOGISTIC" and found.view.input(0).scale == 1:
        layer.cannot("its input's scale is 1, which stages of other layers have, too")


def _difference(stage: Stage, way: Expected, name: str) -> Finding:
    wanted: Value
    there: Value
    if name == "channels":
        wanted = " or ".join(f"{block} and {last}" for block, last in sorted(way.blocks))
        there = f"{stage.block} and {stage.last_block}"
    else:
        wanted, there = way.values[name], getattr(stage, name)
        if name in FLOATS:
            wanted, there = from_bits(int(wanted)), from_bits(int(there))
    return Finding(NAMES.get(name, name), f"instruction {stage.instruction}", wanted, there)


def _factors(layer: Evidence, found: Paired, stream: InstructionStream) -> Iterator[Finding]:
    """The integers an addition scales its operands by, which stand before its first stage."""
    wanted = sorted(addition_factors(layer.view.input(0), layer.view.input(1)))
    there = stream.operand_factors(found.stages[0])
    if wanted == [1, 1]:
        return
    if there is None or not any(copy in wanted for copies in there for copy in copies):
        layer.cannot("its operands' factors do not stand where known compilers put them")
        return
    for copies, factor in zip(sorted(there, key=_usual), wanted, strict=True):
        layer.proved["operand factors"] += sum(copy == factor for copy in copies)
        for copy in copies:
            if copy != factor:
                yield Finding(
                    "operand factor", f"before instruction {found.stages[0].instruction}", factor, copy
                )


def _is_another_approximation(found: Paired, stream: InstructionStream) -> bool:
    """Whether an addition is consistent with other integers than known compilers choose: both operands give
    its multiplier, and the zero points its constant."""
    if found.view.op != "ADD" or found.stages or not found.changed:
        return False
    there = stream.operand_factors(found.changed[0][0])
    if there is None or any(len(set(copies)) != 1 or copies[0] == 0 for copies in there):
        return False
    first, second, output = found.view.input(0), found.view.input(1), found.view.output()
    seen = {(stage.multiplier, stage.constant) for stage, _, _ in found.changed}
    for a, b in ((there[0][0], there[1][0]), (there[1][0], there[0][0])):
        multipliers = {
            bits(addition_multiplier(t, factor, output)) for t, factor in ((first, a), (second, b))
        }
        constant = -(a * unsigned_zero_point(first) + b * unsigned_zero_point(second))
        if len(multipliers) == 1 and seen == {(multipliers.pop(), constant)}:
            return True
    return False


def _usual(copies: tuple[int, ...]) -> int:
    """The value that most copies have; one may be changed."""
    return max(copies, key=copies.count)


def _softmax(layer: Evidence, stream: InstructionStream) -> None:
    """A compiler that writes no records keeps the input's scale in an instruction."""
    if "softmax records" in layer.proved or layer.places or layer.reasons:
        return
    if layer.view.input(0).scale == 1:
        layer.cannot("its input's scale is 1, an immediate value that instructions hold anyway")
    elif stream.has_immediate(bits(layer.view.input(0).scale)):
        layer.proved["softmax scale"] = 1
    else:
        layer.cannot("its input's scale is neither among the parameters nor in the instructions")
