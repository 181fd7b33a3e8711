"""What ONNX Runtime makes of a model, and how a lowered graph compares with it, node by node."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from karat24.export.onnx.schema import op_name
from karat24.refimpl.graph import Array, Graph
from tests.support.ort_session import session

LAYOUT_PASSES = (
    "NchwcTransformer",
    "NhwcTransformer",
    "TransposeOptimizer",
    "TransposeOptimizer_CPUExecutionProvider",
)
"""Passes that reorder axes; without them the optimized graph keeps the file's layout."""

NO_TRANSPOSES = ("NchwcTransformer", "NhwcTransformer")
"""For models whose images are never transposed: stored filters still are."""


def optimized(content: bytes, int8_allowed: bool, disabled: Iterable[str] = LAYOUT_PASSES) -> Any:
    """The ModelProto ONNX Runtime writes after optimizing without some passes.

    Raises onnxruntime's ``Fail`` for a model it refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        session(content, int8_allowed=int8_allowed, save=path, disabled_optimizers=list(disabled))
        return onnx.load(path)


class Term(NamedTuple):
    """A value as the expression that computes it: an op over terms, a graph input, or a constant."""

    op: str
    attributes: tuple[tuple[str, Any], ...] = ()
    inputs: tuple[Any, ...] = ()
    position: int = 0
    values: Array | None = None

    def text(self, depth: int = 3) -> str:
        """For messages, cut off below ``depth``."""
        if not self.inputs or depth == 0:
            return self.op
        return f"{self.op}({', '.join(term.text(depth - 1) for term in self.inputs)})"


FUSED = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
"""Activations a FusedConv or FusedGemm ends in."""


def terms_of_model(model: Any) -> list[Term]:
    """The outputs of an optimized model; float ops it has fused are taken apart again."""
    terms: dict[str, Term] = {"": Term("absent")}
    for value in model.graph.input:
        terms[value.name] = Term(f"input {value.name}")
    for proto in model.graph.initializer:
        terms[proto.name] = _constant(numpy_helper.to_array(proto))
    for node in model.graph.node:
        op = op_name(node.domain, node.op_type)
        attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        activation = attributes.pop("activation", "")
        for name in ("activation_params", "transBatchA", "transBatchB"):
            attributes.pop(name, None)
        inputs = [terms[name] for name in node.input]
        if node.op_type.startswith("Fused"):
            op = node.op_type.removeprefix("Fused")
        for position, name in enumerate(node.output):
            term = _term(op, attributes, inputs, position)
            terms[name] = Term(activation, (), (term,)) if activation else term
    return [terms[value.name] for value in model.graph.output]


def terms_of_graph(graph: Graph) -> list[Term]:
    """The outputs of one of this project's graphs in ONNX layout."""
    terms: dict[int, Term] = {-1: Term("absent")}
    for index in graph.inputs:
        terms[index] = Term(f"input {graph.tensors[index].name}")
    for tensor in graph.tensors:
        if tensor.data is not None:
            terms[tensor.index] = _constant(tensor.data)
    for layer in graph.layers:
        attributes = {name: _plain(value) for name, value in layer.attributes.items()}
        inputs = [terms[index] for index in layer.inputs]
        for position, index in enumerate(layer.outputs):
            terms[index] = _term(layer.op, attributes, inputs, position)
    return [terms[index] for index in graph.outputs]


def _constant(values: Array) -> Term:
    """Lists of one number count as numbers, and so do zeros of 8 bits: ONNX Runtime writes either."""
    shape = values.shape if values.size != 1 else ()
    if values.itemsize == 1 and not values.any():
        return Term(f"zero of {values.dtype}")
    return Term(f"{values.dtype}{list(shape)}{values.tobytes().hex()}", values=values)


TRANSPOSED = {"Gemm": 1, "com.microsoft:QGemm": 3}
"""Where the matrix stands that ``transB`` is about."""


def _term(op: str, attributes: dict[str, Any], inputs: list[Term], position: int) -> Term:
    """Brought into one form: what two graphs may write in two ways is no difference."""
    inputs, kept = list(inputs), dict(attributes)
    if op in ("QuantizeLinear", "DequantizeLinear"):
        kept = {"axis": kept.get("axis", 1)} if "[]" not in inputs[1].op else {}
        if op == "DequantizeLinear" and len(inputs) > 2 and _is_zero(inputs[2]):
            inputs.pop()
    if op == "Clip":
        inputs = inputs[:1]  # a FusedConv keeps its ends elsewhere
    if op == "HardSwish":
        return Term("Mul", (), (inputs[0], Term("HardSigmoid", (), (inputs[0],))))
    if kept.get("transB") and (turned := _turned(inputs[TRANSPOSED.get(op, 1)])) is not None:
        inputs[TRANSPOSED.get(op, 1)], kept["transB"] = turned, 0
    while inputs and inputs[-1].op == "absent":
        inputs.pop()
    return Term(op, tuple(sorted(kept.items())), tuple(inputs), position)


def _is_zero(term: Term) -> bool:
    return term.op.startswith("zero") or (term.values is not None and not term.values.any())


def _turned(term: Term) -> Term | None:
    """A constant matrix transposed, stored as it is or dequantized; None for anything else."""
    if term.values is not None and term.values.ndim == 2:
        return _constant(np.ascontiguousarray(term.values.T))
    if term.op != "DequantizeLinear" or (stored := _turned(term.inputs[0])) is None:
        return None
    attributes = tuple((name, 1 - value) for name, value in term.attributes)
    return Term(term.op, attributes, (stored, *term.inputs[1:]))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return float(np.float32(value))
    return tuple(_plain(entry) for entry in value) if isinstance(value, (list, tuple)) else value


def difference(lowered: Term, runtime: Term, where: str = "") -> str:
    """The first place where two terms differ, as text; empty when they agree.

    Attributes the runtime adds are defaults and are not compared; what the lowered graph stores must be
    in the runtime's as well.
    """
    seen: set[tuple[int, int]] = set()

    def first(left: Term, right: Term, path: str) -> str:
        if left is right or (id(left), id(right)) in seen:
            return ""
        seen.add((id(left), id(right)))
        if right.op == "com.microsoft:MatMulNBits" and left.op in ("Gemm", "MatMul"):
            return first(left.inputs[0], right.inputs[0], path)  # in float, with a filter in blocks
        given = dict(right.attributes)
        same = all(given.get(name, value) == value for name, value in left.attributes)
        if (left.op, left.position, len(left.inputs)) != (
            right.op,
            right.position,
            len(right.inputs),
        ) or not same:
            return f"{path}: lowered {left.text()}{dict(left.attributes)}; runtime {right.text()}{given}"
        for number, pair in enumerate(zip(left.inputs, right.inputs, strict=True)):
            found = first(*pair, f"{path}/{left.op}[{number}]")
            if found:
                return found
        return ""

    return first(lowered, runtime, where)


def differences(lowered: Graph, model: Any) -> list[str]:
    """For each output that is computed otherwise, where."""
    pairs = zip(terms_of_graph(lowered), terms_of_model(model), strict=True)
    return [text for number, pair in enumerate(pairs) if (text := difference(*pair, f"output {number}"))]
