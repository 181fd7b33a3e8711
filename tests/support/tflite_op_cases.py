"""One small, valid layer for every builtin op that can be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from karat24.export.tflite import with_lowest_versions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, AttributeValue, Graph, Quantization


@dataclass(frozen=True)
class Given:
    """A tensor a layer reads or writes."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    variable: bool = False

    @property
    def quantization(self) -> Quantization | None:
        return Quantization.per_tensor(0.5, 3) if self.dtype == "int8" else None


def given(*shape: int, dtype: str = "float32") -> Given:
    return Given(shape, dtype)


def numbers(*values: int) -> Array:
    return np.array(values, np.int32)


def _layer(inputs: list[Given | Array | None], outputs: list[Given], **attributes: AttributeValue) -> Any:
    return inputs, outputs, attributes


def _same(*shape: int, dtype: str = "float32", **attributes: AttributeValue) -> Any:
    return _layer([given(*shape, dtype=dtype)], [given(*shape, dtype=dtype)], **attributes)


def _pair(result: str = "float32", dtype: str = "float32", **attributes: AttributeValue) -> Any:
    two = [given(1, 4, dtype=dtype), given(1, 4, dtype=dtype)]
    return _layer(two, [given(1, 4, dtype=result)], **attributes)


def _reduction(dtype: str = "float32") -> Any:
    return _layer(
        [given(1, 4, 4, 2, dtype=dtype), numbers(1, 2)], [given(1, 1, 1, 2, dtype=dtype)], keep_dims=True
    )


_IMAGE = given(1, 4, 4, 2)
_SCALAR = np.array(1, np.int32)
_NEAR = {"padding": "SAME", "stride_w": 1, "stride_h": 1}
_POOL = _layer(
    [_IMAGE], [given(1, 2, 2, 2)], padding="VALID", stride_w=2, stride_h=2, filter_width=2, filter_height=2
)
_KERNEL = np.ones((3, 3, 3, 2), np.float32)
_BIAS = np.zeros(3, np.float32)
_UNARY = _same(1, 4)


def _lstm(data: Given, made: Given, **attributes: AttributeValue) -> Any:
    """Four cells of float32, without peephole weights, projection or layer normalization."""
    weights: list[Given | Array | None] = [
        np.ones((4, columns), np.float32) for columns in (3,) * 4 + (4,) * 4
    ]
    bias: list[Given | Array | None] = [np.ones(4, np.float32)] * 4
    states: list[Given | Array | None] = [Given((1, 4), variable=True)] * 2
    inputs = [data, *weights, None, None, None, *bias, None, None, *states, *(None,) * 4]
    return _layer(inputs, [made], fused_activation_function="TANH", **attributes)


LAYERS: Mapping[str, Any] = {
    **dict.fromkeys(
        ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "HARD_SWISH", "LOG", "LOGISTIC", "LOG_SOFTMAX", "NEG"),
        _UNARY,
    ),
    **dict.fromkeys(
        ("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE"),
        _UNARY,
    ),
    **dict.fromkeys(("TANH", "ZEROS_LIKE", "L2_NORMALIZATION"), _UNARY),
    **dict.fromkeys(
        ("ADD_N", "ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB"), _pair()
    ),
    **dict.fromkeys(
        ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"), _pair(result="bool")
    ),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR"), _pair("bool", "bool")),
    **dict.fromkeys(("FLOOR_DIV", "FLOOR_MOD"), _pair()),
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), _POOL),
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"), _reduction()),
    **dict.fromkeys(("REDUCE_ALL", "REDUCE_ANY"), _reduction("bool")),
    **dict.fromkeys(
        ("ARG_MAX", "ARG_MIN"),
        _layer([given(1, 4), _SCALAR], [given(1, dtype="int64")], output_type="int64"),
    ),
    "BATCH_MATMUL": _layer([given(1, 2, 3), given(1, 4, 3)], [given(1, 2, 4)], adj_y=True),
    "BATCH_TO_SPACE_ND": _layer(
        [given(4, 2, 2, 1), numbers(2, 2), np.zeros((2, 2), np.int32)], [given(1, 4, 4, 1)]
    ),
    "BROADCAST_TO": _layer([given(1, 4), numbers(3, 4)], [given(3, 4)]),
    "CAST": _layer(
        [given(1, 4)], [given(1, 4, dtype="int32")], in_data_type="float32", out_data_type="int32"
    ),
    "CONCATENATION": _layer([given(1, 2), given(1, 3)], [given(1, 5)], axis=-1),
    "CONV_2D": _layer([_IMAGE, _KERNEL, _BIAS], [given(1, 4, 4, 3)], **_NEAR),
    "CONV_3D": _layer(
        [given(1, 4, 4, 4, 2), np.ones((1, 1, 1, 2, 3), np.float32)],
        [given(1, 4, 4, 4, 3)],
        stride_d=1,
        **_NEAR,
    ),
    "CUMSUM": _layer([given(1, 4), _SCALAR], [given(1, 4)], reverse=True),
    "DEPTHWISE_CONV_2D": _layer(
        [_IMAGE, np.ones((1, 3, 3, 4), np.float32), np.zeros(4, np.float32)],
        [given(1, 4, 4, 4)],
        depth_multiplier=2,
        **_NEAR,
    ),
    "DEPTH_TO_SPACE": _layer([given(1, 2, 2, 4)], [given(1, 4, 4, 1)], block_size=2),
    "DEQUANTIZE": _layer([given(1, 4, dtype="float16")], [given(1, 4)]),
    "EXPAND_DIMS": _layer([given(1, 4), _SCALAR], [given(1, 1, 4)]),
    "FILL": _layer([numbers(2, 3), np.array(7.0, np.float32)], [given(2, 3)]),
    "FULLY_CONNECTED": _layer([given(1, 4), np.ones((3, 4), np.float32), _BIAS], [given(1, 3)]),
    "GATHER": _layer([given(1, 4), numbers(0, 2)], [given(1, 2)], axis=1),
    "GATHER_ND": _layer([given(2, 4), np.zeros((1, 1), np.int32)], [given(1, 4)]),
    "GELU": _same(1, 4, approximate=True),
    "LEAKY_RELU": _same(1, 4, alpha=0.25),
    "LOCAL_RESPONSE_NORMALIZATION": _same(1, 4, 4, 2, radius=1, bias=1.0, alpha=0.5, beta=0.5),
    "LOGICAL_NOT": _same(1, 4, dtype="bool"),
    "MIRROR_PAD": _layer(
        [given(1, 4), np.array([[0, 0], [1, 1]], np.int32)], [given(1, 6)], mode="SYMMETRIC"
    ),
    "ONE_HOT": _layer(
        [given(2, dtype="int32"), _SCALAR, np.array(1.0, np.float32), np.array(0.0, np.float32)],
        [given(2, 1)],
        axis=-1,
    ),
    "PACK": _layer([given(4), given(4)], [given(2, 4)], values_count=2),
    "PAD": _layer([given(1, 4), np.array([[0, 0], [1, 1]], np.int32)], [given(1, 6)]),
    "PADV2": _layer(
        [given(1, 4), np.array([[0, 0], [1, 1]], np.int32), np.array(9.0, np.float32)], [given(1, 6)]
    ),
    "PRELU": _layer([_IMAGE, np.ones((1, 1, 2), np.float32)], [_IMAGE]),
    "QUANTIZE": _layer([given(1, 4)], [given(1, 4, dtype="int8")]),
    "RANGE": _layer([_SCALAR, np.array(4, np.int32), _SCALAR], [given(3, dtype="int32")]),
    "RANK": _layer([given(1, 4)], [given(dtype="int32")]),
    "RESHAPE": _layer([given(1, 4)], [given(2, 2)], new_shape=(2, 2)),
    "RESIZE_BILINEAR": _layer([_IMAGE, numbers(8, 8)], [given(1, 8, 8, 2)], half_pixel_centers=True),
    "RESIZE_NEAREST_NEIGHBOR": _layer([_IMAGE, numbers(8, 8)], [given(1, 8, 8, 2)], align_corners=True),
    "REVERSE_SEQUENCE": _layer([given(2, 4), numbers(1, 2)], [given(2, 4)], seq_dim=1),
    "REVERSE_V2": _layer([given(1, 4), numbers(1)], [given(1, 4)]),
    "SCATTER_ND": _layer([np.zeros((1, 1), np.int32), given(1, 4), numbers(2, 4)], [given(2, 4)]),
    "SELECT": _layer([given(1, 4, dtype="bool"), given(1, 4), given(1, 4)], [given(1, 4)]),
    "SELECT_V2": _layer([given(1, 4, dtype="bool"), given(1, 4), given(1, 1)], [given(1, 4)]),
    "SHAPE": _layer([given(1, 4)], [given(2, dtype="int64")], out_type="int64"),
    "SLICE": _layer([given(1, 4), numbers(0, 1), numbers(1, 2)], [given(1, 2)]),
    "SOFTMAX": _same(1, 4, beta=1.0),
    "SPACE_TO_BATCH_ND": _layer(
        [given(1, 4, 4, 1), numbers(2, 2), np.zeros((2, 2), np.int32)], [given(4, 2, 2, 1)]
    ),
    "SPACE_TO_DEPTH": _layer([given(1, 4, 4, 1)], [given(1, 2, 2, 4)], block_size=2),
    "SPLIT": _layer([_SCALAR, given(1, 4)], [given(1, 2), given(1, 2)], num_splits=2),
    "SPLIT_V": _layer([given(1, 4), numbers(1, 3), _SCALAR], [given(1, 1), given(1, 3)], num_splits=2),
    "SQUEEZE": _layer([given(1, 4, 1)], [given(1, 4)], squeeze_dims=(2,)),
    "STRIDED_SLICE": _layer(
        [given(1, 4), numbers(0, 1), numbers(1, 4), numbers(1, 2)], [given(2)], shrink_axis_mask=1
    ),
    "LSTM": _lstm(given(1, 3), given(1, 4)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm(given(1, 2, 3), given(1, 2, 4)),
    "TILE": _layer([given(1, 4), numbers(2, 1)], [given(2, 4)]),
    "TOPK_V2": _layer([given(1, 4), np.array(2, np.int32)], [given(1, 2), given(1, 2, dtype="int32")]),
    "TRANSPOSE": _layer([given(1, 4), numbers(1, 0)], [given(4, 1)]),
    "SVDF": _layer(
        [
            given(1, 3),
            np.ones((4, 3), np.float32),
            np.ones((4, 5), np.float32),
            np.ones(2, np.float32),
            Given((1, 20), variable=True),
        ],
        [given(1, 2)],
        rank=2,
        fused_activation_function="RELU",
    ),
    "TRANSPOSE_CONV": _layer(
        [numbers(1, 8, 8, 3), _KERNEL, _IMAGE, _BIAS],
        [given(1, 8, 8, 3)],
        padding="SAME",
        stride_w=2,
        stride_h=2,
    ),
    "UNPACK": _layer([given(2, 4)], [given(4), given(4)], num=2),
    "WHERE": _layer([np.ones((1, 4), np.bool_)], [given(4, 2, dtype="int64")]),
}


def _add(builder: GraphBuilder, name: str, tensor: Given) -> int:
    add = builder.variable if tensor.variable else builder.input
    return add(name, tensor.shape, tensor.dtype, tensor.quantization)


def graph_of(op: str) -> Graph:
    """The op's layer as a graph, at its lowest version."""
    inputs, outputs, attributes = LAYERS[op]
    builder = GraphBuilder()
    read = [
        -1
        if tensor is None
        else builder.constant(f"constant{n}", tensor)
        if isinstance(tensor, np.ndarray)
        else _add(builder, f"input{n}", tensor)
        for n, tensor in enumerate(inputs)
    ]
    written = [
        builder.tensor(f"output{n}", tensor.shape, tensor.dtype, tensor.quantization)
        for n, tensor in enumerate(outputs)
    ]
    builder.layer(op, read, written, **attributes)
    return with_lowest_versions(builder.build(written))
