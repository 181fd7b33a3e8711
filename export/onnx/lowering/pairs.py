"""Pairs of QuantizeLinear and DequantizeLinear: copied for each reader, merged, made uint8, removed.

``same`` below means per tensor, with equal constant scales and zero points of one type.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from karat24.export.onnx.lowering.rewriting import DEQUANTIZE, QUANTIZE, Node, Rewriting
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Quantization


class Parameters(NamedTuple):
    """How a node quantizes per tensor: float32 scale, zero point, and the type of the integers."""

    scale: np.float32
    zero_point: int
    dtype: str


def parameters_of(rewriting: Rewriting, node: Node) -> Parameters | None:
    """The parameters; None unless they are one constant scale and one constant zero point (0 if left out)."""
    scale = rewriting.data(node.inputs[1])
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        return None
    dtype = rewriting.tensors[node.outputs[0] if node.op == QUANTIZE else node.inputs[0]].dtype
    if dtype not in QUANTIZED_RANGE:
        return None
    if node.input(2) == -1:
        return Parameters(np.float32(scale.item()), 0, dtype)
    zero_point = rewriting.data(node.inputs[2])
    if zero_point is None or zero_point.size != 1:
        return None
    return Parameters(np.float32(scale.item()), int(zero_point.item()), dtype)


def same_parameters(rewriting: Rewriting, left: Node, right: Node) -> bool:
    """True when both nodes quantize per tensor with equal constant parameters and types."""
    found = parameters_of(rewriting, left)
    return found is not None and found == parameters_of(rewriting, right)


def dequantize_for_each_reader(rewriting: Rewriting) -> None:
    """Gives every reader of a DequantizeLinear a copy of its own (EnsureUniqueDQForNodeUnit)."""
    for node in rewriting.each(DEQUANTIZE):
        (index,) = node.outputs
        readers = rewriting.readers(index)
        source, copies = rewriting.tensors[index], []
        for reader, slot in readers if index in rewriting.outputs else readers[1:]:
            own = rewriting.add_tensor(f"{source.name}/own", source, source.dtype)
            attributes = dict(node.attributes)
            copies.append(Node(DEQUANTIZE, list(node.inputs), [own], attributes, node.version))
            rewriting.read(reader, slot, own)
        if copies:
            rewriting.insert(rewriting.nodes.index(node) + 1, *copies)


def share_dequantizations(rewriting: Rewriting) -> None:
    """Makes all readers of equal DequantizeLinear nodes read the first one, so that fewer layers remain."""
    first: dict[tuple[object, ...], Node] = {}
    for node in rewriting.each(DEQUANTIZE):
        key = (*node.inputs, *sorted(node.attributes.items()))
        kept = first.setdefault(key, node)
        if kept is not node and node.outputs[0] not in rewriting.outputs:
            for reader, slot in rewriting.readers(node.outputs[0]):
                rewriting.read(reader, slot, kept.outputs[0])
            rewriting.remove(node)


def merge_double_pairs(rewriting: Rewriting) -> bool:
    """Makes one pair of two in a row where nothing else reads between them (DoubleQDQPairsRemover).

    Of two equal pairs one is left; two of one type with different parameters get those of :func:`merged`.
    This is one sweep, which does not look again at what it merged; it returns True if it merged something.
    Raises UnsupportedOp when two pairs have no value in common: ONNX Runtime would divide by a scale of 0.
    """
    done: set[Node] = set()
    for between in rewriting.each(DEQUANTIZE):
        first, second = rewriting.producer(between.inputs[0]), rewriting.only_reader(between)
        if first is None or first.op != QUANTIZE or second is None or second.op != QUANTIZE:
            continue
        if rewriting.only_reader(first) is not between or second.outputs[0] in rewriting.outputs:
            continue
        last = [reader for reader, _ in rewriting.readers(second.outputs[0])]
        if not last or any(reader.op != DEQUANTIZE for reader in last):
            continue
        if between in done or not same_parameters(rewriting, first, between):
            continue
        if not all(same_parameters(rewriting, second, reader) for reader in last):
            continue
        left, right = parameters_of(rewriting, first), parameters_of(rewriting, second)
        assert left is not None
        assert right is not None
        if left.dtype != right.dtype:
            continue
        if left != right:
            together = merged(left, right)
            if together is None:
                raise UnsupportedOp(
                    f"{rewriting.view(second)} quantizes again what {rewriting.view(first)} quantized, and "
                    "their ranges have no value in common; ONNX Runtime computes a scale of 0: remove one"
                )
            set_parameters(rewriting, [first, *last], together)
        for reader in last:
            rewriting.read(reader, 0, first.outputs[0])
        rewriting.remove(second)
        rewriting.remove(between)
        done.update(last)
    return bool(done)


def merged(left: Parameters, right: Parameters) -> Parameters | None:
    """What ONNX Runtime makes of two quantizations in a row: the real values both have, in even steps.

    All in float32: ``low = max((qmin - zp) * scale)``, ``high = min((qmax - zp) * scale)``,
    ``scale = (high - low) / (qmax - qmin)``, ``zero_point = round(qmin - low / scale)``, ties away from
    zero. None when ``high`` is not above ``low``. Found by experiment on ONNX Runtime 1.32.
    """
    qmin, qmax = QUANTIZED_RANGE[left.dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        low = max(np.float32(qmin - side.zero_point) * side.scale for side in (left, right))
        high = min(np.float32(qmax - side.zero_point) * side.scale for side in (left, right))
        scale = np.float32(np.float32(high - low) / np.float32(qmax - qmin))
    if not (np.isfinite(scale) and scale > 0):
        return None
    position = np.float32(np.float32(qmin) - np.float32(low / scale))
    rounded = np.copysign(np.floor(np.abs(position) + np.float32(0.5)), position)
    return Parameters(scale, int(np.clip(rounded, qmin, qmax)), left.dtype)


def set_parameters(rewriting: Rewriting, nodes: list[Node], parameters: Parameters) -> None:
    """Gives a QuantizeLinear (the first of ``nodes``) and its readers other parameters.

    Its output keeps index and name, but gets the new type, and its integers mean other real values.
    """
    quantize = nodes[0]
    source = rewriting.tensors[quantize.outputs[0]]
    scale = rewriting.add_constant(f"{source.name}/scale", np.asarray(parameters.scale))
    zero_point = np.array(parameters.zero_point, DTYPES[parameters.dtype])
    for node in nodes:
        stored = rewriting.add_constant(f"{source.name}/zero_point", zero_point)
        rewriting.read_all(node, [node.inputs[0], scale, stored])
    found = Quantization.per_tensor(float(parameters.scale), parameters.zero_point)
    rewriting.retype(source.index, parameters.dtype, found)


def merge_equal_quantizations(rewriting: Rewriting) -> None:
    """Makes all readers of QuantizeLinear nodes with one zero point and equal scales read the first one.

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


def make_unsigned(rewriting: Rewriting) -> None:
    """Turns int8 pairs into uint8 pairs, 128 added to the zero point (QDQS8ToU8Transformer).

    This is done only where the integers have one reader, a DequantizeLinear with that zero point, which has
    one reader itself: what two layers read stays int8. Scales do not matter. A QuantizeLinear without a
    zero point stays as it is; a missing zero point of the DequantizeLinear is 0.
    """
    for quantize in rewriting.each(QUANTIZE):
        source, dequantize = rewriting.tensors[quantize.outputs[0]], rewriting.only_reader(quantize)
        zero_point = rewriting.data(quantize.input(2))
        if source.dtype != "int8" or zero_point is None or zero_point.size != 1:
            continue
        if dequantize is None or dequantize.op != DEQUANTIZE:
            continue
        other = np.zeros((), np.int8) if dequantize.input(2) == -1 else rewriting.data(dequantize.inputs[2])
        if other is None or other.size != 1 or other.item() != zero_point.item():
            continue
        shifted = np.asarray(zero_point.astype(np.int16) + 128, np.uint8).reshape(zero_point.shape)
        constant = rewriting.add_constant(f"{source.name}/zero_point", shifted)
        for node in (quantize, dequantize):
            rewriting.read_all(node, [*node.inputs[:2], constant])
        scale = rewriting.data(quantize.inputs[1])
        known = None if scale is None else Quantization.per_tensor(float(scale.item()), int(shifted.item()))
        rewriting.retype(source.index, "uint8", known)


def remove_empty_requantizations(rewriting: Rewriting) -> None:
    """Removes Dequantize → Quantize with equal parameters, such as a removed ReLU leaves.

    ONNX Runtime removes the two where one node reads the result, and runs them otherwise.
    """
    for quantize in rewriting.each(QUANTIZE):
        source, reader = rewriting.dequantize_of(quantize, 0), rewriting.only_reader(quantize)
        if source is None or reader is None:
            continue
        if same_parameters(rewriting, source, quantize):
            rewriting.read(reader, reader.inputs.index(quantize.outputs[0]), source.inputs[0])
            rewriting.remove(quantize)
