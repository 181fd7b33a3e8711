"""Compiling in advance: one layer of every kind a convolutional network is made of.

Kernels are compiled by Numba when they first run and kept between processes
(``karat24.refimpl.kernels.jit.compile_cache``). Running each of these layers once, small enough for one
thread and large enough for several, leaves nothing to compile for later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import AttributeValue, Graph, Quantization

PROFILES = ("litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack")
"""Between them they use every rounding method of the .tflite profiles."""

SIZES = (8, 128)
"""Heights and widths of the layers: one that stays on one thread, one that is shared out."""

Attributes: TypeAlias = Mapping[str, AttributeValue]
Progress: TypeAlias = Callable[[list[tuple[str, Graph]]], Iterable[tuple[str, Graph]]]

_CHANNELS, _MANY_CHANNELS = 8, 64
_NO_ACTIVATION: Attributes = {"fused_activation_function": "NONE"}
_WINDOW: Attributes = {"padding": "SAME", "stride_w": 1, "stride_h": 1, **_NO_ACTIVATION}
_POOL: Attributes = {**_WINDOW, "filter_width": 2, "filter_height": 2, "stride_w": 2, "stride_h": 2}
_RESIZE: Attributes = {"align_corners": False, "half_pixel_centers": True}
_BETWEEN = Quantization.per_tensor(2.0**-6, 3)
_UNIT = Quantization.per_tensor(1 / 256, -128)
_UNIT_UNSIGNED = Quantization.per_tensor(1 / 256, 0)
_SYMMETRIC = Quantization.per_tensor(1 / 128, 0)
_SYMMETRIC_UNSIGNED = Quantization.per_tensor(1 / 128, 128)


def warm_up(threads: int | None = None, progress: Progress = iter) -> int:
    """Runs every layer of :func:`layers` under every profile; the number of runs.

    ``progress`` wraps the iteration, to show a bar.
    """
    runs = 0
    for _, graph in progress(list(layers())):
        feeds = [np.zeros(graph.tensors[i].shape, graph.tensors[i].dtype) for i in graph.inputs]
        for profile in PROFILES:
            compile_graph(graph, profile, threads, share_small=True).run(feeds, accumulators=True)
            runs += 1
    return runs


def layers() -> Iterator[tuple[str, Graph]]:
    """Graphs of one layer each, with a name: int8 and uint8, small and large."""
    for size in SIZES:
        for dtype in ("int8", "uint8"):
            for name, graph in _layers_of(dtype, (1, size, size, _CHANNELS)):
                yield f"{name} {dtype} {size}", graph


def _layers_of(dtype: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Graph]]:
    _, height, width, channels = shape
    unsigned = dtype == "uint8"
    unit = _UNIT_UNSIGNED if unsigned else _UNIT
    symmetric = _SYMMETRIC_UNSIGNED if unsigned else _SYMMETRIC
    for filters in (8, 24):  # a micro-kernel may be another for few filters
        weights = (filters, 3, 3, channels)
        yield (
            f"CONV_2D to {filters}",
            _weighted("CONV_2D", dtype, shape, weights, (1, height, width, filters)),
        )
    many = (1, height, width, _MANY_CHANNELS)  # some instruction sets have another loop for these
    yield "CONV_2D of many channels", _weighted("CONV_2D", dtype, many, (_MANY_CHANNELS, 3, 3, many[3]), many)
    yield (
        "DEPTHWISE_CONV_2D",
        _weighted("DEPTHWISE_CONV_2D", dtype, shape, (1, 3, 3, channels), shape, depth_multiplier=1),
    )
    yield "TRANSPOSE_CONV", _transposed(dtype, shape)
    yield "FULLY_CONNECTED", _fully_connected(dtype, height * width)
    for op in ("ADD", "SUB", "MUL"):
        yield op, _layer(op, dtype, [shape, shape], shape, attributes=_NO_ACTIVATION)
    yield (
        "CONCATENATION",
        _layer(
            "CONCATENATION",
            dtype,
            [shape, shape],
            (1, height, width, 2 * channels),
            attributes={"axis": 3, **_NO_ACTIVATION},
        ),
    )
    half = (1, height // 2, width // 2, channels)
    for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        yield op, _layer(op, dtype, [shape], half, attributes=_POOL)
    for op, times in (("RESIZE_BILINEAR", 2), ("RESIZE_BILINEAR", 3), ("RESIZE_NEAREST_NEIGHBOR", 2)):
        resized = (1, times * height, times * width, channels)  # thirds do not fit 16 bits
        size = np.array(resized[1:3], np.int32)
        yield op, _layer(op, dtype, [shape], resized, constants=[size], attributes=_RESIZE)
    for op in ("RELU", "RELU6"):
        yield op, _layer(op, dtype, [shape], shape)
    yield "LEAKY_RELU", _layer("LEAKY_RELU", dtype, [shape], shape, attributes={"alpha": 0.125})
    yield "HARD_SWISH", _layer("HARD_SWISH", dtype, [shape], shape)
    yield "LOGISTIC", _layer("LOGISTIC", dtype, [shape], shape, output=unit)
    yield "TANH", _layer("TANH", dtype, [shape], shape, output=symmetric)
    yield "SOFTMAX", _layer("SOFTMAX", dtype, [shape], shape, output=unit, attributes={"beta": 1.0})
    axes = np.array([1, 2], np.int32)
    yield (
        "MEAN",
        _layer("MEAN", dtype, [shape], (1, 1, 1, channels), constants=[axes], attributes={"keep_dims": True}),
    )
    borders = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    yield "PAD", _layer("PAD", dtype, [shape], (1, height + 2, width + 2, channels), constants=[borders])
    yield "QUANTIZE", _conversion("QUANTIZE", "float32", dtype, shape)
    yield "DEQUANTIZE", _conversion("DEQUANTIZE", dtype, "float32", shape)
    yield "requantize", _conversion("QUANTIZE", "uint8" if dtype == "int8" else "int8", dtype, shape)


def _layer(
    op: str,
    dtype: str,
    inputs: list[tuple[int, ...]],
    output_shape: tuple[int, ...],
    constants: list[np.ndarray[tuple[int, ...], np.dtype[np.int32]]] | None = None,
    output: Quantization = _BETWEEN,
    attributes: Attributes = MappingProxyType({}),
) -> Graph:
    builder = GraphBuilder(op)
    operands = [builder.input(f"input{n}", shape, dtype, _BETWEEN) for n, shape in enumerate(inputs)]
    operands += [builder.constant(f"constant{n}", values) for n, values in enumerate(constants or [])]
    result = builder.tensor("output", output_shape, dtype, output)
    return builder.build([builder.layer(op, operands, [result], 1, **attributes)])


def _weighted(
    op: str,
    dtype: str,
    shape: tuple[int, ...],
    filter_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    **attributes: AttributeValue,
) -> Graph:
    builder = GraphBuilder(op)
    operands = [builder.input("input", shape, dtype, _BETWEEN), _filter(builder, dtype, filter_shape)]
    operands.append(builder.constant("bias", np.zeros(output_shape[-1], np.int32)))
    result = builder.tensor("output", output_shape, dtype, _BETWEEN)
    return builder.build([builder.layer(op, operands, [result], 1, **_WINDOW, **attributes)])


def _transposed(dtype: str, shape: tuple[int, ...]) -> Graph:
    _, height, width, channels = shape
    output_shape = (1, 2 * height, 2 * width, channels)
    builder = GraphBuilder("TRANSPOSE_CONV")
    operands = [
        builder.constant("output_shape", np.array(output_shape, np.int32)),
        _filter(builder, dtype, (channels, 4, 4, channels)),
        builder.input("input", shape, dtype, _BETWEEN),
    ]
    result = builder.tensor("output", output_shape, dtype, _BETWEEN)
    attributes: Attributes = {**_WINDOW, "stride_w": 2, "stride_h": 2}
    return builder.build([builder.layer("TRANSPOSE_CONV", operands, [result], 1, **attributes)])


def _fully_connected(dtype: str, rows: int) -> Graph:
    builder = GraphBuilder("FULLY_CONNECTED")
    operands = [builder.input("input", (rows, 64), dtype, _BETWEEN), _filter(builder, dtype, (24, 64))]
    result = builder.tensor("output", (rows, 24), dtype, _BETWEEN)
    attributes: Attributes = {
        **_NO_ACTIVATION, "keep_num_dims": False, "weights_format": "DEFAULT"
    }  # fmt: skip
    return builder.build([builder.layer("FULLY_CONNECTED", [*operands, -1], [result], 1, **attributes)])


def _conversion(op: str, source: str, target: str, shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(op)
    operand = builder.input("input", shape, source, None if source == "float32" else _BETWEEN)
    result = builder.tensor("output", shape, target, None if target == "float32" else _BETWEEN)
    return builder.build([builder.layer(op, [operand], [result])])


def _filter(builder: GraphBuilder, dtype: str, shape: tuple[int, ...]) -> int:
    zero_point = 128 if dtype == "uint8" else 0
    values = np.full(shape, zero_point, dtype)
    return builder.constant("filter", values, Quantization.per_tensor(2.0**-7, zero_point))
