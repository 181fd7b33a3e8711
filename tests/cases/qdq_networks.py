"""Random small QDQ networks, as different training tools and exporters write them.

Values stay near a standard deviation of one, so that scales near 0.03 saturate some values and not all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from karat24.refimpl.graph import Array
from tests.support.onnx_sketches import Sketch

IMAGE = (1, 4, 6, 6)
"""Shape of the networks' input ``x``, NCHW."""


@dataclass
class Style:
    """How a tool quantizes: types, where parameters come from, how filters and biases are stored."""

    activations: Any
    filters: Any
    per_channel: bool
    symmetric: bool
    float_filters: bool
    """Filters are stored in float and quantized in the graph, as training tools export them."""
    bias: str
    """``none``, ``float``, ``int32``, ``shared`` (by all layers of a width), or ``odd``: of another scale."""
    opset: int
    turned: bool
    """Linear layers are a Transpose of the filter and a MatMul; otherwise images are transposed."""
    omitted: bool
    """Zero points of 0 of filters are left out."""
    biases: dict[int, str] = field(default_factory=dict)


def style_of(random: np.random.Generator) -> Style:
    activations = np.uint8 if random.random() < 0.55 else np.int8
    filters = np.uint8 if activations is np.uint8 and random.random() < 0.2 else np.int8
    return Style(
        activations,
        filters,
        bool(random.random() < 0.5),
        bool(random.random() < 0.3),
        bool(random.random() < 0.35),
        str(random.choice(["none", "float", "int32", "int32", "shared", "odd"])),
        int(random.choice([13, 17, 19, 21])),
        bool(random.random() < 0.5),
        bool(random.random() < 0.3),
    )


class Network:
    """A network under construction; ``edges`` are dequantized images any block may read again."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.sketch = Sketch(seed)
        self.style = style_of(self.random)
        self.channels = {"x": IMAGE[1]}

    def pair(self, x: str, channels: int, low: bool = False) -> str:
        """QuantizeLinear and DequantizeLinear; with ``low`` no negative values are kept."""
        info = np.iinfo(self.style.activations)
        middle = 0 if info.min < 0 else 128
        zero_point = middle if self.style.symmetric else int(middle + self.random.integers(-20, 21))
        scale = 0.03 * float(self.random.uniform(0.6, 1.6))
        y = self.sketch.pair(x, scale, info.min if low else zero_point, self.style.activations)
        self.channels[y], self.scale = channels, scale
        return y

    def filter(self, fan_in: int, *shape: int, axis: int = 0) -> tuple[str, Array]:
        """Quantized weights, dequantized, and their scales."""
        s, style = self.sketch, self.style
        step = 1 / (73 * np.sqrt(fan_in))
        scales = np.asarray(
            step * self.random.uniform(0.7, 1.4, shape[axis] if style.per_channel else ()), np.float32
        )
        info = np.iinfo(style.filters)
        zero = (
            np.zeros(scales.shape, style.filters)
            if info.min < 0
            else np.full(scales.shape, 128, style.filters)
        )
        named = [s.constant(scales)] + ([] if style.omitted and info.min < 0 else [s.constant(zero)])
        along = {"axis": axis} if style.per_channel else {}
        if style.float_filters and len(named) == 2:
            values = (73 * step * self.random.normal(size=shape)).astype(np.float32)
            stored = s.node("QuantizeLinear", s.constant(values), *named, **along)
        else:
            stored = s.constant(self.random.integers(info.min, info.max + 1, shape).astype(style.filters))
        return s.node("DequantizeLinear", stored, *named, **along), scales

    def bias(self, count: int, filter_scales: Array, input_scale: float) -> list[str]:
        """The bias of a layer as an input, or nothing."""
        s, style = self.sketch, self.style
        if style.bias == "none":
            return []
        if style.bias == "float":
            return [s.weight(count)]
        if style.bias == "shared" and count in style.biases:
            return [style.biases[count]]
        scales = np.float32(input_scale) * filter_scales
        if style.bias == "odd" and self.random.random() < 0.5:
            scales = np.asarray(scales * np.float32(self.random.choice([0.5, 1.005, 2.0])), np.float32)
        values = s.constant(self.random.integers(-3000, 3000, count).astype(np.int32))
        along = {"axis": 0} if scales.ndim else {}
        name = s.node("DequantizeLinear", values, s.constant(scales), **along)
        style.biases[count] = name
        return [name]


Block = Callable[[Network, str], str]
"""Takes and gives the name of a dequantized image."""


def conv(n: Network, x: str) -> str:
    channels, out = n.channels[x], int(n.random.choice([4, 6]))
    taps, group = int(n.random.choice([1, 3])), 1
    if n.random.random() < 0.25:
        out = group = channels
    scale = n.scale
    w, scales = n.filter(taps * taps * channels // group, out, channels // group, taps, taps)
    y = n.sketch.node("Conv", x, w, *n.bias(out, scales, scale), group=group, pads=[taps // 2] * 4)
    kind = n.random.integers(4)
    if kind == 0:
        y = n.sketch.node("Relu", y)
    elif kind == 1:
        y = n.sketch.node("Clip", y, n.sketch.constant(np.float32(0)), n.sketch.constant(np.float32(6)))
    return n.pair(y, out, low=bool(kind < 2 and n.random.random() < 0.7))


def residual(n: Network, x: str) -> str:
    channels = n.channels[x]
    w, scales = n.filter(channels * 9, channels, channels, 3, 3)
    y = n.pair(n.sketch.node("Conv", x, w, *n.bias(channels, scales, n.scale), pads=[1] * 4), channels)
    return n.pair(n.sketch.node("Add", x, y), channels)


def gate(n: Network, x: str) -> str:
    y = n.pair(n.sketch.node("Sigmoid", x), n.channels[x])
    return n.pair(n.sketch.node("Mul", x, y), n.channels[x])


def concat(n: Network, x: str) -> str:
    y = conv(n, x)
    if n.random.random() < 0.3:
        y = n.pair(n.sketch.node("LeakyRelu", x, alpha=0.1), n.channels[x])
    channels = n.channels[x] + n.channels[y]
    return n.pair(n.sketch.node("Concat", x, y, axis=1), channels)


def pool(n: Network, x: str) -> str:
    op = str(n.random.choice(["AveragePool", "MaxPool"]))
    y = n.sketch.node(op, x, kernel_shape=[3, 3], pads=[1] * 4)
    return n.pair(y, n.channels[x])


def float_op(n: Network, x: str) -> str:
    """Tanh stays in float."""
    return n.pair(n.sketch.node("Tanh", x), n.channels[x])


def twice(n: Network, x: str) -> str:
    """Quantized again with other parameters."""
    return n.pair(x, n.channels[x])


def moved(n: Network, x: str) -> str:
    """There and back: quantization spreads over both."""
    if n.style.turned:
        return x
    y = n.pair(n.sketch.node("Transpose", x, perm=[0, 1, 3, 2]), n.channels[x])
    return n.pair(n.sketch.node("Transpose", y, perm=[0, 1, 3, 2]), n.channels[x])


def enlarged(n: Network, x: str) -> str:
    """Resized and pooled back."""
    up = n.sketch.node(
        "Resize", x, "", n.sketch.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    if n.random.random() < 0.7:
        up = n.pair(up, n.channels[x])
    return n.pair(n.sketch.node("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2]), n.channels[x])


BLOCKS: tuple[Block, ...] = (conv, conv, residual, gate, concat, pool, float_op, twice, moved, enlarged)


def attention(n: Network, x: str) -> str:
    """One head over the pixels of a row: [1, channels, 6, 6] as they are."""
    s = n.sketch
    query, key = n.pair(conv_of(n, x, 6), 6), n.pair(conv_of(n, x, 6), 6)
    turned = s.node("Transpose", key, perm=[0, 1, 3, 2])
    if n.random.random() < 0.5:
        turned = n.pair(turned, 6)
    scores = n.pair(s.node("MatMul", query, turned), 6)
    weights = n.pair(s.node("Softmax", scores, axis=-1), 6)
    return n.pair(s.node("MatMul", weights, n.pair(conv_of(n, x, 6), 6)), 6)


def conv_of(n: Network, x: str, out: int) -> str:
    w, scales = n.filter(n.channels[x], out, n.channels[x], 1, 1)
    return str(n.sketch.node("Conv", x, w, *n.bias(out, scales, n.scale)))


def linear(n: Network, x: str) -> str:
    """The classifier: MatMul and Add, or Gemm, over what global pooling leaves."""
    s, channels = n.sketch, n.channels[x]
    pooled = n.pair(s.node("GlobalAveragePool", x), channels)
    flat = s.node("Flatten", pooled)
    if n.random.random() < 0.5:
        flat = n.pair(flat, channels)
    scale = n.scale
    if not n.style.turned and n.random.random() < 0.5:
        w, scales = n.filter(channels, 5, channels)
        y = s.node("Gemm", flat, w, *n.bias(5, scales, scale), transB=1)
    elif not n.style.turned:
        w, scales = n.filter(channels, channels, 5, axis=1)
        y = s.node("Gemm", flat, w, *n.bias(5, scales, scale))
    else:
        w, scales = n.filter(channels, 5, channels)
        y = s.node("MatMul", flat, s.node("Transpose", w, perm=[1, 0]))
        more = n.bias(5, scales, scale)
        if more:
            y = s.node("Add", y, *more)
    return n.pair(y, 5) if n.random.random() < 0.8 else y


def qdq_network(seed: int) -> bytes:
    """A network of two to five blocks, maybe with attention and a classifier; one or two outputs."""
    n = Network(seed)
    x = n.pair("x", IMAGE[1])
    for _ in range(int(n.random.integers(2, 6))):
        x = n.random.choice(np.array(BLOCKS, object))(n, x)
    outputs = []
    if n.random.random() < 0.25:
        outputs.append(n.sketch.node("Abs", x))
    if not n.style.turned and n.random.random() < 0.4:
        x = attention(n, x)
    if n.random.random() < 0.4:
        x = linear(n, x)
    model = n.sketch.model(IMAGE, x, *outputs, opset=n.style.opset)
    return bytes(model.SerializeToString())
