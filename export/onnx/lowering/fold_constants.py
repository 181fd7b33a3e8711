"""Constant folding, above all of filters that a training tool leaves in float."""

from __future__ import annotations

import math

import numpy as np

from karat24.export.onnx.lowering.rewriting import Node, Rewriting
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import DTYPES, Array
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles.rules import EXACT, Rule

FOLDABLE = frozenset(
    {
        "Abs", "Add", "Cast", "Clip", "Div", "Flatten", "Identity", "Mul", "Neg", "QuantizeLinear", "Reshape",
        "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Ops whose result is equal in every runtime. DequantizeLinear is not among them: ONNX Runtime
keeps it, since it may become a part of an integer op."""

QUOTIENT = Rule("divide_float32")
"""How every runtime quantizes constants: float32 quotients, rounded half to even."""

MOST_TIMES = 4
"""Folded constants take at most this many times the bytes of the file's own: a file may be hostile."""


def fold_constants(rewriting: Rewriting) -> None:
    """Replaces nodes of ``FOLDABLE`` ops over constants by constants, which keep the tensor indices.

    A node whose result would be larger than what it reads stays, and so does one that cannot be computed.
    """
    left = MOST_TIMES * sum(tensor.data.nbytes for tensor in rewriting.tensors if tensor.data is not None)
    for node in rewriting.each(*FOLDABLE):
        values = [None if index == -1 else rewriting.data(index) for index in node.inputs]
        if any(value is None and index != -1 for index, value in zip(node.inputs, values, strict=True)):
            continue
        if len(node.outputs) != 1 or node.outputs[0] in rewriting.outputs or not values:
            continue
        result = rewriting.tensors[node.outputs[0]]
        if result.dtype not in DTYPES:
            continue
        size = math.prod(result.shape)
        if size > max(value.size for value in values if value is not None):
            continue
        if size * DTYPES[result.dtype].itemsize > left:
            continue
        found = _computed(rewriting, node, values)
        if found is not None:
            left -= found.nbytes
            rewriting.make_constant(result.index, found)
            rewriting.remove(node)


def _computed(rewriting: Rewriting, node: Node, values: list[Array | None]) -> Array | None:
    view = rewriting.view(node)
    try:
        OPS[node.op].check(view)
        rule = QUOTIENT if node.op == "QuantizeLinear" else EXACT
        (found,) = OPS[node.op].spec(view, values, rule).outputs
    except KaratError:
        return None  # the node stays: when it runs, the error says what is wrong
    return np.ascontiguousarray(found).reshape(view.output().shape)
