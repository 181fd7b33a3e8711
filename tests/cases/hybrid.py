"""Cases of float32 data with int8 filters: CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED.

The last bit of a float32 output shows a step one bit off, another order of factors, or a value that the
quantization of its row rounded otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, AttributeValue, Quantization
from tests.cases.case import Case
from tests.cases.quantized import f32, seeded

OPTIMISED = ("litert-builtin", "litert-xnnpack", "tflite-2.14-builtin")
UNLISTED = dict.fromkeys(("tflite-2.14-ref", "tflite-2.14-builtin"), "it does not list the version")
BIAS_ALONE = dict.fromkeys(UNLISTED, "it takes 0 for the only scale")
EVERY_LANE = ("litert-ref", *OPTIMISED, "tflite-2.14-ref")
ONE_STEP: dict[str, Any] = {
    "padding": "SAME", "stride_w": 1, "stride_h": 1, "dilation_w_factor": 1, "dilation_h_factor": 1,
    "fused_activation_function": "NONE",
}  # fmt: skip
"""Attributes of a convolution whose filter takes every pixel."""


def cases() -> list[Case]:
    """All of them, names unique."""
    kinds = (_matrices, _convolutions, _depthwise, _rows, _just_below_a_half, _deep, _lowest, _scales)
    return [case for kind in kinds for case in kind()]


def hybrid_layer(
    name: str,
    edge: str,
    op: str,
    data: Array,
    filter_: Array,
    shape: tuple[int, ...],
    per_channel: bool,
    bias: bool = True,
    broken_in: dict[str, str] | None = None,
    equal: bool = False,
    **attributes: AttributeValue,
) -> Case:
    """One layer with random scales, and a random bias unless told otherwise."""
    rng = seeded(name + " parameters")
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    channels = filter_.shape[axis]
    scales = tuple(f32(scale) for scale in rng.uniform(0.003, 0.03, channels))
    if equal:
        scales = scales[:1] * channels
    quantization = (
        Quantization(scales, (0,) * channels, axis) if per_channel else Quantization.per_tensor(scales[0])
    )
    builder = GraphBuilder()
    inputs = [builder.input("x", data.shape, "float32"), builder.constant("w", filter_, quantization)]
    if bias:
        inputs.append(builder.constant("b", rng.normal(0, 2, channels).astype(np.float32)))
    output = builder.tensor("y", shape, "float32")
    builder.layer(op, inputs, [output], **attributes)
    return Case(name, with_lowest_versions(builder.build([output])), (data,), edge, broken_in or {})


def _data(name: str, shape: tuple[int, ...]) -> Array:
    """Rows of different ranges, the first above 0 alone, the second below."""
    data = seeded(name).normal(0.3, 2, shape) * np.arange(1, shape[0] + 1).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    data[0] = np.abs(data[0])
    if len(data) > 1:
        data[1] = -np.abs(data[1])
    return np.asarray(data, np.float32)


def _filter(name: str, shape: tuple[int, ...]) -> Array:
    return seeded(name + " filter").integers(-127, 128, shape).astype(np.int8)


def _matrices() -> Iterator[Case]:
    sizes = ((5, 7), (16, 64), (4, 33))
    for (outputs, depth), per_channel, bias, asymmetric in itertools.product(sizes, *[(True, False)] * 3):
        name = f"hybrid_matrix_{outputs}x{depth}_{per_channel}_{bias}_{asymmetric}"
        yield hybrid_layer(
            name,
            "rows",
            "FULLY_CONNECTED",
            _data(name, (4, depth)),
            _filter(name, (outputs, depth)),
            (4, outputs),
            per_channel,
            bias,
            UNLISTED if per_channel else {},
            fused_activation_function="RELU6" if depth == 7 else "NONE",
            asymmetric_quantize_inputs=asymmetric,
        )
    yield hybrid_layer(
        "hybrid_matrix_rank3",
        "rows of three dimensions",
        "FULLY_CONNECTED",
        _data("rank3", (2, 3, 8)),
        _filter("rank3", (6, 8)),
        (2, 3, 6),
        True,
        broken_in=UNLISTED,
        keep_num_dims=True,
        fused_activation_function="NONE",
    )


GEOMETRY = {
    "3x3": (3, 1, 1, "SAME"), "1x1": (1, 1, 1, "SAME"), "1x1_strided": (1, 2, 1, "VALID"),
    "3x3_strided": (3, 2, 1, "SAME"), "dilated": (3, 1, 2, "VALID"), "dilated_same": (3, 1, 2, "SAME"),
}  # fmt: skip


def _sizes(taps: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    reach = 0 if padding == "SAME" else (taps - 1) * dilation
    return -(-(6 - reach) // stride), -(-(7 - reach) // stride)


def _convolutions() -> Iterator[Case]:
    for (label, (taps, stride, dilation, padding)), per_channel in itertools.product(
        GEOMETRY.items(), (True, False)
    ):
        for groups, bias in ((1, True), (2, True), (1, False)):
            if (groups == 2 and not per_channel) or (not bias and label != "3x3"):
                continue
            name = f"hybrid_conv_{label}_{per_channel}_{groups}_{bias}"
            broken = {} if bias else dict.fromkeys(EVERY_LANE, "it takes no convolution without a bias")
            yield hybrid_layer(
                name,
                "images",
                "CONV_2D",
                _data(name, (3, 6, 7, 6)),
                _filter(name, (8, taps, taps, 6 // groups)),
                (3, *_sizes(taps, stride, dilation, padding), 8),
                per_channel,
                bias,
                broken,
                padding=padding,
                stride_w=stride,
                stride_h=stride,
                dilation_w_factor=dilation,
                dilation_h_factor=dilation,
                fused_activation_function="RELU" if groups == 2 else "NONE",
            )


def _depthwise() -> Iterator[Case]:
    for (label, (taps, stride, dilation, padding)), multiplier, bias in itertools.product(
        GEOMETRY.items(), (1, 2), (True, False)
    ):
        if not bias and label != "3x3":
            continue
        name = f"hybrid_depthwise_{label}_{multiplier}_{bias}"
        broken = {} if bias else dict.fromkeys(OPTIMISED, "it dies of a filter without a bias")
        yield hybrid_layer(
            name,
            "images",
            "DEPTHWISE_CONV_2D",
            _data(name, (3, 6, 7, 9)),
            _filter(name, (1, taps, taps, 9 * multiplier)),
            (3, *_sizes(taps, stride, dilation, padding), 9 * multiplier),
            True,
            bias,
            broken,
            padding=padding,
            stride_w=stride,
            stride_h=stride,
            dilation_w_factor=dilation,
            dilation_h_factor=dilation,
            depth_multiplier=multiplier,
            fused_activation_function="NONE",
        )


def _rows() -> Iterator[Case]:
    """A row of zeros; rows whose values lie on ties of their own steps."""
    halves = np.concatenate([np.arange(-127, 128, dtype=np.float32) / 2, np.float32([127, -127, 0.25])])
    shifted = np.concatenate(
        [np.arange(-128, 128, dtype=np.float32) + np.float32(0.5), np.float32([-127.5, 127.5])]
    )
    rows = [np.zeros_like(halves), halves, np.abs(halves) + 128, halves * np.float32(1 / 3), shifted]
    data = np.stack([*rows, shifted * np.float32(1 / 3)])
    for asymmetric, per_channel in itertools.product((True, False), repeat=2):
        yield hybrid_layer(
            f"hybrid_rows_{asymmetric}_{per_channel}",
            "zeros, ties, no zero within",
            "FULLY_CONNECTED",
            data,
            _filter("rows", (8, halves.size)),
            (6, 8),
            per_channel,
            broken_in=UNLISTED if per_channel else {},
            fused_activation_function="NONE",
            asymmetric_quantize_inputs=asymmetric,
        )


BELOW_A_HALF = np.nextafter(np.float32(0.5), np.float32(0))
"""Adding 0.5 in float32 makes 1 of it."""


def _just_below_a_half() -> Iterator[Case]:
    """In steps of 1, within a block of eight values and behind it; zero points 0, beside it and on a tie; two
    ranges whose float32 difference is not exact."""
    ends = (
        (127, -127), (127, -128), (126, -129), (200, -55), (254.5, -0.5), (253.5, -1.5), (16777216, -0.75),
        (3.3333333, -7.7777777),
    )  # fmt: skip
    data = np.zeros((len(ends), 11), np.float32)
    for row, (high, low) in zip(data, ends, strict=True):
        row[:2] = high, low
        row[2:6] = BELOW_A_HALF, -BELOW_A_HALF, 0.5, -0.5
        row[8:] = BELOW_A_HALF, -BELOW_A_HALF, 1.5
    for asymmetric in (True, False):
        name = f"hybrid_below_a_half_{asymmetric}"
        yield hybrid_layer(
            name,
            "the largest value below a tie",
            "FULLY_CONNECTED",
            data,
            np.eye(11, dtype=np.int8)[[2, 3, 4, 5, 8, 9, 10, 0, 1]] * np.int8(100),
            (len(ends), 9),
            False,
            bias=False,
            fused_activation_function="NONE",
            asymmetric_quantize_inputs=asymmetric,
        )
    yield hybrid_layer(
        "hybrid_below_a_half_pixels",
        "the largest value below a tie",
        "CONV_2D",
        data.reshape(2, 1, len(ends) // 2, 11),
        np.eye(11, dtype=np.int8)[:, None, None, :] * np.int8(100),
        (2, 1, len(ends) // 2, 11),
        True,
        **ONE_STEP,
    )
    for op, filter_ in (
        ("CONV_2D", np.array([[[[100]]], [[[-100]]]], np.int8)),
        ("DEPTHWISE_CONV_2D", np.array([[[[100, -100]]]], np.int8)),
    ):
        yield hybrid_layer(
            f"hybrid_below_a_half_{op}",
            "the largest value below a tie",
            op,
            data.reshape(len(ends), 1, 11, 1),
            filter_,
            (len(ends), 1, 11, 2),
            True,
            **ONE_STEP,
            **({} if op == "CONV_2D" else {"depth_multiplier": 2}),
        )


def _deep() -> Iterator[Case]:
    """Sums beyond 2^24, which float32 rounds, some of them ties."""
    depth = 2051
    filter_ = np.full((5, depth), 127, np.int8)
    filter_[1:] -= seeded("deep").integers(0, 3, (4, depth)).astype(np.int8)
    data = np.full((3, depth), 127, np.float32)
    data[1] -= seeded("deep data").integers(0, 2, depth)
    data[2, :3] = -1, -128, 126.5
    for asymmetric in (True, False):
        yield hybrid_layer(
            f"hybrid_deep_{asymmetric}",
            "sums beyond 2^24",
            "FULLY_CONNECTED",
            data,
            filter_,
            (3, 5),
            False,
            fused_activation_function="NONE",
            asymmetric_quantize_inputs=asymmetric,
        )


def _lowest() -> Iterator[Case]:
    """Runs of -128 in data and filter, whose pairs of products no int16 holds."""
    data = np.full((4, 48), -128, np.float32)
    data[:, -1] = 127
    data[2] = -data[2] - 1
    data[3, 5:] = 3
    filter_ = np.full((6, 48), -128, np.int8)
    filter_[1, ::2], filter_[2, ::3], filter_[3], filter_[4] = 127, -127, 127, -127
    for asymmetric in (True, False):
        yield hybrid_layer(
            f"hybrid_lowest_{asymmetric}",
            "-128 times -128",
            "FULLY_CONNECTED",
            data,
            filter_,
            (4, 6),
            False,
            fused_activation_function="NONE",
            asymmetric_quantize_inputs=asymmetric,
        )
    yield hybrid_layer(
        "hybrid_lowest_three_rows",
        "-128 times -128",
        "FULLY_CONNECTED",
        data[1:],
        filter_,
        (3, 6),
        False,
        fused_activation_function="NONE",
        asymmetric_quantize_inputs=True,
    )
    behind = np.full((2, 47), 127, np.int8)
    behind[:, 32:] = -128
    yield hybrid_layer(
        "hybrid_lowest_behind",
        "-128 behind the last 16 weights",
        "FULLY_CONNECTED",
        data[:, :47],
        behind,
        (4, 2),
        False,
        fused_activation_function="NONE",
    )
    for op, shape, per_channel in (
        ("CONV_2D", (6, 3, 3, 4), True), ("CONV_2D", (6, 3, 3, 4), False),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 4), True),
    ):  # fmt: skip
        channels = shape[0] if op == "CONV_2D" else 4
        yield hybrid_layer(
            f"hybrid_lowest_{op}_{per_channel}",
            "-128 times -128",
            op,
            data.reshape(4, 3, 4, 4),
            np.full(shape, -128, np.int8),
            (4, 3, 4, channels),
            per_channel,
            **ONE_STEP,
            **({} if op == "CONV_2D" else {"depth_multiplier": 1}),
        )


def _scales() -> Iterator[Case]:
    """A convolution whose scales are all the same; a depthwise one of a single channel."""
    name = "hybrid_conv_equal_scales"
    yield hybrid_layer(
        name,
        "one scale, stored for each channel",
        "CONV_2D",
        _data(name, (2, 3, 4, 5)),
        _filter(name, (6, 1, 1, 5)),
        (2, 3, 4, 6),
        True,
        equal=True,
        broken_in=BIAS_ALONE,
        **ONE_STEP,
    )
    name = "hybrid_depthwise_one_channel"
    yield hybrid_layer(
        name,
        "one channel",
        "DEPTHWISE_CONV_2D",
        _data(name, (2, 3, 4, 1)),
        _filter(name, (1, 3, 3, 1)),
        (2, 3, 4, 1),
        True,
        depth_multiplier=1,
        **ONE_STEP,
    )
