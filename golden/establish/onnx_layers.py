"""Layers of .onnx files for each kind, on scales where rules differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from karat24.golden.establish.kinds import Kind
from karat24.golden.establish.tflite_layers import CHANNELS, FINE, THREE_EIGHTHS
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import QUANTIZED_RANGE, Graph
from karat24.refimpl.profiles.space import MICROSOFT

OPSET = 21
DEPTH = 40
"""Products in a sum of a product of matrices."""


Scale = float | np.ndarray[Any, Any]
"""One scale, or one per channel."""


class _Builder(GraphBuilder):
    """Builds one ONNX layer; what TFLite keeps with a tensor is an input of the node."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(str(kind), "onnx")
        self._kind = kind

    def parameters(self, name: str, scale: Scale, zero: int | None, dtype: str) -> list[int]:
        """A scale, and a zero point ``zero`` from the least value of ``dtype``."""
        found = [self.constant(f"{name}_scale", np.asarray(scale, np.float32))]
        if zero is not None:
            zeros = np.full(np.shape(scale), QUANTIZED_RANGE[dtype][0] + zero, dtype)
            found.append(self.constant(f"{name}_zero_point", zeros))
        return found

    def finish(self, inputs: list[int], shape: tuple[int, ...], dtype: str, **attributes: Any) -> Graph:
        """The graph of the one layer."""
        output = self.tensor("output", shape, dtype)
        version = 1 if self._kind.op.startswith(MICROSOFT) else OPSET
        self.layer(self._kind.op, inputs, [output], version, **attributes)
        return self.build([output], None)


def weighted_layer(kind: Kind, seed: int) -> Graph:
    """A layer of a filter: scales of a power of two for every second seed, where roundings meet ties."""
    rng, builder = np.random.default_rng(seed), _Builder(kind)
    even = seed % 2 == 0
    count = CHANNELS if kind.per_channel else 0
    scales = np.exp2(rng.integers(-9, -5, count or None)) if even else rng.uniform(0.002, 0.02, count or None)
    ratio = 2.0**-4 if even else float(rng.uniform(0.03, 0.09))
    depthwise = kind.form == "depthwise"
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "QLinearConv": ((1, 8, 3, 3), (CHANNELS, 8, 3, 3), (1, CHANNELS, 1, 1)),
        "QLinearMatMul": ((1, DEPTH), (DEPTH, CHANNELS), (1, CHANNELS)),
    }
    given, filters, result = shapes["QLinearConv" if kind.op == "QLinearConv" else "QLinearMatMul"]
    if depthwise:
        given, filters = (1, CHANNELS, 3, 3), (CHANNELS, 1, 3, 3)
    low = QUANTIZED_RANGE[kind.filter][0]
    weights = rng.integers(low + 1, low + 256, filters).astype(kind.filter)
    inputs = [builder.input("data", given, kind.dtype), *builder.parameters("data", ratio, 131, kind.dtype)]
    inputs += [builder.constant("filter", weights)]
    inputs += builder.parameters("filter", scales, 128 if kind.filter == "int8" else 125, kind.filter)
    fine = ratio * float(np.mean(scales)) / (FINE if kind.op != "QLinearMatMul" else 16 * FINE)
    output = builder.parameters("output", 2.0**-3 if even else fine, 121, kind.dtype)
    bias = [] if kind.op == "QLinearMatMul" else [builder.constant("bias", np.zeros(CHANNELS, np.int32))]
    if kind.op == f"{MICROSOFT}QGemm":
        return builder.finish([*inputs, *bias, *output], result, kind.dtype, alpha=1.0 if even else 0.37)
    attributes = {"group": CHANNELS} if depthwise else {}
    return builder.finish([*inputs, *output, *bias], result, kind.dtype, **attributes)


def table_layer(kind: Kind, seed: int) -> Graph:
    """A layer of one or two bytes."""
    scales = np.random.default_rng(seed).uniform(0.02, 0.08, 3)
    if seed % 2:
        product = scales[0] * scales[1] * 64 if kind.op == f"{MICROSOFT}QLinearMul" else scales[0]
        scales[2] = product / THREE_EIGHTHS
    elif kind.op == f"{MICROSOFT}QLinearAdd" and seed == 0:
        scales = np.array([0.3, 0.7, 1.0])  # every tenth sum is a tie but for float32 roundings
    builder, shape, dtype = _Builder(kind), (1, 41), kind.dtype
    inputs = [builder.input("left", shape, dtype), *builder.parameters("left", scales[0], 131, dtype)]
    if kind.op == "DequantizeLinear":
        return builder.finish(inputs, shape, "float32")
    attributes: dict[str, Any] = {}
    if kind.op in (f"{MICROSOFT}QLinearAdd", f"{MICROSOFT}QLinearMul"):
        # ONNX Runtime knows a single value by its place in a row of several.
        right = builder.input("right", (1, 1) if kind.form == "scalar" else shape, dtype)
        inputs += [right, *builder.parameters("right", scales[1], 122, dtype)]
    if kind.op == f"{MICROSOFT}QLinearLeakyRelu":
        attributes["alpha"] = 0.3
    sigmoid = kind.op == f"{MICROSOFT}QLinearSigmoid"
    inputs += builder.parameters("output", 1 / 256 if sigmoid else scales[2], 0 if sigmoid else 119, dtype)
    return builder.finish(inputs, shape, dtype, **attributes)


def sampled_layer(kind: Kind, seed: int) -> Graph:
    """A layer without a finite description."""
    rng, builder, dtype = np.random.default_rng(seed), _Builder(kind), kind.dtype
    op = kind.op.removeprefix(MICROSOFT)
    scales = rng.uniform(0.02, 0.08, 3)
    if op in ("QuantizeLinear", "Sigmoid"):
        data = builder.input("data", (1, 541), "float32")
        more = [] if op == "Sigmoid" else builder.parameters("output", scales[0], 119, dtype)
        return builder.finish([data, *more], (1, 541), dtype)
    if op == "MaxPool":
        return builder.finish(
            [builder.input("data", (2, 5, 6, 7), dtype)], (2, 5, 5, 5), dtype, kernel_shape=(2, 3)
        )
    if op == "Resize":
        modes = ("half_pixel", "asymmetric", "align_corners")
        factors = builder.constant("scales", np.array([1, 1, 1.5, 2], np.float32))
        return builder.finish(
            [builder.input("data", (1, 6, 6, 7), dtype), -1, factors], (1, 6, 9, 14), dtype,
            mode="linear", coordinate_transformation_mode=modes[seed % 3],
        )  # fmt: skip
    if kind.filter:
        return _integer_products(builder, kind, rng, scales)
    if seed % 2:  # averages of 16 values: ties
        scales = np.array([2.0**-4, 2.0**-3, 2.0**-5])
    given = builder.parameters("data", scales[0], 131, dtype)
    result = builder.parameters("output", scales[1], 119, dtype)
    if op == "QLinearSoftmax":
        result = builder.parameters("output", 1 / 256, 0, dtype)
        data = builder.input("data", (7, 19), dtype)
        return builder.finish([data, *given, *result], (7, 19), dtype, axis=-1, opset=13)
    if op == "QLinearConcat":
        left, right = (builder.input(name, (2, 300), dtype) for name in ("left", "right"))
        other = builder.parameters("right", scales[2], 122, dtype)
        return builder.finish([*result, left, *given, right, *other], (2, 600), dtype, axis=1)
    data = builder.input("data", (16, 32, 4, 4), dtype)
    inputs = [data, *given, *result]
    if kind.form == "windows":
        return builder.finish(inputs, (16, 32, 3, 1), dtype, kernel_shape=(2, 4))
    attributes = {"kernel_shape": (4, 4)} if op == "QLinearAveragePool" else {}
    return builder.finish(inputs, (16, 32, 1, 1), dtype, **attributes)


def _integer_products(
    builder: _Builder, kind: Kind, rng: np.random.Generator, scales: np.ndarray[Any, Any]
) -> Graph:
    """ConvInteger, MatMulInteger and MatMulIntegerToFloat."""
    image = kind.op == "ConvInteger"
    low = QUANTIZED_RANGE[kind.filter][0]
    shapes = ((6, 4, 3, 3), (9, 4, 3, 3), (6, 9, 1, 1)) if image else ((6, DEPTH), (DEPTH, 9), (6, 9))
    weights = rng.integers(low, low + 256, shapes[1]).astype(kind.filter)
    inputs = [builder.input("data", shapes[0], kind.dtype), builder.constant("filter", weights)]
    zeros = [
        builder.constant("data_zero_point", np.array(7, kind.dtype)),
        builder.constant("filter_zero_point", np.array(low + 128, kind.filter)),
    ]
    if kind.op in ("ConvInteger", "MatMulInteger"):
        return builder.finish([*inputs, *zeros], shapes[2], "int32")
    factors = [builder.constant(f"scale{i}", np.asarray(scales[i], np.float32)) for i in (0, 1)]
    bias = builder.constant("bias", rng.normal(size=9).astype(np.float32))
    return builder.finish([*inputs, *factors, *zeros, bias], shapes[2], "float32")
