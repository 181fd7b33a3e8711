"""Transposes that ONNX Runtime's optimizer removes, as far as they decide what runs on integers."""

from __future__ import annotations

import dataclasses

import numpy as np

from karat24.export.onnx.lowering.pairs import parameters_of
from karat24.export.onnx.lowering.rewriting import DEQUANTIZE, QUANTIZE, Node, Rewriting


def transpose_stored(rewriting: Rewriting) -> None:
    """Transposes a constant in place of the Transpose after its DequantizeLinear; scales follow their axis.

    PyTorch exports linear layers in this form. ONNX Runtime's transpose optimizer does the same.
    """
    for node in rewriting.each("Transpose"):
        source = rewriting.dequantize_of(node, 0)
        stored = None if source is None else rewriting.data(source.inputs[0])
        if source is None or stored is None or rewriting.only_reader(source) is not node:
            continue
        if any(rewriting.data(index) is None for index in source.inputs if index != -1):
            continue
        order = rewriting.view(node).integers("perm", tuple(reversed(range(stored.ndim))))
        attributes = dict(source.attributes)
        if rewriting.tensors[source.inputs[1]].shape not in ((), (1,)):
            axis = rewriting.view(source).integer("axis", 1) % max(stored.ndim, 1)
            attributes["axis"] = order.index(axis)
        original = rewriting.tensors[source.inputs[0]]
        moved = np.ascontiguousarray(stored.transpose(order))
        quantization = original.quantization
        if quantization is not None and quantization.per_channel:
            quantization = dataclasses.replace(quantization, axis=order.index(quantization.axis))
        constant = rewriting.add_constant(f"{original.name}/transposed", moved, quantization)
        inputs = [constant, *source.inputs[1:]]
        rewriting.replace(node, Node(DEQUANTIZE, inputs, node.outputs, attributes, source.version))


def cancel_transposes(rewriting: Rewriting) -> None:
    """Removes a Transpose and its inverse where only quantizations per tensor lie between them, so that pairs
    follow one another.

    The tensors between keep their names and get the shape from before the first Transpose.
    """
    for back in rewriting.each("Transpose"):
        between, there = _through_pairs(rewriting, back)
        if there is None or back.outputs[0] in rewriting.outputs:
            continue
        first, second = _order(rewriting, there), _order(rewriting, back)
        if [first[axis] for axis in second] != list(range(len(first))):
            continue
        shape = rewriting.tensors[there.inputs[0]].shape
        for node in between:
            tensor = rewriting.tensors[node.outputs[0]]
            rewriting.tensors[tensor.index] = dataclasses.replace(tensor, shape=shape)
        rewriting.bypass(back)
        rewriting.bypass(there)


def _through_pairs(rewriting: Rewriting, back: Node) -> tuple[list[Node], Node | None]:
    """The quantizing and dequantizing nodes before a Transpose, and the Transpose before them, if any."""
    between: list[Node] = []
    node = rewriting.producer(back.inputs[0])
    while node is not None and rewriting.only_reader(node) is not None:
        if node.op == "Transpose":
            return between, node
        if node.op not in (QUANTIZE, DEQUANTIZE) or parameters_of(rewriting, node) is None:
            break
        between.append(node)
        node = rewriting.producer(node.inputs[0])
    return between, None


def _order(rewriting: Rewriting, node: Node) -> tuple[int, ...]:
    rank = len(rewriting.tensors[node.inputs[0]].shape)
    return rewriting.view(node).integers("perm", tuple(reversed(range(rank))))
