"""A block of a vision transformer and small networks around it, to be quantized by ONNX Runtime's tool."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from karat24.refimpl.graph import Array
from tests.cases.onnx_models import node
from tests.cases.quantized import seeded

TOKENS, WIDTH, HEADS = 10, 32, 4

Way = Literal["dynamic", "dynamic per channel", "8 bits", "16 bits"]


class _Nodes:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self._rng = seeded("transformer")

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, output, **attributes))
        return output

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values)
        return name

    def drawn(self, *shape: int, size: float = 0.2) -> str:
        return self.constant((self._rng.normal(size=shape) * size).astype(np.float32))

    def linear(self, x: str, deep: int, wide: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.drawn(deep, wide)), self.drawn(wide))

    def normalization(self, x: str) -> str:
        return self.op("LayerNormalization", x, self.drawn(WIDTH, size=1), self.drawn(WIDTH))


def _gelu(n: _Nodes, x: str) -> str:
    """As exporters wrote it before there was an op."""
    inner = n.op("Erf", n.op("Div", x, n.constant(np.float32(2**0.5))))
    product = n.op("Mul", x, n.op("Add", inner, n.constant(np.float32(1))))
    return n.op("Mul", product, n.constant(np.float32(0.5)))


def block() -> onnx.ModelProto:
    """Attention and a perceptron, each behind a LayerNormalization and around a sum."""
    n, each = _Nodes(), WIDTH // HEADS
    heads, flat = n.constant([1, TOKENS, HEADS, each]), n.constant([1, TOKENS, WIDTH])
    first = n.normalization("x")
    query, key, value = (
        n.op("Transpose", n.op("Reshape", n.linear(first, WIDTH, WIDTH), heads), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = n.op("Mul", n.op("MatMul", query, key), n.constant(np.float32(each**-0.5)))
    seen = n.op("MatMul", n.op("Softmax", scores, axis=-1), value)
    joined = n.op("Reshape", n.op("Transpose", seen, perm=[0, 2, 1, 3]), flat)
    kept = n.op("Add", "x", n.linear(joined, WIDTH, WIDTH))
    wide = _gelu(n, n.linear(n.normalization(kept), WIDTH, 2 * WIDTH))
    output = n.op("Add", kept, n.linear(wide, 2 * WIDTH, WIDTH))
    return model(n.nodes, n.constants, (1, TOKENS, WIDTH), output)


def convolutions() -> onnx.ModelProto:
    """Two convolutions and a product."""
    n = _Nodes()
    image = n.op("Relu", n.op("Conv", "x", n.drawn(8, 3, 3, 3), n.drawn(8), pads=[1, 1, 1, 1]))
    image = n.op("Conv", image, n.drawn(6, 8, 3, 3), strides=[2, 2])
    output = n.op("Gemm", n.op("Flatten", image), n.drawn(54, 10), n.drawn(10))
    return model(n.nodes, n.constants, (1, 3, 8, 8), output)


def one_axis() -> onnx.ModelProto:
    """Two convolutions over time."""
    n = _Nodes()
    line = n.op("Relu", n.op("Conv", "x", n.drawn(8, 3, 3), pads=[1, 1]))
    return model(n.nodes, n.constants, (1, 3, 20), n.op("Conv", line, n.drawn(4, 8, 5)))


def three_axes() -> onnx.ModelProto:
    """Two convolutions over volumes."""
    n = _Nodes()
    volume = n.op("Relu", n.op("Conv", "x", n.drawn(4, 2, 3, 3, 3), n.drawn(4), pads=[1] * 6))
    return model(n.nodes, n.constants, (1, 2, 6, 7, 8), n.op("Conv", volume, n.drawn(3, 4, 2, 2, 2)))


NETWORKS = {f.__name__: f for f in (block, convolutions, one_axis, three_axes)}


def model(
    nodes: list[Any], constants: dict[str, Array], shape: tuple[int, ...], output: str
) -> onnx.ModelProto:
    """A float32 model of one input ``x``."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    for number, each in enumerate(graph.node):
        each.name = f"n{number}"
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feed(network: onnx.ModelProto) -> Array:
    """Random values for ``x``."""
    sizes = tuple(size.dim_value for size in network.graph.input[0].type.tensor_type.shape.dim)
    return seeded(str(sizes)).normal(size=sizes).astype(np.float32)


def quantized(network: onnx.ModelProto, way: Way) -> bytes:
    """The network as ``quantize_dynamic`` or ``quantize_static`` writes it, with int8 or uint8 weights."""
    from onnxruntime import quantization as tool

    class Samples(tool.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = [{"x": feed(network)}]

        def get_next(self) -> dict[str, Array] | None:
            return self._left.pop() if self._left else None

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "quantized.onnx")
        onnx.save(network, source)
        if way.startswith("dynamic"):
            # An int8 filter makes quantize_dynamic write a ConvInteger that some versions do not run.
            per_channel = way.endswith("channel")
            weights = tool.QuantType.QInt8 if per_channel else tool.QuantType.QUInt8
            tool.quantize_dynamic(source, target, per_channel=per_channel, weight_type=weights)
        else:
            wide = way == "16 bits"
            tool.quantize_static(
                source, target, Samples(), quant_format=tool.QuantFormat.QDQ,
                activation_type=tool.QuantType.QUInt16 if wide else tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
                extra_options={"UseQDQContribOps": True} if wide else {},
            )  # fmt: skip
        return target.read_bytes()
