"""Small graphs whose arithmetic is equal in every runtime, with their expected values."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, Quantization

SAME = Quantization.per_tensor(0.5, 3)
SHAPE = (1, 4, 6, 2)


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def chain() -> Graph:
    """Max-pool, pad, 1×1 convolution with a multiplier of exactly 1: no runtime has anything to round."""
    b = GraphBuilder("chain")
    x = b.input("image", SHAPE, "int8", SAME)
    pooled = b.tensor("pooled", (1, 2, 3, 2), "int8", SAME)
    b.layer(
        "MAX_POOL_2D", [x], [pooled], version=2, padding="VALID", stride_w=2, stride_h=2,
        filter_width=2, filter_height=2, fused_activation_function="NONE",
    )  # fmt: skip
    padded = b.tensor("padded", (1, 4, 5, 2), "int8", SAME)
    paddings = b.constant("paddings", np.array([[0, 0], [1, 1], [2, 0], [0, 0]], np.int32))
    b.layer("PAD", [pooled, paddings], [padded], version=2)
    filter_ = b.constant("filter", FILTER, Quantization.per_tensor(1.0))
    bias = b.constant("bias", np.array([5, -7, 0], np.int32), Quantization.per_tensor(0.5))
    output = b.tensor("output", (1, 4, 5, 3), "int8", SAME)
    b.layer(
        "CONV_2D", [padded, filter_, bias], [output], version=3, padding="SAME", stride_w=1, stride_h=1,
        dilation_w_factor=1, dilation_h_factor=1, fused_activation_function="NONE",
    )  # fmt: skip
    return b.build([output])


FILTER = np.array([[1, 0], [0, -1], [2, 1]], np.int8).reshape(3, 1, 1, 2)


def chain_values(x: Array) -> dict[str, Array]:
    """Every tensor of :func:`chain` by name, in plain integers."""
    pooled = x.reshape(1, 2, 2, 3, 2, 2).max(axis=(2, 4))
    padded = np.pad(pooled, ((0, 0), (1, 1), (2, 0), (0, 0)), constant_values=3)
    acc = (padded.astype(np.int64) - 3) @ FILTER.reshape(3, 2).T.astype(np.int64) + [5, -7, 0]
    output = np.clip(acc + 3, -128, 127).astype(np.int8)
    return {"image": x, "pooled": pooled, "padded": padded, "output": output}


def reshape_from_shape() -> Graph:
    """SHAPE, STRIDED_SLICE and PACK decide a RESHAPE: its output's size is known only when it runs."""
    b = GraphBuilder("dynamic")
    x = b.input("image", SHAPE, "int8", SAME)
    shape = b.layer("SHAPE", [x], [b.tensor("shape", (4,), "int32")], out_type="int32")
    begin, end, step = (b.constant(n, np.array([v], np.int32)) for n, v in (("b", 1), ("e", 2), ("s", 1)))
    height = b.layer(
        "STRIDED_SLICE", [shape, begin, end, step], [b.tensor("height", (), "int32")],
        begin_mask=0, end_mask=0, ellipsis_mask=0, new_axis_mask=0, shrink_axis_mask=1, offset=False,
    )  # fmt: skip
    rest = b.constant("rest", np.array(12, np.int32))
    new_shape = b.layer("PACK", [height, rest], [b.tensor("new", (2,), "int32")], axis=0, values_count=2)
    flat = b.layer("RESHAPE", [x, new_shape], [b.tensor("flat", (4, 12), "int8", SAME)])
    taller = b.constant("paddings", np.array([[1, 0], [0, 0]], np.int32))
    output = b.layer("PAD", [flat, taller], [b.tensor("output", (5, 12), "int8", SAME)], version=2)
    return b.build([output])


def two_inputs() -> Graph:
    """Concatenation of an int8 image with another; named inputs in an order of their own."""
    b = GraphBuilder("two")
    left = b.input("left", (1, 2), "int8", SAME)
    right = b.input("right", (1, 3), "int8", SAME)
    output = b.tensor("output", (1, 5), "int8", SAME)
    b.layer("CONCATENATION", [left, right], [output], version=2, axis=1, fused_activation_function="NONE")
    return b.build([output])


def float_input() -> Graph:
    """A QUANTIZE of values that lie nowhere near a tie."""
    b = GraphBuilder("float")
    x = b.input("real", (1, 8), "float32")
    output = b.tensor("output", (1, 8), "int8", SAME)
    b.layer("QUANTIZE", [x], [output])
    return b.build([output])


def large() -> Graph:
    """2 MiB in and out: twice what a large array has at least (``karat24.delegates.child``)."""
    b = GraphBuilder("large")
    x = b.input("image", (1, 256, 256, 32), "int8", SAME)
    shape = b.constant("shape", np.array([256, 256 * 32], np.int32))
    output = b.tensor("output", (256, 256 * 32), "int8", SAME)
    b.layer("RESHAPE", [x, shape], [output])
    return b.build([output])


def residual() -> Graph:
    """MAX_POOL_2D, then ADD of its result and the image: tflite-runtime 2.14 adds in place."""
    b = GraphBuilder("residual")
    x = b.input("image", SHAPE, "int8", SAME)
    branches = []
    for name in ("left", "right"):
        branch = b.tensor(name, SHAPE, "int8", SAME)
        b.layer(
            "MAX_POOL_2D", [x], [branch], version=2, padding="SAME", stride_w=1, stride_h=1,
            filter_width=2 if name == "left" else 1, filter_height=2, fused_activation_function="NONE",
        )  # fmt: skip
        branches.append(branch)
    output = b.tensor("output", SHAPE, "int8", Quantization.per_tensor(1.0, 3))
    b.layer("ADD", branches, [output], version=2, fused_activation_function="NONE")
    last = b.tensor("last", (1, 48), "int8", Quantization.per_tensor(1.0, 3))
    b.layer("RESHAPE", [output, b.constant("shape", np.array([1, 48], np.int32))], [last])
    return b.build([last])


def without_bias_input() -> Graph:
    """DEPTHWISE_CONV_2D with two inputs: optimised kernels read a third and die."""
    b = GraphBuilder("hostile")
    x = b.input("image", (1, 8, 8, 4), "int8", SAME)
    filter_ = b.constant("filter", np.ones((1, 3, 3, 4), np.int8), Quantization.per_tensor(0.1))
    output = b.tensor("output", (1, 8, 8, 4), "int8", SAME)
    b.layer(
        "DEPTHWISE_CONV_2D", [x, filter_], [output], version=3, padding="SAME", stride_w=1, stride_h=1,
        dilation_w_factor=1, dilation_h_factor=1, depth_multiplier=1, fused_activation_function="NONE",
    )  # fmt: skip
    return b.build([output])


def slice_from_far_outside() -> Graph:
    """SLICE beginning 2^30 rows below the image: tflite-runtime 2.14 reads from there."""
    b = GraphBuilder("outside")
    x = b.input("image", (1, 4, 3), "int8", SAME)
    begin, size = (b.constant(n, np.array(v, np.int32)) for n, v in (("b", [0, 2**30, 0]), ("s", [1, 2, 3])))
    output = b.tensor("output", (1, 2, 3), "int8", SAME)
    b.layer("SLICE", [x, begin, size], [output], version=2)
    return b.build([output])
