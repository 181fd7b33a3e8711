"""Small float ONNX models with random weights, and ONNX Runtime's own quantizer over them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from karat24.export.onnx.writing.float_graph import write_float_onnx
from karat24.refimpl.graph import Array
from karat24.refimpl.networks import fine_tune, tomogan


class Sketch:
    """Nodes and weights collected in order; methods return the name of what they add."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        return self.constant((scale * self.random.standard_normal(shape)).astype(np.float32))

    def constant(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{op.lower()}{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"n_{names[0]}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x: str, channels: int, out: int, size: int = 3, group: int = 1, **attributes: Any) -> str:
        filter_ = self.weight(out, channels // group, size, size)
        pads = attributes.pop("pads", [size // 2] * 4)
        return self.node("Conv", x, filter_, self.weight(out), group=group, pads=pads, **attributes)

    def quantize(self, x: str, scale: float = 0.05, zero_point: int = 3, dtype: Any = np.uint8) -> str:
        return self.node("QuantizeLinear", x, *self._parameters(scale, zero_point, dtype))

    def dequantize(self, x: str, scale: float = 0.05, zero_point: int = 3, dtype: Any = np.uint8) -> str:
        return self.node("DequantizeLinear", x, *self._parameters(scale, zero_point, dtype))

    def _parameters(self, scale: float, zero_point: int, dtype: Any) -> tuple[str, str]:
        return self.constant(np.float32(scale)), self.constant(dtype(zero_point))

    def pair(self, x: str, scale: float = 0.05, zero_point: int = 3, dtype: Any = np.uint8) -> str:
        """QuantizeLinear and DequantizeLinear."""
        return self.dequantize(self.quantize(x, scale, zero_point, dtype), scale, zero_point, dtype)

    def filter(self, *shape: int) -> str:
        """Random int8 weights, dequantized."""
        values = self.constant(self.random.integers(-127, 128, shape).astype(np.int8))
        return self.dequantize(values, 0.01, 0, np.int8)

    def model(self, shape: Sequence[Any], *outputs: str, opset: int = 17) -> Any:
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            initializer=self.weights,
        )
        versions = [helper.make_opsetid("", opset)]
        model = helper.make_model(
            graph, opset_imports=versions, ir_version=helper.find_min_ir_version_for(versions)
        )
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual(opset: int = 17, batch: Any = 1) -> Any:
    """Like a small ResNet with a depthwise block and a classifier."""
    s = Sketch(1)
    a = s.node("Relu", s.conv("x", 3, 8, strides=[2, 2]))
    b = s.node("Relu", s.conv(a, 8, 8, group=8))
    c = s.conv(b, 8, 8, 1)
    d = s.node("Relu", s.node("Add", a, c))
    e = s.node("MaxPool", d, kernel_shape=[2, 2], strides=[2, 2])
    f = s.node("AveragePool", d, kernel_shape=[2, 2], strides=[2, 2])
    g = s.node("Concat", e, f, axis=1)
    h = s.node("Mul", g, s.node("Sigmoid", s.conv(g, 16, 16, 1)))
    i = s.node("Flatten", s.node("GlobalAveragePool", h))
    j = s.node("Gemm", i, s.weight(10, 16), s.weight(10), transB=1)
    return s.model([batch, 3, 16, 24], s.node("Softmax", j, axis=1), opset=opset)


def activations(opset: int = 17) -> Any:
    """One branch per activation function; some have integer forms, some stay float."""
    s = Sketch(2)
    a = s.conv("x", 3, 8)
    branches = [
        s.node("LeakyRelu", a, alpha=0.1),
        s.node("Sigmoid", s.conv(a, 8, 8, 1)),
        s.node("Tanh", s.conv(a, 8, 8, 1)),
        s.node("HardSwish", s.conv(a, 8, 8, 1)),
        s.node("Clip", s.conv(a, 8, 8, 1), s.constant(np.float32(0)), s.constant(np.float32(6))),
        s.node("Sub", a, s.conv(a, 8, 8, 1)),
    ]
    out = s.node("Concat", *branches, axis=1)
    return s.model([1, 3, 8, 12], s.conv(out, 48, 4, 1), opset=opset)


def moving(opset: int = 17) -> Any:
    """Ops that only move values, between convolutions."""
    s = Sketch(3)
    a = s.node("Relu", s.conv("x", 3, 8))
    b = s.node("Resize", a, "", s.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
               coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    c = s.node("Pad", b, s.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), s.constant(np.float32(0)))
    d = s.node("Slice", c, *(s.constant(np.array(v, np.int64)) for v in ([1, 2], [17, 26], [2, 3])))
    e, f = s.node("Split", d, s.constant(np.array([3, 5], np.int64)), outputs=2, axis=1)
    g = s.node("Add", s.conv(e, 3, 4, 1), s.conv(f, 5, 4, 1))
    h = s.node("Transpose", g, perm=[0, 2, 3, 1])
    i = s.node("Reshape", h, s.constant(np.array([1, -1, 4], np.int64)))
    j = s.node("MatMul", i, s.weight(4, 6))
    k = s.node("ReduceMean", j, s.constant(np.array([1], np.int64)), keepdims=0) if opset >= 18 else s.node(
        "ReduceMean", j, axes=[1], keepdims=0)  # fmt: skip
    return s.model([1, 3, 8, 12], k, opset=opset)


def upsampling(opset: int = 17) -> Any:
    """Transposed convolution and linear resizing: what ONNX Runtime leaves in float."""
    s = Sketch(4)
    a = s.node("Relu", s.conv("x", 3, 8, strides=[2, 2]))
    b = s.node("Relu", s.node("ConvTranspose", a, s.weight(8, 6, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]))
    c = s.node("Resize", a, "", s.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear",
               coordinate_transformation_mode="half_pixel")  # fmt: skip
    d = s.node("Concat", b, c, axis=1)
    return s.model([1, 3, 8, 12], s.conv(d, 14, 2), opset=opset)


MODELS: dict[str, Callable[[], Any]] = {
    "residual": residual,
    "activations": activations,
    "moving": moving,
    "upsampling": upsampling,
    "tomogan": lambda: onnx.load_from_string(write_float_onnx(tomogan(16, 24))),
    "tomogan-transposed": lambda: onnx.load_from_string(write_float_onnx(tomogan(16, 16, "transposed"))),
    "fine-tune": lambda: onnx.load_from_string(write_float_onnx(fine_tune(16, 8))),
}

WAYS: dict[str, dict[str, Any]] = {
    "qdq-u8s8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8},
    "qdq-s8s8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8},
    "qdq-s8s8-channel": {
        "quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8, "per_channel": True,
    },
    "qdq-u8s8-channel": {
        "quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "per_channel": True,
    },
    "qdq-u8s8-keep": {
        "quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8,
        "extra_options": {"QDQKeepRemovableActivations": True},
    },
    "qdq-u8s8-float-bias": {
        "quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8,
        "extra_options": {"QuantizeBias": False},
    },
    "qop-u8s8": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8},
    "qop-s8s8-channel": {
        "quant_format": QuantFormat.QOperator, "activation_type": QuantType.QInt8, "per_channel": True,
    },
}  # fmt: skip
"""Ways to quantize, as keyword arguments of ``quantize_static``; weights are int8."""


class Samples(CalibrationDataReader):
    def __init__(self, model: Any, number: int = 3) -> None:
        self._feeds = iter([feed_of(model, seed) for seed in range(number)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def feed_of(model: Any, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        value.name: random.standard_normal(
            [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
    }


def quantized_model(model: Any, **options: Any) -> bytes:
    """What ``quantize_static`` makes of a float model."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "quantized.onnx")
        onnx.save(model, source)
        quantize_static(source, target, Samples(model), **{"weight_type": QuantType.QInt8, **options})
        return target.read_bytes()


@cache
def quantized(name: str, way: str) -> bytes:
    """Model ``name`` quantized in one of ``WAYS``."""
    return quantized_model(MODELS[name](), **WAYS[way])
