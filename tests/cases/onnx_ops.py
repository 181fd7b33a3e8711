"""Single-op ONNX cases: ties injected through the bias, saturation, odd zero points, borders, tails."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from karat24.refimpl.graph import QUANTIZED_RANGE, Array
from tests.cases.onnx_models import node, onnx_model
from tests.cases.quantized import every_pair, every_value, seeded, some_values

MS = "com.microsoft:"


@dataclass(frozen=True)
class OnnxCase:
    """``model`` is a file's content; ``feeds`` its inputs by name; ``edge`` says what it hits."""

    name: str
    model: bytes
    feeds: dict[str, Array]
    edge: str

    def __str__(self) -> str:
        return self.name


def _scalar(value: int, dtype: str) -> Array:
    return np.array(value, dtype)


def _f(value: float) -> Array:
    return np.array(value, np.float32)


PAIRS = (("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"))

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (3, 5, 3, 3)},
    "padded": {"shape": (16, 24, 3, 3), "pads": [1, 1, 1, 1]},
    "lopsided": {"shape": (7, 9, 3, 2), "pads": [2, 0, 1, 1], "strides": [2, 1]},
    "dilated": {"shape": (4, 6, 3, 3), "pads": [2, 2, 2, 2], "dilations": [2, 2]},
    "same_upper": {"shape": (4, 6, 3, 3), "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same_lower": {"shape": (4, 6, 2, 2), "auto_pad": "SAME_LOWER", "strides": [1, 2]},
    "valid": {"shape": (4, 6, 2, 3), "auto_pad": "VALID", "strides": [2, 2]},
    "grouped": {"shape": (8, 12, 3, 3), "group": 4, "pads": [1, 1, 1, 1]},
    "depthwise": {"shape": (19, 19, 3, 3), "group": 19, "pads": [1, 1, 1, 1]},
    "depthwise_5x5": {"shape": (19, 19, 5, 5), "group": 19, "pads": [2, 2, 2, 2], "strides": [2, 2]},
    "depthwise_twice": {"shape": (6, 12, 3, 3), "group": 6, "pads": [1, 1, 1, 1]},
    "pointwise": {"shape": (33, 17, 1, 1)},
    "one_axis": {"shape": (5, 9, 3), "pads": [1, 1]},
    "one_axis_strided": {"shape": (6, 8, 4), "pads": [2, 0], "strides": [2], "dilations": [2], "group": 2},
    "three_axes": {"shape": (5, 9, 3, 2, 3), "pads": [1, 0, 1, 1, 1, 0], "strides": [1, 2, 1]},
    "three_axes_grouped": {"shape": (4, 6, 2, 2, 2), "group": 2, "dilations": [1, 2, 1]},
    "one_axis_depthwise": {"shape": (19, 19, 3), "group": 19, "auto_pad": "SAME_UPPER"},
}


def convolutions() -> Iterator[OnnxCase]:
    """QLinearConv and ConvInteger."""
    for (data, weights), (name, given) in itertools.product(PAIRS, CONVOLUTIONS.items()):
        attributes = {key: value for key, value in given.items() if key != "shape"}
        channels, filters, *taps = given["shape"]
        yield from _convolution(
            f"{name}_{data}_{weights}", data, weights, channels, filters, taps, attributes
        )


def _convolution(
    name: str,
    data: str,
    weights: str,
    channels: int,
    filters: int,
    taps: list[int],
    attributes: dict[str, Any],
) -> Iterator[OnnxCase]:
    rng = seeded(name)
    x = some_values(rng, data, (2, channels, *{1: (11,), 2: (9, 7), 3: (5, 6, 4)}[len(taps)]))
    w = some_values(rng, weights, (filters, channels // attributes.get("group", 1), *taps))
    low = QUANTIZED_RANGE[data][0]
    common = {"zx": _scalar(low + 37, data), "w": w}
    zero = 0 if weights == "int8" else 131
    count = filters if weights == "int8" else 1
    scales = (rng.uniform(0.5, 2, count) * 0.01).astype(np.float32)
    for edge, input_scale, filter_scale, output_scale in (
        ("usual scales, both ends saturate", 0.037, scales, 0.06),
        ("powers of two: sums fall on ties", 2.0**-4, np.exp2(np.rint(np.log2(scales))), 2.0**-4),
    ):
        constants = {
            **common,
            "sx": _f(input_scale),
            "sw": filter_scale.astype(np.float32),
            "zw": np.full(count, zero, weights),
            "sy": _f(output_scale),
            "zy": _scalar(low + 101, data),
            "b": rng.integers(-3000, 3000, filters).astype(np.int32),
        }
        ins = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"]
        nodes = [node("QLinearConv", ins, **attributes)]
        yield OnnxCase(
            f"qlinear_conv_{name}_{input_scale:g}",
            onnx_model(nodes, {"x": x}, {"y": data}, constants), {"x": x}, edge,
        )  # fmt: skip
    if data == "uint8":
        nodes = [node("ConvInteger", ["x", "w", "zx", "zw"], **attributes)]
        constants = {**common, "zw": _scalar(zero, weights)}
        content = onnx_model(nodes, {"x": x}, {"y": "int32"}, constants)
        yield OnnxCase(f"conv_integer_{name}", content, {"x": x}, "int32 sums, zero points in the padding")


def ties() -> Iterator[OnnxCase]:
    """1×1 QLinearConv whose bias alone puts each channel on a tie, one beside it, or past an end."""
    for data, zero_point in itertools.product(("int8", "uint8"), (0, 1, 3, 64)):
        low, high = QUANTIZED_RANGE[data]
        # s_x * s_w / s_y = 1/4: sums 2 modulo 4 lie half way between two outputs.
        bias = np.arange(-1100, 1101).astype(np.int32)
        filters = bias.size
        x = np.zeros((1, 1, 2, 3), data)
        constants = {
            "sx": _f(0.5), "zx": _scalar(0, data), "w": np.ones((filters, 1, 1, 1), np.int8), "sw": _f(0.5),
            "zw": _scalar(0, "int8"), "sy": _f(1.0), "zy": _scalar(low + zero_point, data), "b": bias,
        }  # fmt: skip
        nodes = [node("QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"])]
        x[0, 0, 0] = [0, 1, 2]
        content = onnx_model(nodes, {"x": x}, {"y": data}, constants)
        edge = f"ties of both signs with zero point {low + zero_point}, up to {high} and past it"
        yield OnnxCase(f"ties_{data}_{zero_point}", content, {"x": x}, edge)


def matrices() -> Iterator[OnnxCase]:
    """QLinearMatMul, MatMulInteger and QGemm."""
    for data, weights in PAIRS:
        for shape, other, per_column in (
            ((5, 33), (33, 7), False),
            ((4, 8), (8, 9), True),
            ((2, 5, 16), (16, 7), False),
            ((3, 5, 16), (3, 16, 7), False),
        ):
            name = f"{data}_{weights}_{'x'.join(map(str, shape))}"
            rng = seeded(name)
            a, b = some_values(rng, data, shape), some_values(rng, weights, other)
            count = (other[-1],) if per_column else ()
            constants = {
                "sa": _f(0.037), "za": _scalar(QUANTIZED_RANGE[data][0] + 3, data), "b": b,
                "sb": (rng.uniform(0.5, 2, count) * 0.01).astype(np.float32),
                "zb": np.full(count, QUANTIZED_RANGE[weights][0] + 128, weights),
                "sy": _f(1.3), "zy": _scalar(QUANTIZED_RANGE[data][0] + 101, data),
            }  # fmt: skip
            content = onnx_model(
                [node("QLinearMatMul", ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"])],
                {"a": a}, {"y": data}, constants,
            )  # fmt: skip
            yield OnnxCase(
                f"qlinear_matmul_{name}", content, {"a": a}, "odd depth, stacks, scales per column"
            )
            if data == "uint8":
                kept = {key: constants[key] for key in ("b", "za")} | {
                    "zb": _scalar(QUANTIZED_RANGE[weights][0] + 128, weights)
                }
                nodes = [node("MatMulInteger", ["a", "b", "za", "zb"])]
                content = onnx_model(nodes, {"a": a}, {"y": "int32"}, kept)
                yield OnnxCase(f"matmul_integer_{name}", content, {"a": a}, "int32 sums")
            yield _to_float(name, constants, a)
        yield _half_scales(data, weights)
        for to_float, transposed, alpha in itertools.product((False, True), (0, 1), (1.0, 0.37)):
            yield _gemm(data, weights, to_float, transposed, alpha)


def _to_float(name: str, constants: dict[str, Array], a: Array) -> OnnxCase:
    """What a MatMul becomes whose result stays float32."""
    kept = {key: constants[key] for key in ("b", "sa", "sb", "za", "zb")}
    kept["c"] = seeded(name).normal(size=constants["b"].shape[-1]).astype(np.float32)
    nodes = [node(f"{MS}MatMulIntegerToFloat", ["a", "b", "sa", "sb", "za", "zb", "c"])]
    content = onnx_model(nodes, {"a": a}, {"y": "float32"}, kept)
    return OnnxCase(f"matmul_to_float_{name}", content, {"a": a}, "float32 scale, then bias, each rounded")


def _half_scales(data: str, weights: str) -> OnnxCase:
    """Sums of one product, so that every multiple of the scale is met, and float16 rounds their ratio."""
    low = QUANTIZED_RANGE[data][0]
    constants = {
        "b": _scalar(1, weights).reshape(1, 1), "sa": np.float16(0.0372), "sb": np.float16(0.0131),
        "sy": np.float16(0.00097), "za": _scalar(low + 128, data), "zb": _scalar(0, weights),
        "zy": _scalar(low + 101, data),
    }  # fmt: skip
    a = every_value(data).reshape(-1, 1)
    nodes = [node("QLinearMatMul", ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"])]
    content = onnx_model(nodes, {"a": a}, {"y": data}, constants)
    return OnnxCase(f"qlinear_matmul_half_{data}_{weights}", content, {"a": a}, "float16 scales")


def _gemm(data: str, weights: str, to_float: bool, transposed: int, alpha: float) -> OnnxCase:
    name = f"qgemm_{data}_{weights}_{to_float}_{transposed}_{alpha}"
    rng = seeded(name)
    a, b = some_values(rng, data, (6, 33)), some_values(rng, weights, (9, 33) if transposed else (33, 9))
    constants = {
        "sa": _f(0.037), "za": _scalar(QUANTIZED_RANGE[data][0] + 3, data), "b": b,
        "sb": (rng.uniform(0.5, 2, 9) * 0.01).astype(np.float32),
        "zb": np.full(9, QUANTIZED_RANGE[weights][0] + 128, weights),
        "c": rng.integers(-5000, 5000, 9).astype(np.int32),
    }  # fmt: skip
    ins = ["a", "sa", "za", "b", "sb", "zb", "c"]
    if not to_float:
        constants |= {"sy": _f(1.3), "zy": _scalar(QUANTIZED_RANGE[data][0] + 101, data)}
        ins += ["sy", "zy"]
    nodes = [node(f"{MS}QGemm", ins, transB=transposed, alpha=alpha)]
    content = onnx_model(nodes, {"a": a}, {"y": "float32" if to_float else data}, constants)
    return OnnxCase(name, content, {"a": a}, "bias, alpha rounded into the scale")


BINARY_SCALES = (
    (0.05, 3, 0.05, 7, 0.05, 5),
    (0.5, 0, 0.5, 1, 1.0, 3),
    (2.0**-4, 1, 2.0**-6, 7, 2.0**-3, 9),
    (0.0235, 100, 0.0472, 31, 0.0511, 77),
    (0.7, 11, 0.0009, 3, 0.69, 1),
)
"""``(s_a, zp_a, s_b, zp_b, s_c, zp_c)``, zero points from the type's minimum; the second and third put
every other result on a tie."""

BROADCASTS = ((1,), (), (17,), (3, 1, 1), (2, 3, 4, 1), (1, 3, 1, 17), (4, 17), (2, 1, 1, 1))


def pairs() -> Iterator[OnnxCase]:
    """QLinearAdd and QLinearMul of all 65,536 pairs, and broadcasting from both sides."""
    for op, dtype in itertools.product(("QLinearAdd", "QLinearMul"), ("uint8", "int8")):
        for number, scales in enumerate(BINARY_SCALES):
            yield binary(f"{op}_{dtype}_{number}", op, *every_pair(dtype), scales, "every pair of values")
        x = some_values(seeded(dtype), dtype, (2, 3, 4, 17))
        for number, shape in enumerate(BROADCASTS):
            y = some_values(seeded(f"{dtype}{number}"), dtype, shape)
            for side, (left, right) in {"right": (x, y), "left": (y, x)}.items():
                edge = f"single values on the {side} of the inner loop swap the operands"
                yield binary(
                    f"{op}_{dtype}_broadcast_{number}_{side}", op, left, right, BINARY_SCALES[3], edge
                )


def binary(name: str, op: str, a: Array, b: Array, scales: tuple[float, ...], edge: str) -> OnnxCase:
    """A QLinearAdd or QLinearMul; ``scales`` as those of BINARY_SCALES."""
    dtype = a.dtype.name
    low = QUANTIZED_RANGE[dtype][0]
    constants = {}
    for number, suffix in enumerate("abc"):
        constants[f"s{suffix}"] = _f(scales[2 * number])
        constants[f"z{suffix}"] = _scalar(low + int(scales[2 * number + 1]), dtype)
    nodes = [node(f"{MS}{op}", ["a", "sa", "za", "b", "sb", "zb", "sc", "zc"])]
    return OnnxCase(
        name, onnx_model(nodes, {"a": a, "b": b}, {"y": dtype}, constants), {"a": a, "b": b}, edge
    )


POOLS: dict[str, dict[str, Any]] = {
    "2x2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "3x3_padded": {"kernel_shape": [3, 3], "strides": [1, 2], "pads": [1, 1, 1, 1]},
    "ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "same": {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
}


OTHER_AXES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 12), {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "ceil_mode": 1}),
    ((2, 3, 13), {"kernel_shape": [4], "auto_pad": "SAME_LOWER", "strides": [3]}),
    ((2, 3, 6, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [3, 2, 3], "pads": [1, 0, 2, 0, 1, 1]}),
    ((1, 2, 6, 8, 6), {"kernel_shape": [3, 3, 3], "strides": [2, 2, 2], "pads": [1] * 6, "ceil_mode": 1}),
    ((1, 2, 3, 2, 4), {"kernel_shape": [3, 2, 4]}),
)
"""Images with pools over one to three spatial axes; with ``ceil_mode`` the last window leaves the padding."""


def other_axes() -> Iterator[OnnxCase]:
    """Average pools with and without the padding, and maxima, over one and three spatial axes."""
    for (number, (shape, attributes)), dtype in itertools.product(enumerate(OTHER_AXES), ("uint8", "int8")):
        image = some_values(seeded(f"{shape} {dtype}"), dtype, shape)
        for counts in (0, 1):
            chosen = {**attributes, "count_include_pad": counts}
            name = f"average_axes_{number}_{counts}"
            yield _one(name, f"{MS}QLinearAveragePool", image, 0.1, 0.07, chosen)
        yield _one(f"global_axes_{number}", f"{MS}QLinearGlobalAveragePool", image, 0.1, 0.07, {})
        content = onnx_model([node("MaxPool", "x", **attributes)], {"x": image}, {"y": dtype}, {})
        yield OnnxCase(f"max_axes_{number}_{dtype}", content, {"x": image}, "one to three spatial axes")


def unary() -> Iterator[OnnxCase]:
    """Pools, tables, concatenation and resizes."""
    for dtype, (source, target) in itertools.product(
        ("uint8", "int8"), ((0.037, 0.021), (2.0**-4, 2.0**-5), (0.1, 0.9))
    ):
        image = some_values(seeded(dtype), dtype, (2, 5, 7, 9))
        table = every_value(dtype)
        included = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
        for name, attributes in {**POOLS, "padding_counts": included}.items():
            yield _one(f"average_{name}", f"{MS}QLinearAveragePool", image, source, target, attributes)
        many = some_values(seeded(f"many {dtype}"), dtype, (8, 512, 4, 4))
        whole = {"kernel_shape": [4, 4]}
        yield _one("average_whole_image", f"{MS}QLinearAveragePool", many, source, target, whole)
        yield _one("global_average", f"{MS}QLinearGlobalAveragePool", image, source, target, {})
        yield _one("leaky_relu", f"{MS}QLinearLeakyRelu", table, source, target, {"alpha": 0.1})
        yield _one("sigmoid", f"{MS}QLinearSigmoid", table, source, 1 / 256, {})
        rows = some_values(seeded(f"rows {dtype}"), dtype, (3, 40, 100))
        for axis, opset in ((-1, 13), (1, 13), (1, 11)):
            attributes = {"axis": axis, "opset": opset}
            name = f"softmax_{axis}_{opset}"
            yield _one(name, f"{MS}QLinearSoftmax", rows, source, 1 / 256, attributes, 0)
    for dtype in ("uint8", "int8", "float32"):
        rng = seeded(f"image {dtype}")
        shape = (2, 3, 7, 9)
        image = (
            rng.normal(size=shape).astype(np.float32)
            if dtype == "float32"
            else some_values(rng, dtype, shape)
        )
        for name, attributes in POOLS.items():
            content = onnx_model([node("MaxPool", "x", **attributes)], {"x": image}, {"y": dtype}, {})
            yield OnnxCase(f"max_pool_{name}_{dtype}", content, {"x": image}, "borders count as nothing")
        yield from _resizes(dtype, image)


def _one(
    name: str,
    op: str,
    x: Array,
    source: float,
    target: float,
    attributes: dict[str, Any],
    zero_point: int = 57,
) -> OnnxCase:
    dtype = x.dtype.name
    low = QUANTIZED_RANGE[dtype][0]
    constants = {
        "sx": _f(source), "zx": _scalar(low + 99, dtype),
        "sy": _f(target), "zy": _scalar(low + zero_point, dtype),
    }  # fmt: skip
    content = onnx_model(
        [node(op, ["x", "sx", "zx", "sy", "zy"], **attributes)], {"x": x}, {"y": dtype}, constants
    )
    return OnnxCase(f"{name}_{dtype}_{source:g}", content, {"x": x}, "odd zero points; powers of two tie")


COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
NEAREST = ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")


def _resizes(dtype: str, image: Array) -> Iterator[OnnxCase]:
    for coordinates, scales in itertools.product(
        COORDINATES, ([1, 1, 2, 2], [1, 1, 1.5, 2.3], [1, 1, 0.5, 0.7])
    ):
        factors = np.array(scales, np.float32)
        for mode, nearest in [("linear", "floor"), *(("nearest", word) for word in NEAREST)]:
            nodes = [
                node(
                    "Resize", ["x", "", "scales"], mode=mode, nearest_mode=nearest,
                    coordinate_transformation_mode=coordinates,
                )
            ]  # fmt: skip
            content = onnx_model(nodes, {"x": image}, {"y": dtype}, {"scales": factors})
            name = f"resize_{mode}_{nearest}_{coordinates}_{scales[2]:g}_{dtype}"
            yield OnnxCase(name, content, {"x": image}, "positions on, between and outside pixels")


def cases() -> list[OnnxCase]:
    """All of them."""
    return [*convolutions(), *ties(), *matrices(), *pairs(), *unary(), *other_axes()]
