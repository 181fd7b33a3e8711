"""Cases of float32 data with int8 filters: TRANSPOSE_CONV and BATCH_MATMUL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Quantization
from tests.cases.case import Case
from tests.cases.hybrid import BELOW_A_HALF, hybrid_layer
from tests.cases.quantized import f32, seeded


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_transposed(), *_products(), *_batches(), *_eights()]


def _ranges(name: str, shape: tuple[int, ...], axis: int) -> Array:
    """Data whose entries along ``axis`` have different ranges: above 0, below it, in steps of 1 with values
    next to ties, on both sides of 0."""
    data = np.moveaxis(seeded(name).normal(0.3, 2, shape), axis, 0)
    rest = data.reshape(len(data), -1)
    rest[0] = np.abs(rest[0])
    rest[1 % len(rest)] = -np.abs(rest[1 % len(rest)])
    if len(rest) > 2 and rest.shape[1] > 4:
        steps = np.resize([127, -128, BELOW_A_HALF, -BELOW_A_HALF, 0.5, -0.5, 63.5], rest.shape[1])
        rest[2] = steps
    return np.ascontiguousarray(np.moveaxis(data, 0, axis), np.float32)


def _quantization(name: str, channels: int, axis: int, per_channel: bool) -> Quantization:
    scales = tuple(f32(scale) for scale in seeded(name + " scales").uniform(0.003, 0.03, channels))
    return Quantization(scales, (0,) * channels, axis) if per_channel else Quantization.per_tensor(scales[0])


def _integers(name: str, shape: tuple[int, ...]) -> Array:
    return seeded(name + " filter").integers(-127, 128, shape).astype(np.int8)


NOT_IN_OLD = dict.fromkeys(
    ("tflite-2.14-ref", "tflite-2.14-builtin"), "its TRANSPOSE_CONV takes operands of one type"
)

WINDOWS = {
    "3x3": (3, 1, "SAME", (5, 4)), "3x3_strided": (3, 2, "SAME", (10, 8)), "1x1": (1, 1, "VALID", (5, 4)),
    "2x2_valid": (2, 2, "VALID", (10, 8)), "3x3_valid": (3, 2, "VALID", (11, 9)),
}  # fmt: skip


def _transposed() -> Iterator[Case]:
    for (label, (taps, stride, padding, size)), per_channel, bias in itertools.product(
        WINDOWS.items(), (True, False), (True, False)
    ):
        name = f"hybrid_transposed_{label}_{per_channel}_{bias}"
        channels = 9 if stride == 1 else 5
        shape = (3, *size, channels)
        builder = GraphBuilder()
        inputs = [
            builder.constant("shape", np.array(shape, np.int32)),
            builder.constant(
                "w", _integers(name, (channels, taps, taps, 6)), _quantization(name, channels, 0, per_channel)
            ),
            builder.input("x", (3, 5, 4, 6), "float32"),
        ]
        if bias:
            inputs.append(builder.constant("b", seeded(name).normal(0, 2, channels).astype(np.float32)))
        output = builder.tensor("y", shape, "float32")
        builder.layer(
            "TRANSPOSE_CONV",
            inputs,
            [output],
            padding=padding,
            stride_w=stride,
            stride_h=stride,
            fused_activation_function="RELU" if label == "1x1" and bias else "NONE",
        )
        graph = with_lowest_versions(builder.build([output]))
        yield Case(name, graph, (_ranges(name, (3, 5, 4, 6), 0),), "images", NOT_IN_OLD)


SHAPES = {
    "matrices": ((4, 21), (21, 6)), "batch": ((2, 3, 9), (2, 9, 5)), "broadcast_data": ((1, 3, 9), (4, 9, 5)),
    "broadcast_filter": ((3, 4, 9), (9, 5)), "rank4": ((1, 3, 4, 9), (9, 5)), "one_row": ((1, 16), (16, 8)),
    "rank5": ((1, 1, 3, 4, 9), (1, 1, 3, 9, 5)),
}  # fmt: skip


def _product(
    name: str,
    data: Array,
    filter_: Array,
    edge: str,
    per_channel: bool,
    adjoint: tuple[bool, bool],
    asymmetric: bool,
) -> Case:
    """``data`` and ``filter_`` as they are multiplied; stored transposed where ``adjoint`` says so."""
    adj_x, adj_y = adjoint
    columns = filter_.shape[-1]
    batch = np.broadcast_shapes(data.shape[:-2], filter_.shape[:-2])
    axis = filter_.ndim - (2 if adj_y else 1)
    stored = [
        np.ascontiguousarray(np.swapaxes(array, -1, -2)) if adj else array
        for array, adj in ((data, adj_x), (filter_, adj_y))
    ]
    builder = GraphBuilder()
    inputs = [
        builder.input("x", stored[0].shape, "float32"),
        builder.constant("w", stored[1], _quantization(name, columns, axis, per_channel)),
    ]
    output = builder.tensor("y", (*batch, data.shape[-2], columns), "float32")
    builder.layer(
        "BATCH_MATMUL", inputs, [output], adj_x=adj_x, adj_y=adj_y, asymmetric_quantize_inputs=asymmetric
    )
    broken = {}
    if asymmetric:
        broken["tflite-2.14-ref"] = "it does not list the version"
    if per_channel:
        broken |= dict.fromkeys(("tflite-2.14-ref", "tflite-2.14-builtin"), "it takes 0 for the only scale")
    return Case(name, with_lowest_versions(builder.build([output])), (stored[0],), edge, broken)


def _products() -> Iterator[Case]:
    for (label, (left, right)), per_channel, asymmetric in itertools.product(
        SHAPES.items(), (True, False), (True, False)
    ):
        name = f"hybrid_product_{label}_{per_channel}_{asymmetric}"
        yield _product(
            name,
            _ranges(name, left, -2),
            _integers(name, right),
            "rows",
            per_channel,
            (label == "batch", label in ("batch", "broadcast_data")),
            asymmetric,
        )
    depth = 2051
    data = np.full((2, depth), 127, np.float32)
    data[0, :3] = -1, -128, 126.5
    filter_ = np.full((depth, 40), 127, np.int8)
    filter_[:, 1:] -= seeded("deep product").integers(0, 3, (depth, 39)).astype(np.int8)
    for asymmetric in (True, False):
        yield _product(
            f"hybrid_product_deep_{asymmetric}",
            data,
            filter_,
            "sums beyond 2^24",
            False,
            (False, False),
            asymmetric,
        )


BATCHES = (
    (4, 6, 48), (4, 5, 48), (4, 6, 40), (4, 2, 48), (3, 130, 128), (3, 126, 128), (1, 130, 128), (8, 8, 16),
    (16, 16, 16), (16, 18, 16), (16, 68, 16), (32, 68, 16), (16, 16, 64), (3, 6, 48),
)  # fmt: skip
"""Rows, channels and depth on both sides of what has kernels of its own on Arm."""


def _batches() -> Iterator[Case]:
    for (rows, channels, depth), asymmetric in itertools.product(BATCHES, (True, False)):
        name = f"hybrid_batch_{rows}_{channels}x{depth}_{asymmetric}"
        yield hybrid_layer(
            name,
            "numbers of rows",
            "FULLY_CONNECTED",
            _ranges(name, (rows, depth), 0),
            _integers(name, (channels, depth)),
            (rows, channels),
            per_channel=False,
            fused_activation_function="NONE",
            asymmetric_quantize_inputs=asymmetric,
        )


def _eights() -> Iterator[Case]:
    """3x3 taps over channels in eights, one filter of -128."""
    sizes = {(1, "SAME"): (5, 6), (1, "VALID"): (3, 4), (2, "VALID"): (2, 2), (2, "SAME"): (3, 3)}
    for (stride, padding), size in sizes.items():
        name = f"hybrid_eights_{stride}_{padding}"
        filter_ = _integers(name, (1, 3, 3, 8))
        filter_[..., 3] = -128
        yield hybrid_layer(
            name,
            "channels in eights",
            "DEPTHWISE_CONV_2D",
            _ranges(name, (3, 5, 6, 8), 0),
            filter_,
            (3, *size, 8),
            per_channel=True,
            padding=padding,
            stride_w=stride,
            stride_h=stride,
            dilation_w_factor=1,
            dilation_h_factor=1,
            depth_multiplier=1,
            fused_activation_function="NONE",
        )
