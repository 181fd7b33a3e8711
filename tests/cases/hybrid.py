"""Cases of float32 data with int8 filters: CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED.

The last bit of a float32 output shows a step one bit off, another order of factors, or a value that the
quantization of its row rounded otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, AttributeValue, Quantization
from tests.cases.case import Case
from tests.cases.quantized import f32, seeded

OPTIMISED = ("litert-builtin", "litert-xnnpack", "tflite-2.14-builtin")
OLD = dict.fromkeys(
    ("tflite-2.14-ref", "tflite-2.14-builtin"), "it lacks the version, or rounds in a way no rule describes"
)
EVERY_LANE = ("litert-ref", *OPTIMISED, "tflite-2.14-ref")


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_matrices(), *_convolutions(), *_depthwise(), *_rows()]


def _layer(
    name: str,
    edge: str,
    op: str,
    data: Array,
    filter_: Array,
    shape: tuple[int, ...],
    per_channel: bool,
    bias: bool = True,
    broken_in: dict[str, str] | None = None,
    **attributes: AttributeValue,
) -> Case:
    rng = seeded(name + " parameters")
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    channels = filter_.shape[axis]
    scales = tuple(f32(scale) for scale in rng.uniform(0.003, 0.03, channels))
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
        yield _layer(
            name,
            "rows",
            "FULLY_CONNECTED",
            _data(name, (4, depth)),
            _filter(name, (outputs, depth)),
            (4, outputs),
            per_channel,
            bias,
            OLD if per_channel or asymmetric else {},
            fused_activation_function="RELU6" if depth == 7 else "NONE",
            asymmetric_quantize_inputs=asymmetric,
        )
    yield _layer(
        "hybrid_matrix_rank3",
        "rows of three dimensions",
        "FULLY_CONNECTED",
        _data("rank3", (2, 3, 8)),
        _filter("rank3", (6, 8)),
        (2, 3, 6),
        True,
        broken_in=OLD,
        keep_num_dims=True,
        fused_activation_function="NONE",
    )


GEOMETRY = {
    "3x3": (3, 1, 1, "SAME"), "1x1": (1, 1, 1, "SAME"), "1x1_strided": (1, 2, 1, "VALID"),
    "3x3_strided": (3, 2, 1, "SAME"), "dilated": (3, 1, 2, "VALID"),
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
            broken = (
                (OLD if per_channel else {})
                if bias
                else dict.fromkeys(EVERY_LANE, "it takes no convolution without a bias")
            )
            yield _layer(
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
        broken = {**OLD, **({} if bias else dict.fromkeys(OPTIMISED, "it dies of a filter without a bias"))}
        yield _layer(
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
        yield _layer(
            f"hybrid_rows_{asymmetric}_{per_channel}",
            "zeros, ties, no zero within",
            "FULLY_CONNECTED",
            data,
            _filter("rows", (8, halves.size)),
            (6, 8),
            per_channel,
            broken_in=OLD if asymmetric or per_channel else {},
            fused_activation_function="NONE",
            asymmetric_quantize_inputs=asymmetric,
        )
