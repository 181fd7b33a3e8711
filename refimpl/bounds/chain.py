"""Intervals through layers whose rule is known: a hidden float edge, a QuantizeLinear behind it.

A layer that never decreases its output when an input grows maps an interval to the interval between what it
makes of the two ends, rounding included, since rounding never turns two values around. So the oracle's own
layer is run at both ends, and behind a quantization there is a set of allowed integers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refimpl.bounds import bound_for
from refimpl.bounds.interval import Interval
from refimpl.engine import Program, Step
from refimpl.errors import CannotCompare, UnsupportedOp
from refimpl.graph import Array

INCREASING = frozenset(
    {
        "ADD", "CONCATENATION", "EXPAND_DIMS", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "PACK", "QUANTIZE",
        "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE",
        "UNPACK", "Add", "Clip", "Concat", "Flatten", "Identity", "Max", "MaxPool", "Min", "QuantizeLinear",
        "Relu", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
        "com.microsoft:QuantizeLinear",
    }
)  # fmt: skip
"""Ops that never decrease when the values of their inputs grow, parameters being constants."""

PRODUCTS = frozenset({"MUL", "Mul"})
"""Ops that are largest and smallest at ends of their inputs, whichever."""

DIFFERENCES = frozenset({"SUB", "Sub"})
"""Ops that grow with their first input and shrink as the second one grows."""

INT32_STEPS = 2.0**31 - 2**8
"""Quotients a conversion to int32 holds for sure."""


def interval_of(program: Program, tensor: int, known: Mapping[int, Array]) -> Interval:
    """What tensor ``tensor`` of the program's graph may hold, given the values of ``known`` tensors.

    Goes back from the tensor to known ones. Raises CannotCompare, with the reason, where a layer on the way
    has neither a rule through which intervals pass nor a bound, or leads to no known tensor.
    """
    if tensor in known:
        return Interval.exactly(known[tensor])
    data = program.graph.tensors[tensor].data
    if data is not None:
        return Interval.exactly(data)
    for step in program.steps:
        if tensor in step.view.layer.outputs:
            return output_interval(program, step, known, step.view.layer.outputs.index(tensor))
    raise CannotCompare(f"nothing shown leads to {program.graph.label(tensor)}")


def output_interval(program: Program, step: Step, known: Mapping[int, Array], position: int = 0) -> Interval:
    """What output ``position`` of a layer may hold, given the values of ``known`` tensors before it."""
    inputs = [None if i == -1 else interval_of(program, i, known) for i in step.view.layer.inputs]
    exact = [None if each is None else each.low for each in inputs if each is None or each.is_exact]
    if step.missing or step.rule.method == "unspecified":
        if len(exact) < len(inputs):
            raise CannotCompare(f"{step.view} reads what is only known within a bound")
        try:
            return bound_for(step.view)(exact)
        except UnsupportedOp as error:
            raise CannotCompare(step.missing or str(error)) from None
    if len(exact) == len(inputs):
        return Interval.exactly(program.run_step(step, exact).outputs[position])
    return _through(program, step, inputs, position)


def _through(program: Program, step: Step, inputs: list[Interval | None], position: int) -> Interval:
    """A layer with a rule, run at the ends of its inputs."""

    def run(*highs: bool) -> Array:
        ends = [
            None if each is None else each.high if high else each.low
            for each, high in zip(inputs, highs, strict=True)
        ]
        return program.run_step(step, ends).outputs[position]

    count = len(inputs)
    if step.view.op in INCREASING:
        _refuse_wrapping(step, inputs)
        return Interval(run(*[False] * count), run(*[True] * count))
    if step.view.op in DIFFERENCES and count == 2:
        return Interval(run(False, True), run(True, False))
    if step.view.op in PRODUCTS and count == 2:
        corners = [run(first, second) for first in (False, True) for second in (False, True)]
        return Interval(np.minimum.reduce(corners), np.maximum.reduce(corners))
    raise CannotCompare(
        f"{step.view} reads what is only known within a bound, which does not pass through it"
    )


def _refuse_wrapping(step: Step, inputs: list[Interval | None]) -> None:
    """A quantization whose conversion to int32 wraps around is not increasing beyond that."""
    first, output = inputs[0], step.view.outputs[0]
    if step.view.op != "QUANTIZE" or step.rule.overflow != "wraps" or first is None:
        return
    scale = output.scale
    if max(abs(float(first.low.min())), abs(float(first.high.max()))) / scale > INT32_STEPS:
        raise CannotCompare(f"{step.view} may quantize values that no int32 step count holds")
