"""The table of builtin ops: options, defaults, lowest version.

One line per op. Option names are the schema's own; a field's place in the tuple is
its position in the options table; an attribute that a file or a graph leaves out
has the schema's default. ``None`` marks a position the schema no longer uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from karat24.export.tflite import versions as v
from karat24.export.tflite.schema import TYPE_NAMES, enum_names
from karat24.export.tflite.versions import VersionRule
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import (
    UNLISTED,
    AttributeValue,
    Graph,
    LayerView,
)

Kind = Literal["int", "float", "bool", "enum", "ints"]


@dataclass(frozen=True)
class Option:
    """One option: int32, float32, bool, an enum by name (stored as int8), or an int32 vector.

    A vector has no default: where the file stores none, the attribute is absent.
    """

    name: str
    kind: Kind = "int"
    default: AttributeValue = 0
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Builtin:
    """A builtin op: its options table ("" when the schema has none for it), fields, version rule."""

    options: str
    fields: tuple[Option | None, ...]
    lowest: VersionRule


def _flag(name: str, default: bool = False) -> Option:
    return Option(name, "bool", default)


def _real(name: str) -> Option:
    return Option(name, "float", 0.0)


def _word(name: str, enum: str) -> Option:
    names = enum_names(enum)
    return Option(name, "enum", names[0], names)


def _type(name: str) -> Option:
    return Option(name, "enum", TYPE_NAMES[0], TYPE_NAMES)


def _op(options: str, fields: tuple[Option | None, ...] = (), lowest: VersionRule | None = None) -> Builtin:
    return Builtin(options, fields, lowest or v.always(1))


_padding = _word("padding", "Padding")
_activation = _word("fused_activation_function", "ActivationFunctionType")
_weights = _word("weights_format", "FullyConnectedOptionsWeightsFormat")
_strides = (Option("stride_w"), Option("stride_h"))
_dilations = (Option("dilation_w_factor", default=1), Option("dilation_h_factor", default=1))
_bias_type = _type("quantized_bias_type")
_hybrid = _flag("asymmetric_quantize_inputs")
_pool = (_padding, *_strides, Option("filter_width"), Option("filter_height"), _activation)
_sum = (_activation, _flag("pot_scale_int16", True))
_corners = (_flag("align_corners"), _flag("half_pixel_centers"))
_reduce = (_flag("keep_dims"),)
_block = (Option("block_size"),)
_normalization = (Option("radius"), _real("bias"), _real("alpha"), _real("beta"))
_masks = tuple(Option(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis"))
_depth_strides = (Option("stride_d"), *_strides)
_depth_dilations = (Option("dilation_d_factor", default=1), *_dilations)
_clips = (_real("cell_clip"), _real("proj_clip"))

_int8 = v.by_type(int8=2)
_int16 = v.by_type(int8=2, int16=3)

BUILTINS: Mapping[str, Builtin] = MappingProxyType(
    {
        "ABS": _op("AbsOptions", (), v.absolute),
        "ADD": _op("AddOptions", _sum, v.addition),
        "ADD_N": _op("AddNOptions"),
        "ARG_MAX": _op("ArgMaxOptions", (_type("output_type"),), v.by_type(int8=2, bool=3)),
        "ARG_MIN": _op("ArgMinOptions", (_type("output_type"),), v.by_type(int8=2, bool=3)),
        "AVERAGE_POOL_2D": _op("Pool2DOptions", _pool, _int16),
        "BATCH_MATMUL": _op("BatchMatMulOptions", (_flag("adj_x"), _flag("adj_y"), _hybrid), v.batch_matmul),
        "BATCH_TO_SPACE_ND": _op("BatchToSpaceNDOptions", (), v.space_batch),
        "BROADCAST_TO": _op(
            "BroadcastToOptions", (), lambda view: 3 if view.input(0).dtype in ("int8", "int16") else 2
        ),
        "CAST": _op("CastOptions", (_type("in_data_type"), _type("out_data_type")), v.cast),
        "CEIL": _op(""),
        "CONCATENATION": _op(
            "ConcatenationOptions", (Option("axis"), _activation), v.by_type(int8=2, int16=3, uint32=4)
        ),
        "CONV_2D": _op(
            "Conv2DOptions", (_padding, *_strides, _activation, *_dilations, _bias_type), v.convolution
        ),
        "CONV_3D": _op("Conv3DOptions", (_padding, *_depth_strides, _activation, *_depth_dilations)),
        "COS": _op("CosOptions"),
        "CUMSUM": _op("CumsumOptions", (_flag("exclusive"), _flag("reverse"))),
        "DEPTHWISE_CONV_2D": _op(
            "DepthwiseConv2DOptions",
            (_padding, *_strides, Option("depth_multiplier"), _activation, *_dilations),
            v.depthwise,
        ),
        # TensorFlow has 2 for int8, but LiteRT 2.3's reference resolver only has 1, with an equal kernel.
        "DEPTH_TO_SPACE": _op("DepthToSpaceOptions", _block),
        "DEQUANTIZE": _op("DequantizeOptions", (), v.dequantize),
        "DIV": _op("DivOptions", (_activation,), v.by_broadcast(2, v.always(1))),
        "ELU": _op(""),
        "EQUAL": _op("EqualOptions", (), v.by_type(int8=2, int16=4)),
        "EXP": _op("ExpOptions", (), v.by_type(int8=2, int16=2)),
        "EXPAND_DIMS": _op("ExpandDimsOptions"),
        "FILL": _op("FillOptions", (), v.by_type(1, bool=2, int8=3, int16=3, float16=4)),
        "FLOOR": _op(""),
        "FLOOR_DIV": _op("FloorDivOptions", (), v.by_type(int8=3, int16=3, float32=2)),
        "FLOOR_MOD": _op("FloorModOptions", (), v.by_type(int8=2, int16=2)),
        "FULLY_CONNECTED": _op(
            "FullyConnectedOptions",
            (_activation, _weights, _flag("keep_num_dims"), _hybrid, _bias_type),
            v.fully_connected,
        ),
        "GATHER": _op("GatherOptions", (Option("axis"), Option("batch_dims")), v.gather),
        "GATHER_ND": _op("GatherNdOptions", (), v.by_type(int16=3, bool=5)),
        "GELU": _op("GeluOptions", (_flag("approximate"),), v.by_type(int8=2, uint8=2)),
        "GREATER": _op("GreaterOptions", (), _int8),
        "GREATER_EQUAL": _op("GreaterEqualOptions", (), _int16),
        "HARD_SWISH": _op("HardSwishOptions"),
        "L2_NORMALIZATION": _op("L2NormOptions", (_activation,), _int8),
        "L2_POOL_2D": _op("Pool2DOptions", _pool),
        "LEAKY_RELU": _op("LeakyReluOptions", (_real("alpha"),), v.by_type(int16=2)),
        "LESS": _op("LessOptions", (), _int16),
        "LESS_EQUAL": _op("LessEqualOptions", (), _int8),
        "LOCAL_RESPONSE_NORMALIZATION": _op("LocalResponseNormalizationOptions", _normalization),
        "LOG": _op("", (), v.by_type(int8=2, int16=2)),
        "LOGICAL_AND": _op("LogicalAndOptions"),
        "LOGICAL_NOT": _op("LogicalNotOptions"),
        "LOGICAL_OR": _op("LogicalOrOptions"),
        "LOGISTIC": _op("", (), _int16),
        "LOG_SOFTMAX": _op("LogSoftmaxOptions", (), _int8),
        "LSTM": _op(
            "LSTMOptions", (_activation, *_clips, _word("kernel_type", "LSTMKernelType"), _hybrid), v.lstm
        ),
        "MAXIMUM": _op("MaximumMinimumOptions", (), v.by_broadcast(3, v.by_type(int8=2, int16=4))),
        "MAX_POOL_2D": _op("Pool2DOptions", _pool, _int16),
        "MEAN": _op("ReducerOptions", _reduce, _int16),
        "MINIMUM": _op("MaximumMinimumOptions", (), v.by_broadcast(3, v.by_type(int8=2, int16=4))),
        "MIRROR_PAD": _op("MirrorPadOptions", (_word("mode", "MirrorPadMode"),), _int16),
        "MUL": _op("MulOptions", (_activation,), v.multiplication),
        "NEG": _op("NegOptions"),
        "NOT_EQUAL": _op("NotEqualOptions", (), _int8),
        "ONE_HOT": _op("OneHotOptions", (Option("axis"),)),
        "PACK": _op(
            "PackOptions", (Option("values_count"), Option("axis")), v.by_type(int8=2, int16=3, uint32=4)
        ),
        "PAD": _op("PadOptions", (), v.by_rank(5, 4, _int16)),
        "PADV2": _op("PadV2Options", (), v.by_rank(5, 4, _int16)),
        "POW": _op("PowOptions"),
        "PRELU": _op(""),
        "QUANTIZE": _op("QuantizeOptions", (), v.quantize),
        "RANGE": _op("RangeOptions", (), v.by_type(int64=2)),
        "RANK": _op("RankOptions"),
        "REDUCE_ALL": _op("ReducerOptions", _reduce),
        "REDUCE_ANY": _op("ReducerOptions", _reduce),
        "REDUCE_MAX": _op("ReducerOptions", _reduce, _int16),
        "REDUCE_MIN": _op("ReducerOptions", _reduce, _int16),
        "REDUCE_PROD": _op("ReducerOptions", _reduce, v.by_type(int8=2, int16=2)),
        "RELU": _op("", (), v.by_type(int8=2, uint8=2, int16=3)),
        "RELU6": _op("", (), _int16),
        "RELU_0_TO_1": _op(""),
        "RELU_N1_TO_1": _op(""),
        "RESHAPE": _op("ReshapeOptions", (Option("new_shape", "ints"),)),
        # Positions 0 and 1 held the output size before it became an input.
        "RESIZE_BILINEAR": _op("ResizeBilinearOptions", (None, None, *_corners), v.resize_bilinear),
        "RESIZE_NEAREST_NEIGHBOR": _op("ResizeNearestNeighborOptions", _corners, v.resize_nearest),
        "REVERSE_SEQUENCE": _op("ReverseSequenceOptions", (Option("seq_dim"), Option("batch_dim"))),
        "REVERSE_V2": _op("ReverseV2Options", (), v.by_type(bool=2, int8=3)),
        "ROUND": _op(""),
        "RSQRT": _op("", (), _int16),
        "SCATTER_ND": _op("ScatterNdOptions"),
        "SELECT": _op("SelectOptions", (), v.select),
        "SELECT_V2": _op("SelectV2Options", (), v.by_type(uint32=2)),
        "SHAPE": _op("ShapeOptions", (_type("out_type"),)),
        "SIGN": _op("SignOptions", (), v.by_type(int32=2)),
        "SIN": _op(""),
        "SLICE": _op("SliceOptions", (), v.by_rank(5, 5, v.by_type(int8=2, int16=4, uint32=6))),
        "SOFTMAX": _op("SoftmaxOptions", (_real("beta"),), _int16),
        "SPACE_TO_BATCH_ND": _op("SpaceToBatchNDOptions", (), v.space_batch),
        "SPACE_TO_DEPTH": _op("SpaceToDepthOptions", _block, _int8),
        "SPLIT": _op("SplitOptions", (Option("num_splits"),), v.by_type(1, int8=2, int32=3, int16=4)),
        "SPLIT_V": _op("SplitVOptions", (Option("num_splits"),), _int8),
        "SQRT": _op(""),
        "SQUARE": _op("SquareOptions"),
        "SQUARED_DIFFERENCE": _op("SquaredDifferenceOptions", (), _int8),
        "SQUEEZE": _op("SqueezeOptions", (Option("squeeze_dims", "ints"),)),
        "STRIDED_SLICE": _op("StridedSliceOptions", (*_masks, _flag("offset")), v.strided_slice),
        "SUB": _op("SubOptions", _sum, v.subtraction),
        "SUM": _op("ReducerOptions", _reduce, _int8),
        "SVDF": _op("SVDFOptions", (Option("rank"), _activation, _hybrid), v.svdf),
        "TANH": _op("", (), _int16),
        "TILE": _op("TileOptions", (), v.by_type(int8=3)),
        "TOPK_V2": _op("TopKV2Options", (), v.topk),
        "TRANSPOSE": _op(
            "TransposeOptions",
            (),
            v.by_rank(6, 6, v.by_rank(5, 4, v.by_type(int8=2, bool=3, int16=5))),
        ),
        "TRANSPOSE_CONV": _op(
            "TransposeConvOptions", (_padding, *_strides, _activation, _bias_type), v.transpose_conv
        ),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": _op(
            "UnidirectionalSequenceLSTMOptions",
            (_activation, *_clips, _flag("time_major"), _hybrid, _flag("diagonal_recurrent_tensors")),
            v.sequence_lstm,
        ),
        "UNPACK": _op(
            "UnpackOptions", (Option("num"), Option("axis")), v.by_type(int8=2, uint8=2, bool=3, int16=4)
        ),
        "WHERE": _op("WhereOptions", (), lambda view: 1 if view.input(0).dtype == "bool" else 2),
        "ZEROS_LIKE": _op("ZerosLikeOptions"),
    }
)
"""Every builtin op that can be written. The reader keeps others without their options."""


def builtin(view: LayerView) -> Builtin:
    """The table's line for a layer. Raises UnsupportedOp when there is none, or it lacks stored options."""
    line = BUILTINS.get(view.op)
    if UNLISTED in view.layer.attributes:
        raise UnsupportedOp(f"{view} stores options of unknown meaning, which cannot be written")
    if line is None:
        raise UnsupportedOp(f"{view}: karat24 does not know the op's options, so it cannot write them")
    return line


def lowest_version(view: LayerView) -> int:
    """The lowest op version that expresses the layer. Raises UnsupportedOp for ops not in the table."""
    return builtin(view).lowest(view)


def with_lowest_versions(graph: Graph) -> Graph:
    """The graph with each builtin layer at the lowest version that expresses it, for graphs built here.

    A graph that was read keeps the versions of its file.
    """
    layers = tuple(
        replace(layer, version=lowest_version(graph.view(layer))) if layer.op in BUILTINS else layer
        for layer in graph.layers
    )
    return replace(graph, layers=layers)
