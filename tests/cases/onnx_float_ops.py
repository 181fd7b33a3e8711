"""Single-op ONNX cases outside quantized ops: float32 that is exact, and integers that are only picked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import OnnxCase
from tests.cases.quantized import seeded, some_values


def float_values() -> Iterator[OnnxCase]:
    """float32 ops that are exact, on zeros of both signs and what is not a number."""
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, -1, 1e-40, 6, 7], np.float32)
    x = np.concatenate([np.tile(special, 5), np.linspace(-25, 25, 5001, dtype=np.float32)])
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    for name, ins, constants in (
        ("Relu", ["x"], {}),
        ("Clip", ["x", "low", "high"], bounds),
        ("Neg", ["x"], {}),
        ("LeakyRelu", ["x"], {}),
        ("Abs", ["x"], {}),
    ):
        content = onnx_model([node(name, ins)], {"x": x}, {"y": "float32"}, constants)
        yield OnnxCase(name.lower(), content, {"x": x}, "-0, infinities, not-a-number")
    finite = x[np.isfinite(x)]
    for name in ("HardSigmoid", "HardSwish", "Floor", "Ceil", "Round", "Reciprocal"):
        values = finite[finite != 0]
        content = onnx_model([node(name, "x")], {"x": values}, {"y": "float32"}, {})
        yield OnnxCase(name.lower(), content, {"x": values}, "each step rounded to float32")
    positive = np.abs(finite)
    content = onnx_model([node("Sqrt", "x")], {"x": positive}, {"y": "float32"}, {})
    yield OnnxCase("sqrt", content, {"x": positive}, "one IEEE operation")
    content = onnx_model([node("Sigmoid", "x")], {"x": finite}, {"y": "float32"}, {})
    yield OnnxCase("sigmoid", content, {"x": finite}, "MLAS's rational function")
    for zero_point in (np.uint8(3), np.int8(-5), np.int16(7)):
        dtype = zero_point.dtype.name
        constants = {"s": np.float32(0.5), "z": zero_point}
        content = onnx_model([node("QuantizeLinear", "xsz")], {"x": x}, {"y": dtype}, constants)
        yield OnnxCase(
            f"quantize_{dtype}", content, {"x": x}, "ties, saturation, not-a-number is the minimum"
        )
        stored = np.arange(-300, 300).astype(dtype)
        nodes = [node("DequantizeLinear", ["x", "s", "z"])]
        content = onnx_model(nodes, {"x": stored}, {"y": "float32"}, constants)
        yield OnnxCase(f"dequantize_{dtype}", content, {"x": stored}, "every value")
    left, right = (seeded(name).normal(size=(4, 33)).astype(np.float32) for name in "ab")
    for op in ("Add", "Sub", "Mul", "Div"):
        content = onnx_model([node(op, "ab")], {"a": left, "b": right}, {"y": "float32"}, {})
        yield OnnxCase(op.lower(), content, {"a": left, "b": right}, "one IEEE operation")


REDUCED: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "rows": ((300, 51), (0,)),
    "image": ((1, 7, 9, 24), (1, 2)),
    "stack": ((3, 8, 30, 6), (1, 0)),
    "one_column": ((5, 300, 1, 2), (0, 1)),
}
"""Shapes, and axes with nothing before them."""


def reductions() -> Iterator[OnnxCase]:
    """Means over leading axes, greatest and least values and their positions, slopes."""
    for name, (shape, axes) in REDUCED.items():
        x = seeded(name).normal(size=shape).astype(np.float32)
        for keep, opset in itertools.product((0, 1), (17, 21)):
            given = {"axes": list(axes)} if opset < 18 else {}
            constants = {} if given else {"axes": np.array(axes)}
            nodes = [node("ReduceMean", ["x", *constants], keepdims=keep, **given)]
            content = onnx_model(nodes, {"x": x}, {"y": "float32"}, constants, opset)
            yield OnnxCase(f"mean_{name}_{keep}_{opset}", content, {"x": x}, "one slice after the other")
    for dtype in ("uint8", "int8", "float32"):
        rng = seeded(f"reduced {dtype}")
        x = rng.normal(size=(2, 5, 7, 9)).astype(np.float32)
        x = x if dtype == "float32" else some_values(rng, dtype, x.shape)
        for op, axes in itertools.product(("ReduceMax", "ReduceMin"), ([1], [2, 3])):
            content = onnx_model(
                [node(op, ["x", "axes"])], {"x": x}, {"y": dtype}, {"axes": np.array(axes)}
            )  # fmt: skip
            yield OnnxCase(f"{op}_{dtype}_{len(axes)}", content, {"x": x}, "no value is made up")
        for op, keep in itertools.product(("ArgMax", "ArgMin"), (0, 1)):
            content = onnx_model([node(op, "x", axis=1, keepdims=keep)], {"x": x}, {"y": "int64"}, {})
            yield OnnxCase(f"{op}_{dtype}_{keep}", content, {"x": x}, "the first of equal values")
    x = seeded("slopes").normal(size=(2, 5, 4, 3)).astype(np.float32)
    slopes = {"s": seeded("slope").normal(size=(5, 1, 1)).astype(np.float32)}
    content = onnx_model([node("PRelu", "xs")], {"x": x}, {"y": "float32"}, slopes)
    yield OnnxCase("prelu", content, {"x": x}, "slopes of both signs, one per channel")
    content = onnx_model([node("GlobalMaxPool", "x")], {"x": x}, {"y": "float32"}, {})
    yield OnnxCase("global_max_pool", content, {"x": x}, "an extreme anywhere")


TRANSPOSED: dict[str, dict[str, Any]] = {
    "doubling": {"shape": (16, 24, 4, 4), "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "longest_chain": {"shape": (128, 8, 2, 2), "strides": [2, 2]},
    "holes": {"shape": (5, 7, 3, 2), "strides": [4, 3], "output_padding": [1, 2]},
    "dilated": {"shape": (4, 6, 3, 3), "strides": [1, 2], "pads": [2, 0, 1, 1], "dilations": [2, 2]},
    "grouped": {"shape": (8, 3, 3, 3), "strides": [2, 2], "group": 4},
    "one_filter": {"shape": (9, 1, 1, 1)},
}


def transposed_convolutions() -> Iterator[OnnxCase]:
    """ConvTranspose in float32: long sums, taps on top of each other, taps that never meet."""
    for (name, given), bias in itertools.product(TRANSPOSED.items(), (False, True)):
        rng = seeded(name)
        attributes = {key: value for key, value in given.items() if key != "shape"}
        channels, wide, *taps = given["shape"]
        x, w, b = (
            rng.normal(size=size).astype(np.float32)
            for size in ((2, channels, 5, 7), (channels, wide, *taps), wide * attributes.get("group", 1))
        )
        nodes = [node("ConvTranspose", ["x", "w", "b"][: 2 + bias], **attributes)]
        constants = {"w": w, "b": b} if bias else {"w": w}
        content = onnx_model(nodes, {"x": x}, {"y": "float32"}, constants)
        yield OnnxCase(f"transposed_{name}_{bias}", content, {"x": x}, "one chain of fused multiply-adds")


def cases() -> list[OnnxCase]:
    """All of them."""
    return [*float_values(), *reductions(), *transposed_convolutions()]
