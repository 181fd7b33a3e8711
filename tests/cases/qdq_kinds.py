"""Small QDQ models of which ONNX Runtime runs other layers than a reader of the file may expect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.onnx_models import node, onnx_model

SHAPE = (1, 4, 8, 8)
"""Of the input ``x`` of every model, float32."""

SCALE, FILTER_SCALE = np.float32(0.03), np.float32(0.01)


class _Model:
    """Nodes and constants collected in order; methods return the name of what they add."""

    def __init__(self, dtype: type[np.generic] = np.uint8, seed: int = 3) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.dtype = dtype
        self.filter_scale = FILTER_SCALE

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(node(op, inputs, output, **attributes))
        return output

    def pair(self, x: str, scale: np.float32 = SCALE, zero_point: int | None = None) -> str:
        """QuantizeLinear and DequantizeLinear behind ``x``."""
        middle = 128 if self.dtype is np.uint8 else 0
        zero = np.array(middle if zero_point is None else zero_point, self.dtype)
        parameters = [self.constant(f"{x}_s", scale), self.constant(f"{x}_z", zero)]
        self.node("QuantizeLinear", [x, *parameters], f"{x}_q")
        return self.node("DequantizeLinear", [f"{x}_q", *parameters], f"{x}_d")

    def filter(self, name: str, *shape: int) -> str:
        """int8 weights, dequantized."""
        weights = self.random.integers(-127, 128, shape).astype(np.int8)
        stored = [self.constant(name, weights), self.constant(f"{name}_s", self.filter_scale)]
        self.constant(f"{name}_z", np.array(0, np.int8))
        return self.node("DequantizeLinear", [*stored, f"{name}_z"], f"{name}_d")

    def bias(self, name: str, count: int, scale: np.float32) -> str:
        values = self.random.integers(-2000, 2000, count).astype(np.int32)
        return self.node(
            "DequantizeLinear", [self.constant(name, values), self.constant(f"{name}_s", scale)], f"{name}_d"
        )

    def conv(self, x: str, output: str, *more: str, channels: int = 4, filters: int = 4) -> str:
        """3×3, SAME."""
        weights = self.filter(f"{output}_w", filters, channels, 3, 3)
        return self.node("Conv", [x, weights, *more], output, pads=[1, 1, 1, 1])

    def bytes(self, shape: Sequence[int] = SHAPE) -> bytes:
        """The model; what its last node writes is its output."""
        last = self.nodes[-1].output[0]
        image = np.zeros(shape, np.float32)
        return onnx_model(self.nodes, {"x": image}, {last: "float32"}, self.constants)


def bias_of_the_right_scale() -> bytes:
    """The bias counts in steps of input times filter: an integer convolution."""
    return _with_bias(np.float32(SCALE * FILTER_SCALE))


def bias_of_another_scale() -> bytes:
    """The bias counts in other steps: the runtime leaves the convolution in float."""
    return _with_bias(np.float32(SCALE * FILTER_SCALE * 3))


def _with_bias(scale: np.float32) -> bytes:
    m = _Model()
    m.pair(m.conv(m.pair("x"), "c", m.bias("b", 4, scale)))
    return m.bytes()


def shared_bias() -> bytes:
    """Two convolutions share a bias whose scale suits the first: the second stays in float."""
    m = _Model()
    bias = m.bias("b", 4, np.float32(SCALE * FILTER_SCALE))
    first = m.pair(m.conv(m.pair("x"), "c", bias), np.float32(0.05))
    m.pair(m.conv(first, "d", bias), np.float32(0.2))
    return m.bytes()


def signed_activations() -> bytes:
    """int8 throughout: a default session makes the activations uint8."""
    m = _Model(np.int8)
    m.pair(m.conv(m.pair(m.conv(m.pair("x"), "c"), np.float32(0.1), 5), "d"), np.float32(0.6), -7)
    return m.bytes()


def sum_of_two() -> bytes:
    """Two quantized images added: QLinearAdd rounds otherwise than Add in float on ties."""
    m = _Model()
    left = m.pair("x", np.float32(0.0173), 121)
    right = m.pair(m.node("Transpose", ["x"], "n", perm=[0, 1, 3, 2]), np.float32(0.0291), 133)
    m.pair(m.node("Add", [left, right], "s"), np.float32(0.0402), 127)
    return m.bytes((1, 1, 256, 256))


def two_pairs_in_a_row() -> bytes:
    """Quantized twice with nothing between: the runtime merges the pairs into parameters of its own."""
    m = _Model()
    twice = m.pair(m.pair("x", np.float32(0.02), 120), np.float32(0.05), 60)
    m.pair(m.node("AveragePool", [twice], "p", kernel_shape=[2, 2], strides=[2, 2]))
    return m.bytes()


def relu_above_the_zero_point() -> bytes:
    """A Relu behind which negative values can be stored: the runtime keeps the convolution in float."""
    m = _Model()
    m.pair(m.node("Relu", [m.conv(m.pair("x"), "c")], "r"), np.float32(0.1), 30)
    return m.bytes()


def sine_between_layers() -> bytes:
    """An op the oracle lacks between two integer convolutions."""
    m = _Model()
    m.pair(m.conv(m.pair(m.node("Sin", [m.pair(m.conv(m.pair("x"), "c"))], "t")), "d"))
    return _inferred(m.bytes())


def wide_float_convolution() -> bytes:
    """A float filter of many channels: a default session computes such a convolution in blocks of
    channels, which the graph without layout changes does not."""
    m = _Model()
    wide = m.pair(m.conv(m.pair("x"), "c", filters=32), np.float32(0.1))
    weights = m.constant("e_w", m.random.normal(0, 0.1, (32, 32, 3, 3)).astype(np.float32))
    middle = m.node("Conv", [wide, weights], "e", pads=[1, 1, 1, 1])
    m.node("Abs", [middle], "y")
    return m.bytes()


def many_integer_ops(float_tail: bool = False) -> bytes:
    """Integer convolutions, sum, product, sigmoid, concatenation and pools in one network.

    With ``float_tail`` a convolution follows that the runtime leaves in float, and an integer one.
    """
    m = _Model()
    m.filter_scale = np.float32(0.002)  # keeps values near 1, where a sigmoid is not flat
    bias = m.bias("b", 4, np.float32(SCALE * m.filter_scale))
    first = m.pair(m.conv(m.pair("x"), "a", bias), np.float32(0.02), 100)
    second = m.pair(m.conv(first, "c"), np.float32(0.03))
    total = m.pair(m.node("Add", [first, second], "sum"), np.float32(0.03), 90)
    gate = m.pair(m.node("Sigmoid", [total], "gate"), np.float32(1 / 256), 3)
    product = m.pair(m.node("Mul", [total, gate], "product"), np.float32(0.02), 20)
    both = m.pair(m.node("Concat", [product, first], "both", axis=1), np.float32(0.025), 60)
    pooled = m.node("MaxPool", [both], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    last = m.pair(pooled, np.float32(0.025), 60)
    mean = m.node("AveragePool", [last], "mean", kernel_shape=[2, 2], strides=[1, 1])
    last = m.pair(mean, np.float32(0.02), 70)
    if float_tail:
        odd = m.bias("odd", 4, np.float32(0.001))
        last = m.pair(m.node("Relu", [m.conv(last, "e", odd, channels=8)], "r"), np.float32(0.02), 30)
        m.pair(m.conv(last, "d"), np.float32(0.03))
    return m.bytes()


def _inferred(model: bytes) -> bytes:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    return bytes(inferred.SerializeToString())


KINDS: Mapping[str, Callable[[], bytes]] = {
    kind.__name__: kind
    for kind in (
        bias_of_the_right_scale, bias_of_another_scale, shared_bias, signed_activations, sum_of_two,
        two_pairs_in_a_row, relu_above_the_zero_point, sine_between_layers, wide_float_convolution,
    )
}  # fmt: skip
"""Every kind by its function's name."""


def image(model_input: Sequence[int] = SHAPE, seed: int = 1) -> Array:
    """Values that fill the quantized range."""
    return np.random.default_rng(seed).normal(0, 1.5, model_input).astype(np.float32)
