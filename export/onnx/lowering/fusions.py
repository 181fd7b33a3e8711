"""The ops between DequantizeLinear and QuantizeLinear that ONNX Runtime 1.31 replaces by integer ops.

Each function looks at one node and replaces it if the group around it qualifies. All of them demand that the
QuantizeLinear is the node's only reader, that the node's output is not a graph output, and that input and
output have the same 8-bit type. The DequantizeLinear nodes stay, since other nodes may read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.export.onnx.lowering.pairs import parameters_of
from karat24.export.onnx.lowering.rewriting import DEQUANTIZE, QUANTIZE, Node, Rewriting
from karat24.export.onnx.schema import MICROSOFT

Fusion = Callable[[Rewriting, Node], None]

EIGHT_BITS = frozenset({"int8", "uint8"})


def _quantize_behind(rewriting: Rewriting, node: Node) -> Node | None:
    reader = rewriting.only_reader(node)
    return reader if reader is not None and reader.op == QUANTIZE else None


def _dequantized(rewriting: Rewriting, node: Node) -> list[Node] | None:
    """The DequantizeLinear that writes each input present; None unless all inputs have one."""
    present = [position for position, index in enumerate(node.inputs) if index != -1]
    found = [rewriting.dequantize_of(node, position) for position in present]
    return [source for source in found if source is not None] if all(found) else None


def _type(rewriting: Rewriting, index: int) -> str:
    return rewriting.tensors[index].dtype


def _quantized_input(rewriting: Rewriting, source: Node) -> list[int]:
    """Values, scale and zero point of a DequantizeLinear."""
    return [source.inputs[0], source.inputs[1], rewriting.zero_point(source)]


def _fuse(rewriting: Rewriting, node: Node, quantize: Node, new: Node) -> None:
    """Puts the new node in the old one's place and drops the QuantizeLinear after it."""
    rewriting.remove(quantize)
    rewriting.replace(node, new)


def _parameters(rewriting: Rewriting, quantize: Node) -> list[int]:
    return [quantize.inputs[1], rewriting.zero_point(quantize)]


def _affine(rewriting: Rewriting, sources: list[Node], output: str) -> bool:
    """Whether the types fit: the output's equals the input's; int8 inputs have int8 filters, biases int32."""
    left, right, *bias = (_type(rewriting, source.inputs[0]) for source in sources)
    return (
        left in EIGHT_BITS
        and right in EIGHT_BITS
        and output == left
        and (left == "uint8" or right == "int8")
        and all(dtype == "int32" for dtype in bias)
    )


PRODUCTS = frozenset({"Conv", "MatMul"})
"""Ops that stay in float for int8 inputs unless the session allows int8. Gemm is not among them."""


def fuses(rewriting: Rewriting, node: Node, int8_allowed: bool) -> bool:
    """Whether an integer op takes the product: False for int8 activations in a session that does not allow
    them, and for scales that belong to blocks or are computed by the graph."""
    around = [rewriting.dequantize_of(node, position) for position in range(len(node.inputs))]
    around += [reader for index in node.outputs for reader, _ in rewriting.readers(index)]
    for other in around:
        if other is None or other.op not in (QUANTIZE, DEQUANTIZE):
            continue
        if other.attributes.get("block_size", 0) or rewriting.data(other.inputs[1]) is None:
            return False
    if int8_allowed or node.op not in PRODUCTS:
        return True
    source = rewriting.dequantize_of(node, 0)
    return source is None or _type(rewriting, source.inputs[0]) != "int8"


def bias_fits(rewriting: Rewriting, sources: list[Node]) -> bool:
    """Whether the scale of a convolution's bias is the product of the other two scales, nearly.

    ``|s_bias - s_x * s_w| <= 1e-6 + 0.01 * s_x * s_w`` in float32, for each channel; the zero point is 0.
    Found by experiment on ONNX Runtime 1.32, which then takes the stored integers as they are.
    """
    image, filter_, bias = (rewriting.data(source.inputs[1]) for source in sources)
    if image is None or filter_ is None or bias is None:
        return False
    if sources[2].input(2) != -1:
        zero_point = rewriting.data(sources[2].inputs[2])
        if zero_point is None or zero_point.any():
            return False
    with np.errstate(over="ignore", invalid="ignore"):
        product = image.reshape(-1) * filter_.reshape(-1)
        off = np.abs(bias.reshape(-1) - product)
        return bool((off <= np.float32(1e-6) + np.float32(0.01) * np.abs(product)).all())


def _convolution(rewriting: Rewriting, node: Node) -> None:
    quantize, sources = _quantize_behind(rewriting, node), _dequantized(rewriting, node)
    if quantize is None or sources is None:
        return
    if not _affine(rewriting, sources, _type(rewriting, quantize.outputs[0])):
        return
    if len(sources) > 2 and not bias_fits(rewriting, sources):
        return
    inputs = [
        *_quantized_input(rewriting, sources[0]),
        *_quantized_input(rewriting, sources[1]),
        *_parameters(rewriting, quantize),
        *(source.inputs[0] for source in sources[2:]),
    ]
    new = Node("QLinearConv", inputs, quantize.outputs, node.attributes, node.version)
    _fuse(rewriting, node, quantize, new)


def _matmul(rewriting: Rewriting, node: Node) -> None:
    """Where no QuantizeLinear follows, the node becomes an integer product with a float result."""
    quantize, sources = _quantize_behind(rewriting, node), _dequantized(rewriting, node)
    if sources is None:
        return
    left, right = (_quantized_input(rewriting, source) for source in sources)
    if quantize is not None:
        if _affine(rewriting, sources, _type(rewriting, quantize.outputs[0])):
            inputs = [*left, *right, *_parameters(rewriting, quantize)]
            new = Node("QLinearMatMul", inputs, quantize.outputs, {}, node.version)
            _fuse(rewriting, node, quantize, new)
    elif _affine(rewriting, sources, _type(rewriting, left[0])) and not any(
        reader.op == QUANTIZE for reader, _ in rewriting.readers(node.outputs[0])
    ):
        inputs = [left[0], right[0], left[1], right[1], left[2], right[2]]
        rewriting.replace(node, Node(f"{MICROSOFT}:MatMulIntegerToFloat", inputs, node.outputs))


def _gemm(rewriting: Rewriting, node: Node) -> None:
    """QGemm, whose result is float where no QuantizeLinear follows."""
    quantize, sources = _quantize_behind(rewriting, node), _dequantized(rewriting, node)
    if sources is None:
        return
    readers = [reader.op for reader, _ in rewriting.readers(node.outputs[0])]
    if quantize is None and QUANTIZE in readers:
        return
    output = _type(rewriting, quantize.outputs[0] if quantize else sources[0].inputs[0])
    view = rewriting.view(node)
    if not _affine(rewriting, sources, output) or sources[1].input(2) == -1:
        return
    if len(sources) > 2 and (view.real("alpha", 1.0), view.real("beta", 1.0)) != (1, 1):
        return
    attributes = {name: value for name, value in node.attributes.items() if name != "beta"}
    bias = sources[2].inputs[0] if len(sources) > 2 else -1
    inputs = [*_quantized_input(rewriting, sources[0]), *_quantized_input(rewriting, sources[1]), bias]
    op = f"{MICROSOFT}:QGemm"
    if quantize is None:
        rewriting.replace(node, Node(op, inputs if bias != -1 else inputs[:-1], node.outputs, attributes))
    else:
        inputs += _parameters(rewriting, quantize)
        _fuse(rewriting, node, quantize, Node(op, inputs, quantize.outputs, attributes))


def _unary(rewriting: Rewriting, node: Node) -> None:
    quantize, sources = _quantize_behind(rewriting, node), _dequantized(rewriting, node)
    if quantize is None or sources is None or not _same_types(rewriting, sources, quantize):
        return
    attributes = dict(node.attributes)
    if node.op == "Softmax":
        attributes["opset"] = min(node.version, 13)
        if node.version < 13:
            attributes.setdefault("axis", 1)
    inputs = [*_quantized_input(rewriting, sources[0]), *_parameters(rewriting, quantize)]
    new = Node(f"{MICROSOFT}:QLinear{node.op}", inputs, quantize.outputs, attributes)
    _fuse(rewriting, node, quantize, new)


def _binary(rewriting: Rewriting, node: Node) -> None:
    quantize, sources = _quantize_behind(rewriting, node), _dequantized(rewriting, node)
    if quantize is None or sources is None or not _same_types(rewriting, sources, quantize):
        return
    if len(sources) != 2:
        return
    left, right = (_quantized_input(rewriting, source) for source in sources)
    inputs = [*left, *right, *_parameters(rewriting, quantize)]
    _fuse(rewriting, node, quantize, Node(f"{MICROSOFT}:QLinear{node.op}", inputs, quantize.outputs))


def _concat(rewriting: Rewriting, node: Node) -> None:
    quantize, sources = _quantize_behind(rewriting, node), _dequantized(rewriting, node)
    if quantize is None or sources is None or not _same_types(rewriting, sources, quantize):
        return
    inputs = _parameters(rewriting, quantize)
    for source in sources:
        inputs += _quantized_input(rewriting, source)
    new = Node(f"{MICROSOFT}:QLinearConcat", inputs, quantize.outputs, node.attributes)
    _fuse(rewriting, node, quantize, new)


def _same_types(rewriting: Rewriting, sources: list[Node], quantize: Node) -> bool:
    types = {_type(rewriting, source.inputs[0]) for source in sources}
    return types == {_type(rewriting, quantize.outputs[0])} and types <= EIGHT_BITS


def _moving(rewriting: Rewriting, node: Node) -> None:
    """The op itself runs on integers, where parameters are equal on both sides and no values are mixed."""
    if node.op == "Resize" and rewriting.view(node).text("mode", "nearest") != "nearest":
        return
    source = rewriting.dequantize_of(node, 0)
    quantizes = []
    for index in node.outputs:
        readers = rewriting.readers(index)
        if index in rewriting.outputs or len(readers) != 1 or readers[0][0].op != QUANTIZE:
            return
        quantizes.append(readers[0][0])
    if source is None or not all(_equal(rewriting, source, quantize) for quantize in quantizes):
        return
    rewriting.read(node, 0, source.inputs[0])
    for position, quantize in enumerate(quantizes):
        rewriting.remove(quantize)
        rewriting.write(node, position, quantize.outputs[0])


def _equal(rewriting: Rewriting, source: Node, quantize: Node) -> bool:
    """Whether all have equal constant scales and zero points, per tensor and given, of one 8-bit type."""
    found = parameters_of(rewriting, source)
    return (
        found is not None
        and found == parameters_of(rewriting, quantize)
        and found.dtype in EIGHT_BITS
        and -1 not in (source.input(2), quantize.input(2))
    )


def _position(rewriting: Rewriting, node: Node) -> None:
    """ArgMax: the greatest value and the greatest integer have one position."""
    source = rewriting.dequantize_of(node, 0)
    if source is not None and _type(rewriting, source.inputs[0]) in EIGHT_BITS:
        rewriting.read(node, 0, source.inputs[0])


FUSIONS: Mapping[str, Fusion] = MappingProxyType(
    {
        **dict.fromkeys(("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"), _unary),
        **dict.fromkeys(("Add", "Mul"), _binary),
        **dict.fromkeys(
            (
                "Expand", "Flatten", "Gather", "MaxPool", "ReduceMax", "ReduceMin", "Reshape", "Resize",
                "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
            ),
            _moving,
        ),
        "ArgMax": _position,
        "Concat": _concat,
        "Conv": _convolution,
        "Gemm": _gemm,
        "MatMul": _matmul,
    }
)  # fmt: skip
"""Op to the function that replaces it where its surroundings allow."""
