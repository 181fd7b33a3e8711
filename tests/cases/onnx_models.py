"""Small ONNX models, made with the onnx package: float networks to be quantized, and hand-made QDQ."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from karat24.refimpl.graph import Array

SIZE = 16
"""Height and width of the networks' images."""


def onnx_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Array],
    outputs: Mapping[str, str],
    constants: Mapping[str, Array],
    opset: int = 21,
) -> bytes:
    """A model whose inputs are shaped like the arrays, whose outputs have those element types."""
    graph = helper.make_graph(
        nodes,
        "case",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
            for name, dtype in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def node(op: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> Any:
    """One node; ops of ONNX Runtime's own domain by ``com.microsoft:Op``."""
    domain, _, name = op.rpartition(":")
    return helper.make_node(name, inputs, [output], domain=domain, **attributes)


_PARAMETERS = {"s": np.float32(0.02), "z": np.array(128, np.uint8)}
_IMAGE = np.zeros((1, 3, 6, 6), np.float32)


def qdq_pair() -> bytes:
    """Quantized and dequantized: nothing else."""
    nodes = [node("QuantizeLinear", "xsz", "q"), node("DequantizeLinear", "qsz", "y")]
    return onnx_model(nodes, {"x": _IMAGE}, {"y": "float32"}, _PARAMETERS)


def quantized_relu_chain() -> bytes:
    """Two QDQ convolutions with a MaxPool between them."""
    rng = np.random.default_rng(5)
    constants: dict[str, Array] = {**_PARAMETERS, "sw": np.float32(0.01)}
    nodes = [node("QuantizeLinear", "xsz", "q0"), node("DequantizeLinear", ["q0", "s", "z"], "d0")]
    last = "d0"
    for number in (1, 2):
        # Filters that share one zero point make ONNX Runtime 1.31.1 fail under x64quantprecision.
        constants[f"zw{number}"] = np.array(0, np.int8)
        constants[f"w{number}"] = rng.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8)
        nodes += [
            node("DequantizeLinear", [f"w{number}", "sw", f"zw{number}"], f"dw{number}"),
            node("Conv", [last, f"dw{number}"], f"c{number}", pads=[1, 1, 1, 1]),
            node("QuantizeLinear", [f"c{number}", "s", "z"], f"q{number}"),
            node("DequantizeLinear", [f"q{number}", "s", "z"], f"d{number}"),
        ]
        last = f"d{number}"
        if number == 1:
            nodes += [
                node("MaxPool", [last], "m", kernel_shape=[2, 2]),
                node("QuantizeLinear", ["m", "s", "z"], "qm"),
                node("DequantizeLinear", ["qm", "s", "z"], "dm"),
            ]
            last = "dm"
    nodes[-1].output[0] = "y"
    return onnx_model(nodes, {"x": _IMAGE}, {"y": "float32"}, constants)


class _Network:
    """A float network written layer by layer, with seeded weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self._rng = np.random.default_rng(1)

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, name, **attributes))
        return name

    def constant(self, *shape: int) -> str:
        name = f"w{len(self.constants)}"
        spread = 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        self.constants[name] = (self._rng.normal(size=shape) * spread).astype(np.float32)
        return name

    def conv(self, x: str, channels: int, filters: int, taps: int = 3, group: int = 1, **more: Any) -> str:
        weights, bias = self.constant(filters, channels // group, taps, taps), self.constant(filters)
        more.setdefault("pads", [taps // 2] * 4)
        return self.op("Conv", x, weights, bias, group=group, **more)

    def relu6(self, x: str) -> str:
        self.constants |= {"low": np.float32(0), "high": np.float32(6)}
        return self.op("Clip", x, "low", "high")


def _plain(n: _Network) -> None:
    x = n.op("MaxPool", n.op("Relu", n.conv("x", 3, 8)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Relu", n.conv(x, 8, 16, strides=[2, 2]))
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    n.op("Gemm", x, n.constant(10, 16), n.constant(10), transB=1)


def _residual(n: _Network) -> None:
    first = n.op("Relu", n.conv("x", 3, 8))
    second = n.conv(n.op("Relu", n.conv(first, 8, 8)), 8, 8)
    x = n.op("Relu", n.op("Add", first, second))
    n.op("Sigmoid", n.conv(n.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 8, 4, 1))


def _mobile(n: _Network) -> None:
    x = n.relu6(n.conv("x", 3, 8, strides=[2, 2]))
    shortcut = n.conv(n.relu6(n.conv(x, 8, 8, group=8)), 8, 8, 1)
    x = n.relu6(n.conv(shortcut, 8, 24, 1))
    x = n.conv(n.relu6(n.conv(x, 24, 24, group=24)), 24, 8, 1)
    n.op("GlobalAveragePool", n.op("Add", shortcut, x))


def _unet(n: _Network) -> None:
    fine = n.op("Relu", n.conv("x", 3, 8))
    coarse = n.op("Relu", n.conv(n.op("MaxPool", fine, kernel_shape=[2, 2], strides=[2, 2]), 8, 16))
    n.constants["twice"] = np.array([1, 1, 2, 2], np.float32)
    up = n.op(
        "Resize", coarse, "", "twice",
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    x = n.op("LeakyRelu", n.conv(n.op("Concat", fine, up, axis=1), 24, 8), alpha=0.1)
    n.conv(x, 8, 1, 1)


ARCHITECTURES = {"plain": _plain, "residual": _residual, "mobile": _mobile, "unet": _unet}


def float_network(name: str) -> onnx.ModelProto:
    """One of ARCHITECTURES, float32, input ``x`` [1, 3, SIZE, SIZE], output ``y``."""
    network = _Network()
    ARCHITECTURES[name](network)
    network.nodes[-1].output[0] = "y"
    image = np.zeros((1, 3, SIZE, SIZE), np.float32)
    content = onnx_model(network.nodes, {"x": image}, {"y": "float32"}, network.constants)
    model = onnx.load_from_string(content)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return onnx.shape_inference.infer_shapes(model)


def images(seed: int) -> Array:
    """A normal random input of the networks."""
    values = np.random.default_rng(seed).normal(size=(1, 3, SIZE, SIZE))
    return values.astype(np.float32)


def photograph(shape: Sequence[int] = (1, 3, SIZE, SIZE)) -> Array:
    """A piece of a photograph as an input NCHW; plain grey steps where scikit-image is absent.

    Its three colours repeat where more channels are asked for.
    """
    _, channels, height, width = shape
    try:
        from skimage import data
    except ImportError:
        picture = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([4, 3, 2])
    else:
        picture = data.astronaut()[100 : 100 + height, 200 : 200 + width]
    channels_first = np.resize(picture.transpose(2, 0, 1), (1, channels, height, width))
    return channels_first.astype(np.float32) / np.float32(127.5) - np.float32(1)


def on_the_grid(scale: float, shape: Sequence[int] = (1, 3, SIZE, SIZE)) -> Array:
    """An input whose values are halves of ``scale``: each second one ties when it is quantized."""
    steps = np.arange(np.prod(shape)).reshape(shape) % 301 - 150
    return steps.astype(np.float32) * np.float32(scale) / np.float32(2)


def quantized(
    model: onnx.ModelProto, form: str, activations: str, samples: Sequence[dict[str, Array]]
) -> bytes:
    """``model`` after ONNX Runtime's quantize_static: ``form`` QDQ or QOperator, ``activations`` QUInt8 or
    QInt8, int8 filters per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    own = onnx.ModelProto()
    own.CopyFrom(model)  # quantize_static leaves references to its temporary files in what it gets
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            own, path, Reader(), quant_format=QuantFormat[form],
            activation_type=QuantType[activations], weight_type=QuantType.QInt8, per_channel=True,
        )  # fmt: skip
        return path.read_bytes()
