"""Single-layer graphs on both sides of every condition LiteRT's XNNPACK delegate sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from karat24.refimpl.graph import AttributeValue, Graph
from tests.cases.xnnpack_hybrid import products, transposed
from tests.cases.xnnpack_weighted import convolutions, fully_connecteds, transposed_convolutions
from tests.support.layer_graphs import Constant, Named, Value, filled, ints, layer, q8

DTYPES = ("int8", "uint8")


def binaries(dtype: str) -> Named:
    image = (1, 4, 4, 3)

    def make(op: str, a: float = 0.1, b: float = 0.1, out: float = 0.2, **kw: object) -> Graph:
        shapes = kw.get("shapes", (image, image))
        left = q8(shapes[0], dtype, a, axis=kw.get("axis", 0))  # type: ignore[index,arg-type]
        right: Value | Constant = q8(shapes[1], dtype, b)  # type: ignore[index]
        if kw.get("constant"):
            right = Constant(filled(right.shape, dtype), right.quantization)  # type: ignore[union-attr]
        shape = np.broadcast_shapes(*shapes)  # type: ignore[misc]
        return layer(
            op, [left, right], q8(shape, dtype, out), version=2,
            fused_activation_function=str(kw.get("activation", "NONE")),
        )  # fmt: skip

    for op in ("ADD", "SUB", "MUL"):
        yield f"{op} plain", make(op)
        yield f"{op} constant", make(op, constant=True, shapes=(image, (3,)))
        yield f"{op} broadcast both", make(op, shapes=((1, 1, 4, 3), (1, 4, 1, 3)))
        yield f"{op} scalar", make(op, constant=True, shapes=(image, ()))
        yield f"{op} rank 6", make(op, shapes=((1, 1, 2, 2, 2, 3),) * 2)
        yield f"{op} axis 3", make(op, axis=3)
        yield f"{op} RELU6", make(op, activation="RELU6")
    for op in ("ADD", "SUB"):
        for denominator in (1024, 1025):
            yield f"{op} first scale 1/{denominator} of the output's", make(op, 1 / denominator, 1, 1)
            yield f"{op} second scale 1/{denominator} of the output's", make(op, 1, 1 / denominator, 1)
        for factor in (255.99, 256):
            yield f"{op} first scale {factor} times the output's", make(op, factor, 1, 1)
            yield f"{op} second scale {factor} times the output's", make(op, 1, factor, 1)
    for product in (2.0**-16, float(np.nextafter(np.float32(2**-16), np.float32(0))), 255.99, 256.0):
        yield f"MUL scales' product {product} times the output's", make("MUL", product, 1, 1)
    for op in ("MINIMUM", "MAXIMUM"):
        yield op, layer(op, [q8(image, dtype), q8(image, dtype)], q8(image, dtype), version=2)


def unaries(dtype: str) -> Named:
    image, other = (1, 4, 4, 3), "uint8" if dtype == "int8" else "int8"
    low = -128 if dtype == "int8" else 0
    real = Value(image, "float32")
    yield "QUANTIZE from float", layer("QUANTIZE", [real], q8(image, dtype))
    yield "QUANTIZE from float to axis 3", layer("QUANTIZE", [real], q8(image, dtype, axis=3))
    yield "QUANTIZE to the other", layer("QUANTIZE", [q8(image, dtype)], q8(image, other))
    yield "DEQUANTIZE", layer("DEQUANTIZE", [q8(image, dtype)], real, version=2)
    yield "DEQUANTIZE axis 3", layer("DEQUANTIZE", [q8(image, dtype, axis=3)], real, version=2)
    for ratio in (1 / 256, 1 / 257, 128, 129):
        yield (
            f"QUANTIZE ratio {ratio}",
            layer("QUANTIZE", [q8(image, dtype, ratio)], q8(image, dtype, 1), version=2),
        )
        yield f"LEAKY_RELU ratio {ratio}", leaky(dtype, ratio, 1.0)
        yield f"LEAKY_RELU negative ratio {ratio}", leaky(dtype, 1.0, ratio)
    for alpha in (0.0, 1e-40, -0.3, -127.9, -128.0):
        yield f"LEAKY_RELU alpha {alpha}", leaky(dtype, 1.0, alpha)
    for shape in (image, (1, 1, 1, 2, 2, 3), (1, 1, 1, 1, 2, 2, 3)):
        yield (
            f"LOGISTIC rank {len(shape)}",
            layer("LOGISTIC", [q8(shape, dtype)], q8(shape, dtype, 1 / 256, low)),
        )
    yield "TANH", layer("TANH", [q8(image, dtype)], q8(image, dtype, 1 / 128, low + 128))
    for op in ("RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH"):
        yield (
            op,
            layer(op, [q8(image, dtype)], q8(image, dtype, 0.2), version=2 if op in ("RELU", "RELU6") else 1),
        )
    yield (
        "SOFTMAX",
        layer("SOFTMAX", [q8((1, 9), dtype)], q8((1, 9), dtype, 1 / 256, low), version=2, beta=1.0),
    )
    yield "L2_NORMALIZATION", layer(
        "L2_NORMALIZATION", [q8(image, dtype)], q8(image, dtype, 1 / 128, low + 128), version=2,
        fused_activation_function="NONE",
    )  # fmt: skip


def leaky(dtype: str, ratio: float, alpha: float) -> Graph:
    shape = (1, 4, 4, 3)
    return layer("LEAKY_RELU", [q8(shape, dtype, ratio)], q8(shape, dtype, 1), version=2, alpha=alpha)


def poolings(dtype: str) -> Named:
    def make(op: str, window: int = 2, stride: int = 2, padding: str = "SAME", **kw: object) -> Graph:
        out = -(-8 // stride) if padding == "SAME" else (8 - window) // stride + 1
        return layer(
            op, [q8((1, 8, 8, 3), dtype, axis=int(kw.get("axis", 0)))],  # type: ignore[call-overload]
            q8((1, out, out, 3), dtype, float(kw.get("scale", 0.1))),  # type: ignore[arg-type]
            version=2, padding=padding, stride_w=stride, stride_h=stride, filter_width=window,
            filter_height=window, fused_activation_function=str(kw.get("activation", "NONE")),
        )  # fmt: skip

    for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        yield f"{op} plain", make(op)
        yield f"{op} VALID, overlapping", make(op, 3, 2, "VALID")
        yield f"{op} stride larger than the window", make(op, 2, 3)
        yield f"{op} 1×1", make(op, 1, 1)
        yield f"{op} 1×1 with a stride", make(op, 1, 2)
        yield f"{op} RELU6", make(op, activation="RELU6")
        yield f"{op} axis 3", make(op, axis=3)
    yield "MAX_POOL_2D to another scale", make("MAX_POOL_2D", scale=0.2)


def reductions(dtype: str) -> Named:
    shape = (2, 4, 5, 3)
    for axes in ((1, 2), (3,), (0, 1, 2, 3), (-1,), ()):
        for keep in (True, False):
            reduced = {axis % 4 for axis in axes}
            out = [1 if i in reduced else n for i, n in enumerate(shape) if keep or i not in reduced]
            yield (
                f"MEAN {axes} keep_dims {keep}",
                layer("MEAN", [q8(shape, dtype), ints(*axes)], q8(out, dtype), version=2, keep_dims=keep),
            )
    kept = (2, 1, 1, 3)
    for scale in (1e-5, 1e3):
        yield (
            f"MEAN to scale {scale}",
            layer("MEAN", [q8(shape, dtype), ints(1, 2)], q8(kept, dtype, scale), version=2, keep_dims=True),
        )
    yield "MEAN over one axis given as a scalar", layer(
        "MEAN", [q8(shape, dtype), Constant(np.array(2, np.int32))], q8((2, 4, 1, 3), dtype), version=2,
        keep_dims=True,
    )  # fmt: skip
    yield "SUM", layer("SUM", [q8(shape, dtype), ints(1, 2)], q8(kept, dtype), version=2, keep_dims=True)


def resizes(dtype: str) -> Named:
    def make(
        op: str, corners: bool, centers: bool, axis: int = 0, scale: float = 0.1, fixed: bool = True
    ) -> Graph:
        return layer(
            op, [q8((1, 4, 4, 3), dtype, axis=axis), ints(8, 8) if fixed else Value((2,), "int32")],
            q8((1, 8, 8, 3), dtype, scale), version=3, align_corners=corners, half_pixel_centers=centers,
        )  # fmt: skip

    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for corners, centers in ((False, False), (True, False), (False, True)):
            yield f"{op} align_corners {corners}, half_pixel_centers {centers}", make(op, corners, centers)
    bilinear = partial(make, "RESIZE_BILINEAR", False, True)
    yield "RESIZE_BILINEAR axis 3", bilinear(axis=3)
    yield "RESIZE_BILINEAR computed size", bilinear(fixed=False)
    yield "RESIZE_BILINEAR to another scale", bilinear(scale=0.2)


def copies(dtype: str) -> Named:
    shape = (1, 4, 4, 6)
    x = Value(shape, dtype) if dtype in ("int32", "float32") else q8(shape, dtype)
    quantization = x.quantization

    def like(*shape: int) -> Value:
        return Value(shape, dtype, quantization)

    for count in (1, 2, 5, 6):
        yield f"CONCATENATION of {count}", layer(
            "CONCATENATION", [like(2, 3)] * count, like(2 * count, 3), version=2, axis=0,
            fused_activation_function="NONE",
        )  # fmt: skip
    paddings = np.array([[0, 0], [1, 2], [0, 1], [0, 0]])
    yield "PAD", layer("PAD", [x, Constant(paddings.astype(np.int32))], like(1, 7, 5, 6), version=2)
    yield "PAD int64", layer("PAD", [x, Constant(paddings)], like(1, 7, 5, 6), version=2)
    yield "RESHAPE", layer("RESHAPE", [x, ints(4, -1)], like(4, 24))
    yield "RESHAPE by attribute", layer("RESHAPE", [x], like(4, 24), new_shape=(4, 24))
    yield "TRANSPOSE", layer("TRANSPOSE", [x, ints(0, 3, 1, 2)], like(1, 6, 4, 4), version=2)
    yield "SLICE", layer("SLICE", [x, ints(0, 1, 0, 0), ints(1, 2, 4, 6)], like(1, 2, 4, 6), version=2)
    yield (
        "SLICE to the end",
        layer("SLICE", [x, ints(0, 1, 0, 0), ints(1, -1, 4, 6)], like(1, 3, 4, 6), version=2),
    )
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")

    def strided(name: str, end: int, step: int, *shape: int, **given: int) -> tuple[str, Graph]:
        attributes: dict[str, AttributeValue] = {**dict.fromkeys(masks, 0), **given, "offset": False}
        bounds = [ints(0, 1, 0, 0), ints(1, end, 4, 6), ints(1, step, 1, 1)]
        return f"STRIDED_SLICE {name}", layer(
            "STRIDED_SLICE", [x, *bounds], like(*shape), version=2, **attributes
        )

    yield strided("plain", 3, 1, 1, 2, 4, 6)
    yield strided("from the end", -1, 1, 1, 2, 4, 6)
    yield strided("beyond the end", 9, 1, 1, 3, 4, 6)
    yield strided("every second", 4, 2, 1, 2, 4, 6)
    yield strided("masked", 3, 1, 1, 2, 4, 6, begin_mask=9, end_mask=12)
    yield strided("shrunk", 2, 1, 1, 4, 6, shrink_axis_mask=2)
    for count in (2, 3, 6):
        yield f"SPLIT in {count}", layer(
            "SPLIT", [Constant(np.array(3, np.int32)), x], *[like(1, 4, 4, 6 // count)] * count, version=2,
            num_splits=count,
        )  # fmt: skip
    yield "SPACE_TO_DEPTH", layer("SPACE_TO_DEPTH", [x], like(1, 2, 2, 24), block_size=2)
    yield "EXPAND_DIMS", layer("EXPAND_DIMS", [x, ints(1)], like(1, 1, 4, 4, 6))
    yield "SQUEEZE", layer("SQUEEZE", [x], like(4, 4, 6), squeeze_dims=(0,))
    yield "PACK", layer("PACK", [like(2, 3)] * 2, like(2, 2, 3), version=2, axis=0, values_count=2)
    yield "UNPACK", layer("UNPACK", [like(2, 3)], like(3), like(3), version=2, axis=0, num=2)
    yield "GATHER", layer("GATHER", [x, ints(0, 2)], like(1, 2, 4, 6), version=2, axis=1, batch_dims=0)
    yield "TILE", layer("TILE", [x, ints(1, 2, 1, 1)], like(1, 8, 4, 6))
    if dtype in DTYPES:
        other = q8((4, 24), dtype, 0.2)
        yield "RESHAPE to another scale", layer("RESHAPE", [x, ints(4, 24)], other)
        yield (
            "RESHAPE without quantization",
            layer("RESHAPE", [Value(shape, dtype), ints(4, 24)], Value((4, 24), dtype)),
        )
        yield (
            "DEPTH_TO_SPACE",
            layer("DEPTH_TO_SPACE", [q8((1, 2, 2, 4), dtype)], q8((1, 4, 4, 1), dtype), block_size=2),
        )
        yield (
            "PAD to another scale",
            layer("PAD", [x, Constant(paddings.astype(np.int32))], q8((1, 7, 5, 6), dtype, 0.2), version=2),
        )
    if dtype == "uint8":
        for name, scale, zero_point in (("scale", 0.2, 130), ("zero point", 0.1, 9)):
            second = q8(shape, dtype, scale, zero_point)
            yield f"CONCATENATION of another {name}", layer(
                "CONCATENATION", [x, second], like(1, 8, 4, 6), version=2, axis=1,
                fused_activation_function="NONE",
            )  # fmt: skip


FAMILIES: dict[str, Callable[[str], Named]] = {
    "conv": convolutions,
    "tconv": transposed_convolutions,
    "fc": fully_connecteds,
    "binary": binaries,
    "unary": unaries,
    "pool": poolings,
    "reduce": reductions,
    "resize": resizes,
    "copy": copies,
}


def all_cases() -> dict[str, Graph]:
    """Every case by name."""
    cases = {}
    for family, make in FAMILIES.items():
        for dtype in (*DTYPES, "int32", "float32") if family == "copy" else DTYPES:
            for name, graph in make(dtype):
                cases[f"{family} {dtype}: {name}"] = graph
    cases |= {f"hybrid product: {name}": graph for name, graph in products()}
    return cases | {f"hybrid tconv: {name}": graph for name, graph in transposed()}
