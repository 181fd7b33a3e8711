"""Random small float networks for ONNX Runtime's own quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

from tests.export.onnx_models import Sketch, quantized_model

IMAGE = (1, 3, 8, 8)

WAYS: tuple[dict[str, Any], ...] = tuple(
    {"quant_format": form, "activation_type": activations, "weight_type": weights, "per_channel": per_channel}
    for form in (QuantFormat.QDQ, QuantFormat.QOperator)
    for activations, weights in (
        (QuantType.QUInt8, QuantType.QInt8),
        (QuantType.QInt8, QuantType.QInt8),
        (QuantType.QUInt8, QuantType.QUInt8),
    )
    for per_channel in (False, True)
)
"""Both forms; u8s8, s8s8 and u8u8; one scale per filter or one per channel."""


class _Network:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.sketch = Sketch(seed)
        self._biases: dict[int, str] = {}
        self._shared = bool(self.random.random() < 0.25)

    def conv(self, x: str, channels: int, out: int, size: int = 3, group: int = 1) -> str:
        """With a bias of its own, the one of all layers that wide, or none."""
        s = self.sketch
        filter_ = s.weight(out, channels // group, size, size, scale=1 / size)
        biases = [self._bias(out)] if self.random.random() < 0.8 else []
        return str(s.node("Conv", x, filter_, *biases, group=group, pads=[size // 2] * 4))

    def _bias(self, out: int) -> str:
        if not self._shared or out not in self._biases:
            self._biases[out] = self.sketch.weight(out)
        return self._biases[out]

    def block(self, x: str, channels: int) -> tuple[str, int]:
        s = self.sketch
        match int(self.random.integers(8)):
            case 0:
                return s.node("Relu", self.conv(x, channels, 6)), 6
            case 1:
                y = s.node("Clip", self.conv(x, channels, channels, 3, channels),
                           s.constant(np.float32(0)), s.constant(np.float32(6)))  # fmt: skip
                return y, channels
            case 2:
                return s.node("Add", x, self.conv(x, channels, channels)), channels
            case 3:
                return s.node("Concat", x, self.conv(x, channels, 4, 1), axis=1), channels + 4
            case 4:
                return s.node("Mul", x, s.node("Sigmoid", self.conv(x, channels, channels, 1))), channels
            case 5:
                op = str(self.random.choice(["MaxPool", "AveragePool"]))
                return s.node(op, x, kernel_shape=[3, 3], pads=[1] * 4), channels
            case 6:
                up = s.node(
                    "Resize", x, "", s.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
                    coordinate_transformation_mode="asymmetric", nearest_mode="floor",
                )  # fmt: skip
                return s.node("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2]), channels
        return s.node("LeakyRelu", self.conv(x, channels, channels, 1), alpha=0.1), channels

    def attention(self, x: str, channels: int) -> tuple[str, int]:
        s = self.sketch
        query, key, value = (self.conv(x, channels, 4, 1) for _ in range(3))
        scores = s.node("MatMul", query, s.node("Transpose", key, perm=[0, 1, 3, 2]))
        return s.node("MatMul", s.node("Softmax", scores, axis=-1), value), 4

    def classifier(self, x: str, channels: int) -> str:
        s = self.sketch
        flat = s.node("Flatten", s.node("GlobalAveragePool", x))
        if self.random.random() < 0.5:
            return str(s.node("Gemm", flat, s.weight(5, channels), s.weight(5), transB=1))
        return str(s.node("Add", s.node("MatMul", flat, s.weight(channels, 5)), s.weight(5)))


def float_network(seed: int) -> Any:
    """A ModelProto of one to four blocks behind a convolution, maybe with attention and a classifier."""
    n = _Network(seed)
    x, channels = n.sketch.node("Relu", n.conv("x", IMAGE[1], 4)), 4
    for _ in range(int(n.random.integers(1, 5))):
        x, channels = n.block(x, channels)
    if n.random.random() < 0.3:
        x, channels = n.attention(x, channels)
    if n.random.random() < 0.5:
        x = n.classifier(x, channels)
    return n.sketch.model(IMAGE, x, opset=int(n.random.choice([13, 17, 21])))


def quantized_network(seed: int) -> bytes:
    """One of them, quantized in one of the ways."""
    way = WAYS[seed % len(WAYS)]
    return quantized_model(float_network(seed), calibrate_method=CalibrationMethod.MinMax, **way)
