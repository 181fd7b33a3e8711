"""Ops of one or two bytes as tables: every input there is, computed by the spec once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, LayerView, Tensor
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.profiles.tflite.broadcast import inner_loop

UNARY = frozenset(
    {
        "DEQUANTIZE", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1",
        "TANH", "DequantizeLinear", "com.microsoft:DequantizeLinear", "com.microsoft:QLinearLeakyRelu",
        "com.microsoft:QLinearSigmoid",
    }
)  # fmt: skip
"""Ops whose every output value depends on one input value, at the place of the output."""

PAIRS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "ADD": (0, 1), "SUB": (0, 1), "MUL": (0, 1),
        "com.microsoft:QLinearAdd": (0, 3), "com.microsoft:QLinearMul": (0, 3),
    }
)  # fmt: skip
"""Ops whose every output value depends on one value of each of two inputs, at these positions."""

BYTES = ("int8", "uint8")


@dataclass(frozen=True, eq=False)
class Table:
    """Outputs of one method for every input: ``[256]``, or ``[256, 256]`` for pairs (left, right), in the
    order of the stored values."""

    method: Method
    outputs: Array


def table(view: LayerView, rule: Rule, method: Method) -> Table | None:
    """The layer's table where all is rounded by ``method``; None for an op that has none, or no bytes."""
    plain = replace(rule, method=method, tail=None, block=0, block_axis="none")
    if view.op in UNARY and view.input(0).dtype in BYTES and _one_scale(view.input(0)):
        values = _all_values(view.input(0))
        return Table(method, _run(view, plain, {0: values}))
    if view.op in PAIRS:
        left, right = PAIRS[view.op]
        if {view.input(left).dtype, view.input(right).dtype} <= set(BYTES):
            return Table(method, _pairs(view, plain, left, right))
    return None


def _one_scale(tensor: Tensor) -> bool:
    return tensor.quantization is None or not tensor.quantization.per_channel


def _all_values(tensor: Tensor) -> Array:
    low, high = QUANTIZED_RANGE[tensor.dtype]
    return np.arange(low, high + 1).astype(DTYPES[tensor.dtype])


def _pairs(view: LayerView, rule: Rule, left: int, right: int) -> Array:
    """A single value on one side may be computed by a loop of its own, so it stays a single value."""
    lefts, rights = _all_values(view.input(left)), _all_values(view.input(right))
    sizes = [np.prod(view.input(i).shape) for i in (left, right)]
    scalar = inner_loop(view).kind == "scalar" if view.op.isupper() else min(sizes) == 1 < max(sizes)
    if not scalar:
        outputs = _run(view, rule, {left: np.repeat(lefts, 256), right: np.tile(rights, 256)})
        return outputs.reshape(256, 256)
    if sizes[1] <= sizes[0]:
        return np.stack([_run(view, rule, {left: lefts, right: rights[i : i + 1]}) for i in range(256)], 1)
    return np.stack([_run(view, rule, {left: lefts[i : i + 1], right: rights}) for i in range(256)])


def _run(view: LayerView, rule: Rule, values: Mapping[int, Array]) -> Array:
    """The spec on a layer like ``view`` whose data have the shapes of ``values``, one-dimensional."""
    inputs = tuple(
        tensor if tensor is None or position not in values else _reshaped(tensor, values[position].size)
        for position, tensor in enumerate(view.inputs)
    )
    size = max(value.size for value in values.values())
    small = LayerView(view.layer, inputs, (_reshaped(view.output(), size),))
    given = [
        values.get(position, None if tensor is None else tensor.data)
        for position, tensor in enumerate(inputs)
    ]
    return OPS[view.op].spec(small, given, rule).outputs[0]


def _reshaped(tensor: Tensor, size: int) -> Tensor:
    return replace(tensor, shape=(size,), data=None, shape_signature=None)
