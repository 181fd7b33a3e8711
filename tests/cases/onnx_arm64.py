"""Layers whose bits depend on ONNX Runtime's kernels for 64-bit Arm: integer sums, fused products, ranges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from onnx import helper

from karat24.refimpl.graph import QUANTIZED_RANGE, Array
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import MS, PAIRS, OnnxCase, binary
from tests.cases.quantized import every_pair, every_value, seeded, some_values

BELOW_2 = float(np.nextafter(np.float32(2), np.float32(0)))

SCALES = {
    "ties": (0.5, 11, 1.0, 130, 1.0, 100),
    "products beside ties": (5 / 6, 100, 1.0, 100, 1.0, 128),
    "largest shift": (2.0**-10, 3, 2.0**-11, 7, 1.0, 5),
    "smallest ratio": (0.25, 3, 2.0**-14, 7, 1.0, 131),
    "largest ratio": (0.7, 3, 255.9, 7, 1.0, 131),
    "rounded to 23 bits": (BELOW_2, 0, 0.5, 1, 1.0, 3),
    "shift too large": (0.0005, 3, 0.0009, 7, 1.0, 5),
    "ratio too small": (0.051, 3, 2e-6, 7, 0.0497, 5),
    "ratio too large": (0.0513, 3, 307.3, 7, 1.0, 5),
}
"""``(s_a, zp_a, s_b, zp_b, s_c, zp_c)`` as BINARY_SCALES. QLinearAdd computes in integers on the first five,
on each other for one reason in float32; a product of -153 rounded to float32 is -127.5 on the second."""


def pairs() -> Iterator[OnnxCase]:
    """Every pair, and every value beside a single one on either side."""
    for dtype, (edge, scales) in itertools.product(("uint8", "int8"), SCALES.items()):
        for op in ("QLinearAdd", "QLinearMul"):
            name = f"{op}_{dtype}_{edge}".replace(" ", "_")
            yield binary(name, op, *every_pair(dtype), scales, edge)
            row, single = every_value(dtype).reshape(1, 256), every_value(dtype)[200:201].reshape(1, 1)
            yield binary(f"{name}_right", op, row, single, scales, edge)
            yield binary(f"{name}_left", op, single, row, scales, edge)


def products() -> Iterator[OnnxCase]:
    """MatMulIntegerToFloat and DynamicQuantizeMatMul: whole vectors of columns and what is left of them."""
    for (data, weights), columns, bias in itertools.product(PAIRS, (1, 4, 23), (True, False)):
        rng = seeded(f"{data} {weights} {columns}")
        a, b = some_values(rng, data, (3, 33)), some_values(rng, weights, (33, columns))
        stored = {
            "b": b, "sa": np.asarray(0.0371, np.float32),
            "sb": (rng.uniform(0.5, 2, columns) * 0.01).astype(np.float32),
            "za": np.array(QUANTIZED_RANGE[data][0] + 3, data),
            "zb": np.full(columns, QUANTIZED_RANGE[weights][0] + 128, weights),
        }  # fmt: skip
        if bias:
            stored["c"] = rng.normal(size=columns).astype(np.float32)
        inputs = ["a", "b", "sa", "sb", "za", "zb", *(["c"] if bias else [])]
        content = onnx_model(
            [node(f"{MS}MatMulIntegerToFloat", inputs)], {"a": a}, {"y": "float32"}, stored
        )  # fmt: skip
        yield OnnxCase(f"to_float_{data}_{weights}_{columns}_{bias}", content, {"a": a}, "product and bias")
        if data == "uint8":
            x = rng.normal(size=(3, 33)).astype(np.float32)
            kept = {name: stored[name] for name in ("b", "sb", "zb", "c") if name in stored}
            nodes = [node(f"{MS}DynamicQuantizeMatMul", ["x", *kept])]
            content = onnx_model(nodes, {"x": x}, {"y": "float32"}, kept)
            yield OnnxCase(f"dynamic_{weights}_{columns}_{bias}", content, {"x": x}, "product and bias")


SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 2.0**-128, 3e-39, 2.0**126, 3e38, -1.7e38], np.float32
)


def points() -> Iterator[OnnxCase]:
    """float32 functions of a few values: whole vectors of four, and what is left of them."""
    for op, size in itertools.product(("HardSigmoid", "HardSwish", "Reciprocal"), (1, 2, 3, 7, 18, 4001)):
        x = seeded(f"{op} {size}").normal(size=size).astype(np.float32)
        yield _point(f"{op}_{size}", op, x)
    yield _point("Reciprocal_special", "Reciprocal", SPECIAL)
    yield _point("Reciprocal_special_last", "Reciprocal", SPECIAL[:7][::-1].copy())


def _point(name: str, op: str, x: Array) -> OnnxCase:
    content = onnx_model([node(op, "x")], {"x": x}, {"y": "float32"}, {})
    return OnnxCase(name, content, {"x": x}, "vectors of four values and the rest")


def ranges() -> Iterator[OnnxCase]:
    """DynamicQuantizeLinear of values of which one is no number, in a vector of four or behind the last."""
    for size, place in ((4, 0), (5, 4), (6, 1), (7, 5), (16, 7), (19, 3), (19, 18), (67, 40)):
        x = seeded(f"{size} {place}").normal(size=size).astype(np.float32)
        x[place] = np.nan
        outputs = ["y", "scale", "zero_point"]
        nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], outputs)]
        types = dict(zip(outputs, ("uint8", "float32", "uint8"), strict=True))
        name = f"range_{size}_{place}"
        yield OnnxCase(name, onnx_model(nodes, {"x": x}, types, {}), {"x": x}, "a value is no number")


def cases() -> list[OnnxCase]:
    """All of them."""
    return [*pairs(), *products(), *points(), *ranges()]
