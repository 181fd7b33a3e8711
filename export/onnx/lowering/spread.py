"""Quantization spreads over ops that only move values (ONNX Runtime's QDQPropagationTransformer)."""

from __future__ import annotations

from karat24.export.onnx.lowering.pairs import parameters_of
from karat24.export.onnx.lowering.rewriting import DEQUANTIZE, QUANTIZE, Node, Rewriting
from karat24.refimpl.graph import Quantization

PROPAGATING = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Ops over which quantization spreads: their float side gets the parameters of their quantized side."""


def spread_backward(rewriting: Rewriting) -> None:
    """Spreads from a QuantizeLinear towards the node that computes the values."""
    for quantize in rewriting.each(QUANTIZE):
        if parameters_of(rewriting, quantize) is None:
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


def spread_forward(rewriting: Rewriting) -> None:
    """Spreads from a DequantizeLinear towards the nodes that read the values."""
    for dequantize in rewriting.each(DEQUANTIZE):
        (index,) = dequantize.outputs
        readers = rewriting.readers(index)
        if len(readers) != 1 or index in rewriting.outputs or parameters_of(rewriting, dequantize) is None:
            continue
        movers = [reader for reader, position in readers if position == 0]
        while movers:
            mover = movers.pop()
            if mover.op not in PROPAGATING:
                continue
            index = mover.outputs[0]
            # Quantization spreads to a QuantizeLinear after the moving op, but not over it.
            readers = [reader for reader in rewriting.readers(index) if reader[0].op != QUANTIZE]
            if index in rewriting.outputs:
                _insert_before_output(rewriting, mover, dequantize, readers)
            elif readers:
                _insert_pair(rewriting, index, readers, dequantize)
            movers += [reader for reader, position in readers if position == 0]


def _insert_pair(rewriting: Rewriting, index: int, readers: list[tuple[Node, int]], like: Node) -> None:
    """A QuantizeLinear with the parameters of ``like`` on an edge, and a DequantizeLinear per reader."""
    tensor = rewriting.tensors[index]
    quantized = _quantized_twin(rewriting, index, like)
    position = min(rewriting.nodes.index(reader) for reader, _ in readers)
    nodes = [Node(QUANTIZE, [index, *_parameters(rewriting, like)], [quantized], {}, like.version)]
    for reader, slot in readers:
        restored = rewriting.add_tensor(f"{tensor.name}_post_dq", tensor, tensor.dtype)
        inputs = [quantized, *_parameters(rewriting, like)]
        nodes.append(Node(DEQUANTIZE, inputs, [restored], {}, like.version))
        rewriting.read(reader, slot, restored)
    rewriting.insert(position, *nodes)


def _insert_before_output(
    rewriting: Rewriting, mover: Node, like: Node, readers: list[tuple[Node, int]]
) -> None:
    """As :func:`_insert_pair`, at a graph output, whose values one DequantizeLinear writes."""
    index = mover.outputs[0]
    tensor = rewriting.tensors[index]
    rewriting.write(mover, 0, rewriting.add_tensor(f"{tensor.name}_pre_q", tensor, tensor.dtype))
    quantized = _quantized_twin(rewriting, index, like)
    nodes = [Node(QUANTIZE, [mover.outputs[0], *_parameters(rewriting, like)], [quantized], {}, like.version)]
    ends = [index]
    for reader, slot in readers:
        ends.append(rewriting.add_tensor(f"{tensor.name}_post_dq", tensor, tensor.dtype))
        rewriting.read(reader, slot, ends[-1])
    nodes += [
        Node(DEQUANTIZE, [quantized, *_parameters(rewriting, like)], [end], {}, like.version) for end in ends
    ]
    rewriting.insert(rewriting.nodes.index(mover) + 1, *nodes)


def _parameters(rewriting: Rewriting, node: Node) -> list[int]:
    return [node.inputs[1], rewriting.zero_point(node)]


def _quantized_twin(rewriting: Rewriting, index: int, like: Node) -> int:
    tensor = rewriting.tensors[index]
    found = parameters_of(rewriting, like)
    assert found is not None
    quantization = Quantization.per_tensor(float(found.scale), found.zero_point)
    return rewriting.add_tensor(f"{tensor.name}_q_to_dq", tensor, found.dtype, quantization)
