"""Dynamic quantization in ONNX: ranges found while the model runs, parameters the graph computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from karat24.refimpl.graph import QUANTIZED_RANGE, Array
from tests.cases.onnx_models import node, onnx_model
from tests.cases.onnx_ops import MS, PAIRS, OnnxCase
from tests.cases.quantized import seeded, some_values

DYNAMIC = {"y": "uint8", "scale": "float32", "zero_point": "uint8"}


def ranges() -> dict[str, tuple[Array, str]]:
    """Values to be quantized by their own range, each with the edge it hits."""
    halves = np.arange(-255, 256) / 2
    found = {
        "ties": (halves, "scale 1: the zero point 127.5 is a tie, and so is every second value"),
        "odd_tie": (np.concatenate([halves[halves >= -126.5], [128.5]]), "the zero point 126.5 is a tie"),
        "eighths": (np.concatenate([[-31.875, 0], np.arange(0, 256) / 16]), "a scale below 1, ties"),
        "zeros": (np.zeros(37), "no range: the scale 1"),
        "minus_zero": (np.array([-0.0]), "one value, a zero of the other sign"),
        "above": (np.linspace(3, 7, 71), "0 belongs to the range, zero point 0"),
        "below": (np.linspace(-7, -3, 71), "0 belongs to the range, zero point 255"),
        "tiny": (np.array([3e-39, -2e-39, 1e-40, 0]), "a subnormal scale"),
        "no_scale": (np.array([1e-44, -1e-45, 0]), "a scale of 0"),
        "infinite": (np.array([-np.inf, 3.0, 0.0]), "an infinite scale"),
        "wide": (np.array([3e38, -3e38, 1e38]), "a range that overflows"),
    }
    for size in (1, 5, 8, 17, 40, 133):
        draw = seeded(f"no numbers {size}").normal(size=(2, size))
        draw[0, -1 - seeded(f"where {size}").integers(0, size, 1 + size // 9)] = np.nan
        draw[1, -1], draw[1, 0] = np.inf, np.nan
        found[f"nan_{size}"] = draw[0], "NaN hides other values, by its position"
        found[f"last_nan_{size}"] = np.roll(draw[1], -1), "the last value is NaN, after an infinite one"
    for size in (1, 7, 8, 17, 64, 133):
        draw = seeded(f"dynamic {size}").normal(size=size) * 10.0 ** (size % 7 - 3)
        found[f"random_{size}"] = draw, "tails of blocks"
    return {name: (values.astype(np.float32), edge) for name, (values, edge) in found.items()}


def with_outputs(
    nodes: list[onnx.NodeProto], feeds: Mapping[str, Array], outputs: Mapping[str, str], **constants: Array
) -> bytes:
    """A model whose inputs are the feeds."""
    return onnx_model(nodes, feeds, outputs, constants)


def ranged() -> Iterator[OnnxCase]:
    """DynamicQuantizeLinear."""
    for name, (x, edge) in ranges().items():
        dynamic = helper.make_node("DynamicQuantizeLinear", ["x"], list(DYNAMIC))
        yield OnnxCase(f"dynamic_{name}", with_outputs([dynamic], {"x": x}, DYNAMIC), {"x": x}, edge)


def products() -> Iterator[OnnxCase]:
    """DynamicQuantizeMatMul, and products whose parameters are computed."""
    shapes = (((5, 33), (33, 7), False), ((4, 8), (8, 9), True), ((2, 5, 16), (16, 7), True))
    for weights, (shape, other, per_column) in itertools.product(("int8", "uint8"), shapes):
        name = f"{weights}_{'x'.join(map(str, shape))}"
        rng, columns = seeded(name), other[-1]
        a = (rng.integers(-255, 256, shape) / 2).astype(np.float32)
        a.reshape(-1)[:2] = -127.5, 127.5  # scale 1: every second value is a tie
        b, count = some_values(rng, weights, other), (columns,) if per_column else ()
        constants = {
            "b": b,
            "sb": (rng.uniform(0.5, 2, count) * 0.01).astype(np.float32),
            "zb": np.full(count, QUANTIZED_RANGE[weights][0] + 128, weights),
            "c": rng.normal(size=columns).astype(np.float32),
        }
        for given in (["a", "b", "sb"], ["a", "b", "sb", "zb", "c"], ["a", "b", "sb", "", "c"]):
            used = {key: constants[key] for key in given[1:] if key}
            nodes = [node(f"{MS}DynamicQuantizeMatMul", given)]
            yield OnnxCase(
                f"dynamic_matmul_{name}_{len(given)}_{'zb' in given}",
                with_outputs(nodes, {"a": a}, {"y": "float32"}, **used), {"a": a}, "ties of a, then of sums",
            )  # fmt: skip
    for data, weights in PAIRS:
        rng = seeded(f"{data} by {weights}")
        a, b = some_values(rng, data, (6, 17)), some_values(rng, weights, (17, 5))
        zeros = {"za": np.array(QUANTIZED_RANGE[data][0] + 3, data), "zb": np.array(5, weights)}
        feeds = {"a": a, **zeros}
        nodes = [node("MatMulInteger", ["a", "b", "za", "zb"])]
        if data == "uint8":
            content = with_outputs(nodes, feeds, {"y": "int32"}, b=b)
            yield OnnxCase(f"computed_matmul_{data}_{weights}", content, feeds, "zero points are inputs")
        feeds = {**feeds, "sa": np.array(0.037, np.float32), "sb": np.array(0.011, np.float32)}
        nodes = [node(f"{MS}MatMulIntegerToFloat", ["a", "b", "sa", "sb", "za", "zb"])]
        content = with_outputs(nodes, feeds, {"y": "float32"}, b=b)
        yield OnnxCase(f"computed_to_float_{data}_{weights}", content, feeds, "scales are inputs, too")


def convolutions() -> Iterator[OnnxCase]:
    """ConvInteger whose image's zero point is computed: it is what lies in the padding."""
    kinds: tuple[tuple[str, tuple[int, ...], dict[str, object]], ...] = (
        ("padded", (6, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("lopsided", (5, 7, 3, 2), {"pads": [2, 0, 1, 1], "strides": [2, 1]}),
        ("grouped", (8, 12, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        ("depthwise", (19, 19, 3, 3), {"group": 19, "auto_pad": "SAME_UPPER"}),
        ("one_axis", (5, 9, 3), {"pads": [1, 1]}),
        ("one_axis_grouped", (6, 8, 4), {"pads": [2, 0], "strides": [2], "group": 2}),
    )
    for weights, (name, (channels, filters, *taps), attributes) in itertools.product(
        ("int8", "uint8"), kinds
    ):
        rng = seeded(f"{name} {weights}")
        x = some_values(rng, "uint8", (2, channels, *((9, 7) if len(taps) == 2 else (11,))))
        groups = attributes.get("group", 1)
        assert isinstance(groups, int)
        w = some_values(rng, weights, (filters, channels // groups, *taps))
        feeds = {"x": x, "zx": np.array(201, np.uint8)}
        nodes = [node("ConvInteger", ["x", "w", "zx", "zw"], **attributes)]
        content = with_outputs(nodes, feeds, {"y": "int32"}, w=w, zw=np.array(3, weights))
        yield OnnxCase(
            f"computed_conv_{name}_{weights}", content, feeds, "padding is the computed zero point"
        )


def parameters() -> Iterator[OnnxCase]:
    """QuantizeLinear and DequantizeLinear with parameters that are inputs; casts that round."""
    x = (np.arange(-300, 300) / 4).astype(np.float32).reshape(-1, 3)
    scales = np.array([0.5, 0.25, 3], np.float32)
    for dtype in ("int8", "uint8", "int16", "uint16"):
        zeros = np.array([3, 0, 5], dtype)
        feeds = {"x": x, "s": scales, "z": zeros}
        content = with_outputs([node("QuantizeLinear", "xsz")], feeds, {"y": dtype})
        yield OnnxCase(f"computed_quantize_{dtype}", content, feeds, "ties, one scale per column")
        feeds = {"x": x.astype(dtype), "s": scales[:1].reshape(()), "z": zeros[:1].reshape(())}
        content = with_outputs([node("DequantizeLinear", "xsz")], feeds, {"y": "float32"})
        yield OnnxCase(f"computed_dequantize_{dtype}", content, feeds, "one scale")
    yield from _halves()
    yield from _blocks()
    wide = np.array([0, 1, -1, 2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**31 - 1, -(2**31)], np.int64)
    for source in ("int32", "int64"):
        feeds = {"x": wide.astype(source)}
        content = with_outputs([node("Cast", "x", to=1)], feeds, {"y": "float32"})
        yield OnnxCase(f"cast_{source}_float32", content, feeds, "ties beyond 24 bits")
    values = np.array([1, 1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, 1e9, -1e9, 2**-25, 3 * 2**-25, 0.1])
    feeds = {"x": values.astype(np.float32)}
    content = with_outputs([node("Cast", "x", to=10)], feeds, {"y": "float16"})
    yield OnnxCase("cast_float32_float16", content, feeds, "ties, overflow to infinity, subnormal halves")


def _halves() -> Iterator[OnnxCase]:
    """float16 values and scales: divided and multiplied in float32."""
    every = np.arange(2**16).astype(np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    for dtype in ("int8", "uint8", "int16", "uint16"):
        constants = {"s": np.float16(0.0371), "z": np.array(3, dtype)}
        content = with_outputs([node("QuantizeLinear", "xsz")], {"x": every}, {"y": dtype}, **constants)
        yield OnnxCase(f"half_quantize_{dtype}", content, {"x": every}, "every finite float16")
        stored = np.arange(-3000, 3000).astype(dtype)
        nodes = [node("DequantizeLinear", "xsz")]
        content = with_outputs(nodes, {"x": stored}, {"y": "float16"}, **constants)
        yield OnnxCase(f"half_dequantize_{dtype}", content, {"x": stored}, "products rounded to float16")


def _blocks() -> Iterator[OnnxCase]:
    """DequantizeLinear of constants in blocks and of 4 bits; QuantizeLinear in blocks."""
    kinds = (
        ("int4", -8, 8, onnx.TensorProto.INT4), ("uint4", 0, 16, onnx.TensorProto.UINT4),
        ("int8", -128, 128, onnx.TensorProto.INT8), ("int16", -3000, 3000, onnx.TensorProto.INT16),
    )  # fmt: skip
    shapes = ((0, 32, (64, 5)), (1, 3, (5, 7)), (-1, 4, (3, 2, 9)), (1, 0, (5, 7)), (0, 100, (7, 3)))
    for (dtype, low, high, code), (axis, block, shape) in itertools.product(kinds, shapes):
        rng = seeded(f"{dtype} {shape}")
        sizes = [shape[axis]]
        if block:
            sizes = [-(-n // block) if i == axis % len(shape) else n for i, n in enumerate(shape)]
        scales = rng.uniform(0.1, 1, sizes).astype(np.float32)
        zeros = rng.integers(max(low, -8), min(high, 8), sizes)
        options = {"axis": axis} | ({"block_size": block} if block else {})
        nodes = [node("DequantizeLinear", "wsz", "d", **options), node("Add", "dx")]
        x = rng.normal(size=shape).astype(np.float32)
        model = onnx.load_from_string(with_outputs(nodes, {"x": x}, {"y": "float32"}, s=scales))
        for name, values in (("w", rng.integers(low, high, shape)), ("z", zeros)):
            listed = values.reshape(-1).tolist()
            model.graph.initializer.append(helper.make_tensor(name, code, values.shape, listed))
        content = bytes(model.SerializeToString())
        name = f"blocks_{dtype}_{axis}_{block}_{len(shape)}"
        yield OnnxCase(name, content, {"x": x}, "a last block that is not full, an odd last half byte")
        if block and dtype in ("int8", "int16"):
            nodes = [node("QuantizeLinear", "xsz", **options)]
            content = with_outputs(nodes, {"x": 9 * x}, {"y": dtype}, s=scales, z=zeros.astype(dtype))
            yield OnnxCase(f"quantize_{name}", content, {"x": 9 * x}, "scales of blocks")


def cases() -> list[OnnxCase]:
    """All of them."""
    return [*ranged(), *products(), *convolutions(), *parameters()]
