"""From a QDQ graph to the integer graph ONNX Runtime runs for it.

ONNX Runtime 1.31 at ORT_ENABLE_ALL with ``session.qdqisint8allowed=1`` replaces each op between
DequantizeLinear and QuantizeLinear nodes by one on integers where it has one
(``fusions.py``), and leaves the rest in float. What a runtime computes is then layers of the result, not
of the file: QLinearConv rounds once, from the accumulator, where Conv in float rounds many
times. The steps here are those of its optimizer that decide where integers are used; layout changes and
fusions of float ops, which it also does, are not modelled: what stays float here is float there, be it
as FusedConv or MatMulNBits.
"""

from __future__ import annotations

import numpy as np

from export.onnx.lowering.fusions import FUSIONS
from export.onnx.lowering.quantize_constants import leads_to_quantize, quantize_constants
from export.onnx.lowering.rewriting import DEQUANTIZE, QUANTIZE, Node, Rewriting
from refimpl.errors import ModelError, UnsupportedOp
from refimpl.graph import QUANTIZED_RANGE, Graph, Quantization

PROPAGATING = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Ops over which quantization spreads: one on float values next to quantized ones becomes quantized."""

REMOVED = frozenset({"Dropout", "Identity"})
"""Ops that hand their input on."""


def lower_qdq(graph: Graph) -> Graph:
    """The integer graph ONNX Runtime makes of a QDQ graph; one without QDQ pairs comes back as it is.

    Tensors keep their indices and names; those no layer writes any more have no value. A few new ones,
    behind the others, are zero points and biases the file leaves out, and edges quantization spreads to.

    Raises ModelError for a graph that is not in ONNX layout, and UnsupportedOp where the optimizer would
    choose new quantization parameters: two quantizations in a row.
    """
    if graph.format != "onnx":
        raise ModelError(f"graph {graph.name!r} is in {graph.format} layout; only ONNX graphs are lowered")
    rewriting = Rewriting(graph)
    _remove_identities(rewriting)
    _merge_double_pairs(rewriting)
    _merge_equal_quantizations(rewriting)
    _spread_backward(rewriting)
    _spread_forward(rewriting)
    quantize_constants(rewriting)
    _remove_clips(rewriting)
    for node in rewriting.each(*FUSIONS):
        FUSIONS[node.op](rewriting, node)
    rewriting.sweep()
    _remove_empty_requantizations(rewriting)
    rewriting.sweep()
    return rewriting.build()


def _remove_identities(rewriting: Rewriting) -> None:
    for node in rewriting.each(*REMOVED):
        if len(node.outputs) == 1 and node.outputs[0] not in rewriting.outputs:
            rewriting.bypass(node)


def _merge_double_pairs(rewriting: Rewriting) -> None:
    """Two pairs in a row with nothing else reading between them become one.

    ONNX Runtime gives it parameters of its own unless both have the same.
    """
    for second in rewriting.each(QUANTIZE):
        between, last = rewriting.dequantize_of(second, 0), rewriting.only_reader(second)
        first = None if between is None else rewriting.producer(between.inputs[0])
        if between is None or first is None or first.op != QUANTIZE or last is None or last.op != DEQUANTIZE:
            continue
        if rewriting.only_reader(first) is not between or rewriting.only_reader(between) is not second:
            continue
        if not _read_once(rewriting, last):
            continue
        if not same_parameters(rewriting, first, between) or not same_parameters(rewriting, second, last):
            continue
        if same_parameters(rewriting, first, second):
            rewriting.read(last, 0, first.outputs[0])
            rewriting.remove(between)
            rewriting.remove(second)
        elif _type(rewriting, first) == _type(rewriting, second):
            raise UnsupportedOp(
                f"{rewriting.view(second)} quantizes what {rewriting.view(first)} just did, with other "
                "parameters; ONNX Runtime merges the two into parameters of its own: remove one of them"
            )


def _merge_equal_quantizations(rewriting: Rewriting) -> None:
    """Of QuantizeLinear nodes with one zero point and equal scales one is enough: here the first.

    ONNX Runtime shares equal float constants first, but not 8-bit ones; which node it keeps varies.
    """
    for first in rewriting.each(QUANTIZE):
        for other, position in rewriting.readers(first.inputs[0]):
            if (
                other is not first
                and other.op == QUANTIZE
                and position == 0
                and other.outputs[0] not in rewriting.outputs
                and other.input(2) == first.input(2)
                and same_parameters(rewriting, first, other)
            ):
                for reader, slot in rewriting.readers(other.outputs[0]):
                    rewriting.read(reader, slot, first.outputs[0])
                rewriting.remove(other)


def _remove_empty_requantizations(rewriting: Rewriting) -> None:
    """Dequantize → Quantize with equal parameters, such as a ReLU that did nothing leaves, is nothing.

    ONNX Runtime takes it out where one node reads the result, and runs it otherwise.
    """
    for quantize in rewriting.each(QUANTIZE):
        source, reader = rewriting.dequantize_of(quantize, 0), rewriting.only_reader(quantize)
        if source is None or reader is None or not _read_once(rewriting, reader):
            continue
        if same_parameters(rewriting, source, quantize):
            rewriting.read(reader, reader.inputs.index(quantize.outputs[0]), source.inputs[0])
            rewriting.remove(quantize)


def _read_once(rewriting: Rewriting, node: Node) -> bool:
    """False for a DequantizeLinear of several readers: ONNX Runtime gives each its own."""
    return node.op != DEQUANTIZE or len(rewriting.readers(node.outputs[0])) < 2


def _type(rewriting: Rewriting, quantize: Node) -> str:
    return rewriting.tensors[quantize.outputs[0]].dtype


def same_parameters(rewriting: Rewriting, left: Node, right: Node) -> bool:
    """True when both nodes quantize per tensor with equal constant parameters and types."""
    parameters = []
    for node in (left, right):
        scale, zero_point = rewriting.data(node.inputs[1]), rewriting.data(rewriting.zero_point(node))
        if scale is None or zero_point is None or scale.size != 1:
            return False
        parameters.append((scale.item(), zero_point.item(), zero_point.dtype))
    return parameters[0] == parameters[1]


def _constant_scalars(rewriting: Rewriting, node: Node) -> bool:
    scale = rewriting.data(node.inputs[1])
    zero_point = node.input(2) == -1 or rewriting.data(node.inputs[2]) is not None
    return scale is not None and scale.size == 1 and zero_point


def _spread_backward(rewriting: Rewriting) -> None:
    """Over ops that only move values, from a QuantizeLinear towards what computes the values."""
    for quantize in rewriting.each(QUANTIZE):
        if not _constant_scalars(rewriting, quantize):
            continue
        mover = rewriting.producer(quantize.inputs[0])
        while mover is not None and mover.op in PROPAGATING and rewriting.only_reader(mover) is not None:
            source = rewriting.producer(mover.inputs[0])
            if source is not None and (source.op == DEQUANTIZE or rewriting.only_reader(source) is not mover):
                break
            if source is None and rewriting.data(mover.inputs[0]) is not None:
                break
            _insert_pair(rewriting, mover.inputs[0], [(mover, 0)], quantize)
            mover = source


def _spread_forward(rewriting: Rewriting) -> None:
    """Over ops that only move values, from a DequantizeLinear towards what reads them."""
    for dequantize in rewriting.each(DEQUANTIZE):
        direct = [reader for reader, _ in rewriting.readers(dequantize.outputs[0])]
        # A reader that a QuantizeLinear follows gets a DequantizeLinear of its own first.
        movers = [reader for reader in direct if not leads_to_quantize(rewriting, reader)]
        if len(movers) != 1 or dequantize.outputs[0] in rewriting.outputs:
            continue
        if not _constant_scalars(rewriting, dequantize):
            continue
        while movers:
            mover = movers.pop()
            if mover.op not in PROPAGATING:
                continue
            index = mover.outputs[0]
            readers = [reader for reader in rewriting.readers(index) if reader[0].op != QUANTIZE]
            if index in rewriting.outputs:
                if rewriting.readers(index):
                    continue
                _insert_before_output(rewriting, mover, dequantize)
            elif readers:
                _insert_pair(rewriting, index, readers, dequantize)
                movers += [reader for reader, _ in readers]


def _insert_pair(rewriting: Rewriting, index: int, readers: list[tuple[Node, int]], like: Node) -> None:
    """QuantizeLinear and DequantizeLinear, with the parameters of ``like``, on an edge to ``readers``."""
    tensor = rewriting.tensors[index]
    quantized = _quantized_twin(rewriting, index, like)
    restored = rewriting.add_tensor(f"{tensor.name}_post_dq", tensor, tensor.dtype)
    pair = [
        Node(QUANTIZE, [index, *_parameters(rewriting, like)], [quantized], {}, like.version),
        Node(DEQUANTIZE, [quantized, *_parameters(rewriting, like)], [restored], {}, like.version),
    ]
    position = min(rewriting.nodes.index(reader) for reader, _ in readers)
    rewriting.insert(position, *pair)
    for reader, slot in readers:
        rewriting.read(reader, slot, restored)


def _insert_before_output(rewriting: Rewriting, mover: Node, like: Node) -> None:
    """Drops a pair before a graph output, whose values the DequantizeLinear writes."""
    index = mover.outputs[0]
    tensor = rewriting.tensors[index]
    rewriting.write(mover, 0, rewriting.add_tensor(f"{tensor.name}_pre_q", tensor, tensor.dtype))
    quantized = _quantized_twin(rewriting, index, like)
    position = rewriting.nodes.index(mover) + 1
    rewriting.insert(
        position,
        Node(QUANTIZE, [mover.outputs[0], *_parameters(rewriting, like)], [quantized], {}, like.version),
        Node(DEQUANTIZE, [quantized, *_parameters(rewriting, like)], [index], {}, like.version),
    )


def _parameters(rewriting: Rewriting, node: Node) -> list[int]:
    return [node.inputs[1], rewriting.zero_point(node)]


def _quantized_twin(rewriting: Rewriting, index: int, like: Node) -> int:
    tensor = rewriting.tensors[index]
    scale, zero_point = (rewriting.data(i) for i in _parameters(rewriting, like))
    assert scale is not None
    assert zero_point is not None
    parameters = Quantization.per_tensor(scale.item(), zero_point.item())
    return rewriting.add_tensor(f"{tensor.name}_q_to_dq", tensor, zero_point.dtype.name, parameters)


def _remove_clips(rewriting: Rewriting) -> None:
    """A Relu or Clip does nothing where the quantization behind it has no values beyond its ends."""
    for node in rewriting.each("Relu", "Clip"):
        quantize = rewriting.only_reader(node)
        if quantize is None or quantize.op != QUANTIZE or not _constant_scalars(rewriting, quantize):
            continue
        scale, zero_point = (rewriting.data(i) for i in _parameters(rewriting, quantize))
        assert scale is not None
        assert zero_point is not None
        qmin, qmax = QUANTIZED_RANGE[zero_point.dtype.name]
        if node.op == "Relu":
            redundant = zero_point.item() == qmin
        else:
            low, high = _clip_range(rewriting, node)
            step, offset = np.float32(scale.item()), zero_point.item()
            epsilon = np.finfo(np.float32).eps
            redundant = bool(
                low - step * np.float32(qmin - offset) <= epsilon
                and step * np.float32(qmax - offset) - high <= epsilon
            )
        if redundant:
            rewriting.bypass(node)


def _clip_range(rewriting: Rewriting, node: Node) -> tuple[np.float32, np.float32]:
    """Both ends, unlimited where left out; an end that is not constant clips everything."""
    ends = []
    for position, unlimited in ((1, -np.inf), (2, np.inf)):
        values = rewriting.data(node.input(position))
        if node.input(position) == -1:
            ends.append(np.float32(unlimited))
        else:
            ends.append(np.float32(-unlimited if values is None else values.item()))
    return ends[0], ends[1]
