"""Intervals through layers whose rule is known: a hidden float edge, a QuantizeLinear behind it.

A layer whose output never decreases when an input grows maps an interval to the interval between its results
for the two ends. Rounding is included, since it never exchanges the order of two values. So the oracle's own
layer is run at both ends, and behind a quantization there is a set of allowed integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from karat24.refimpl.bounds import bounds_for
from karat24.refimpl.bounds.interval import Interval
from karat24.refimpl.engine import Program
from karat24.refimpl.errors import CannotCompare, ModelError
from karat24.refimpl.graph import Array, Tensor
from karat24.refimpl.step import Step

INCREASING = frozenset(
    {
        "ADD", "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "PACK",
        "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE",
        "TRANSPOSE", "UNPACK", "Add", "Clip", "Concat", "DequantizeLinear", "Flatten", "Identity", "Max",
        "MaxPool", "Min", "QuantizeLinear", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
        "Unsqueeze", "com.microsoft:DequantizeLinear", "com.microsoft:QuantizeLinear",
    }
)  # fmt: skip
"""Ops that never decrease when the values of their inputs grow, parameters being constants."""

PRODUCTS = frozenset({"MUL", "Mul"})
"""Ops whose largest and smallest results are found at ends of their inputs."""

DIFFERENCES = frozenset({"SUB", "Sub"})
"""Ops that grow with their first input and shrink as the second one grows."""

Inputs: TypeAlias = Sequence[Interval | None]
"""One interval per input of a layer, constants included; None where an optional input is left out."""

INT32_STEPS = 2.0**31 - 2**8
"""Largest quotient that surely fits an int32."""


def interval_of(program: Program, tensor: int, known: Mapping[int, Array]) -> Interval:
    """What tensor ``tensor`` of the program's graph may hold, given the values of ``known`` tensors.

    Works from the known tensors it follows from. Raises CannotCompare, with the reason, where a layer on the
    way has neither a rule through which intervals pass nor a bound, or leads to no known tensor.
    """
    found: dict[int, Interval] = {index: Interval.exactly(values) for index, values in known.items()}
    for step in _leading_to(program, tensor, known):
        inputs = [None if t is None else _present(found, t) for t in step.view.inputs]
        for output, interval in zip(step.view.outputs, output_intervals(program, step, inputs), strict=True):
            found.setdefault(output.index, interval)
    return _present(found, program.graph.tensors[tensor])


def output_intervals(program: Program, step: Step, inputs: Inputs) -> tuple[Interval, ...]:
    """What the outputs of a layer may hold, given its inputs.

    Raises CannotCompare, with the reason, where the layer has neither a rule through which intervals pass
    nor a bound for exact inputs.
    """
    exact = [None if each is None else each.low for each in inputs if each is None or each.is_exact]
    if step.missing or step.rule.method == "unspecified":
        if len(exact) < len(inputs):
            raise CannotCompare(f"{step.view} reads what is only known within a bound")
        try:
            return bounds_for(step.view, step.rule)(exact)
        except ModelError as error:
            raise CannotCompare(step.missing or str(error)) from None
    if len(exact) == len(inputs):
        return tuple(Interval.exactly(values) for values in program.run_step(step, exact).outputs)
    return _through(program, step, inputs)


def _leading_to(program: Program, tensor: int, known: Mapping[int, Array]) -> list[Step]:
    """The layers between known tensors and this one, in order."""
    wanted, steps = {tensor}, []
    for step in reversed(program.steps):
        if not wanted.isdisjoint(set(step.view.layer.outputs).difference(known)):
            steps.append(step)
            wanted.update(step.view.layer.inputs)
    return steps[::-1]


def _present(found: Mapping[int, Interval], tensor: Tensor) -> Interval:
    if tensor.index in found:
        return found[tensor.index]
    if tensor.data is None:
        raise CannotCompare(f"nothing shown leads to tensor {tensor.index} ({tensor.name!r})")
    return Interval.exactly(tensor.data)


def _through(program: Program, step: Step, inputs: Inputs) -> tuple[Interval, ...]:
    """The outputs of a layer with a rule, from runs at the ends of its inputs."""

    def run(*highs: bool) -> tuple[Array, ...]:
        ends = [
            None if each is None else each.high if high else each.low
            for each, high in zip(inputs, highs, strict=True)
        ]
        return program.run_step(step, ends).outputs

    count = len(inputs)
    if step.view.op in INCREASING:
        _refuse_wrapping(step, inputs)
        ends = run(*[False] * count), run(*[True] * count)
    elif step.view.op in DIFFERENCES and count == 2:
        ends = run(False, True), run(True, False)
    elif step.view.op in PRODUCTS and count == 2:
        corners = [run(first, second)[0] for first in (False, True) for second in (False, True)]
        ends = (np.minimum.reduce(corners),), (np.maximum.reduce(corners),)
    else:
        raise CannotCompare(f"{step.view} reads what is only known within a bound, which does not pass it")
    return tuple(Interval(low, high) for low, high in zip(*ends, strict=True))


def _refuse_wrapping(step: Step, inputs: Inputs) -> None:
    """Refuses a quantization whose conversion to int32 may wrap around: it would not be increasing."""
    first, output = inputs[0], step.view.outputs[0]
    if step.view.op != "QUANTIZE" or step.rule.overflow != "wraps" or first is None:
        return
    scale = output.scale
    if max(abs(float(first.low.min())), abs(float(first.high.max()))) / scale > INT32_STEPS:
        raise CannotCompare(f"{step.view} may quantize values that no int32 step count holds")
