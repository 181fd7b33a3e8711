"""The table of ops. Adding one: a file in ``refimpl/spec``, a line here, a reader and writer
line per format, a test, optionally a kernel in ``refimpl/kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from karat24.refimpl.contract import Op
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import UNLISTED, Graph, LayerView
from karat24.refimpl.spec.onnx.table import ONNX_OPS
from karat24.refimpl.spec.shared.packed import PACKED
from karat24.refimpl.spec.shared.variables import VARIABLE
from karat24.refimpl.spec.tflite import (
    add,
    arg_max,
    average_pool_2d,
    batch_matmul,
    broadcast_to,
    cast,
    comparison,
    concatenation,
    conv_2d,
    depth_to_space,
    depthwise_conv_2d,
    dequantize,
    detection_postprocess,
    div,
    fixed_unary,
    float_functions,
    float_unary,
    fully_connected,
    gather,
    gather_nd,
    hard_swish,
    l2_normalization,
    leaky_relu,
    log_softmax,
    logical,
    logistic,
    max_pool_2d,
    mean,
    minimum,
    mirror_pad,
    mul,
    pack,
    pad,
    prelu,
    quantize,
    reduce,
    relu,
    reshape,
    resize_bilinear,
    resize_nearest_neighbor,
    reverse_v2,
    shape,
    softmax,
    space_to_batch_nd,
    split,
    squared_difference,
    strided_slice,
    svdf,
    tile,
    top_k,
    transpose,
    transpose_conv,
)
from karat24.refimpl.spec.tflite import slice as slice_box
from karat24.refimpl.spec.tflite.lstm import layout as lstm_layout
from karat24.refimpl.spec.tflite.lstm.lstm import lstm, lstm_states

OPS: Mapping[str, Op] = MappingProxyType(
    {
        "ABS": Op(float_unary.check_unary, float_unary.unary),
        "ADD": Op(add.check_add, add.add),
        "ARG_MAX": Op(arg_max.check_arg_max, arg_max.arg_max),
        "ARG_MIN": Op(arg_max.check_arg_max, arg_max.arg_min),
        "AVERAGE_POOL_2D": Op(average_pool_2d.check_average_pool_2d, average_pool_2d.average_pool_2d),
        "BATCH_MATMUL": Op(batch_matmul.check_batch_matmul, batch_matmul.batch_matmul, accumulates=True),
        "BATCH_TO_SPACE_ND": Op(
            space_to_batch_nd.check_batch_to_space_nd, space_to_batch_nd.batch_to_space_nd
        ),
        "BROADCAST_TO": Op(broadcast_to.check_broadcast_to, broadcast_to.broadcast_to),
        "CAST": Op(cast.check_cast, cast.cast),
        "CEIL": Op(float_unary.check_float_unary, float_unary.float_unary),
        "CONCATENATION": Op(concatenation.check_concatenation, concatenation.concatenation),
        "CONV_2D": Op(conv_2d.check_conv_2d, conv_2d.conv_2d, accumulates=True),
        "CUSTOM:TFLite_Detection_PostProcess": Op(
            detection_postprocess.check_detection_postprocess,
            detection_postprocess.detection_postprocess,
            defined=detection_postprocess.defined,
        ),
        "DEPTHWISE_CONV_2D": Op(
            depthwise_conv_2d.check_depthwise_conv_2d, depthwise_conv_2d.depthwise_conv_2d, accumulates=True
        ),
        "DEPTH_TO_SPACE": Op(depth_to_space.check_depth_to_space, depth_to_space.depth_to_space),
        "DEQUANTIZE": Op(dequantize.check_dequantize, dequantize.dequantize),
        "DIV": Op(div.check_div, div.div),
        "ELU": Op(float_functions.check_int8_function, float_functions.elu),
        "EQUAL": Op(comparison.check_comparison, comparison.comparison),
        "EXP": Op(float_functions.check_int8_function, float_functions.exp),
        "EXPAND_DIMS": Op(reshape.check_expand_dims, reshape.same_values),
        "FILL": Op(broadcast_to.check_fill, broadcast_to.fill),
        "FLOOR": Op(float_unary.check_float_unary, float_unary.float_unary),
        "FLOOR_DIV": Op(div.check_floor_div, div.floor_div),
        "FLOOR_MOD": Op(div.check_floor_div, div.floor_mod),
        "FULLY_CONNECTED": Op(
            fully_connected.check_fully_connected, fully_connected.fully_connected, accumulates=True
        ),
        "GATHER": Op(gather.check_gather, gather.gather),
        "GATHER_ND": Op(gather_nd.check_gather_nd, gather_nd.gather_nd),
        "GELU": Op(float_functions.check_gelu, float_functions.gelu),
        "GREATER": Op(comparison.check_comparison, comparison.comparison),
        "GREATER_EQUAL": Op(comparison.check_comparison, comparison.comparison),
        "HARD_SWISH": Op(hard_swish.check_hard_swish, hard_swish.hard_swish),
        "L2_NORMALIZATION": Op(l2_normalization.check_l2_normalization, l2_normalization.l2_normalization),
        "LEAKY_RELU": Op(leaky_relu.check_leaky_relu, leaky_relu.leaky_relu),
        "LESS": Op(comparison.check_comparison, comparison.comparison),
        "LESS_EQUAL": Op(comparison.check_comparison, comparison.comparison),
        "LOG": Op(float_functions.check_int8_function, float_functions.log),
        "LOGICAL_AND": Op(logical.check_logical_pair, logical.logical_and),
        "LOGICAL_NOT": Op(logical.check_logical_not, logical.logical_not),
        "LOGICAL_OR": Op(logical.check_logical_pair, logical.logical_or),
        "LOGISTIC": Op(logistic.check_logistic, logistic.logistic),
        "LOG_SOFTMAX": Op(log_softmax.check_log_softmax, log_softmax.log_softmax),
        "LSTM": Op(lstm_layout.check_lstm, lstm, leaves=lstm_states),
        "MAXIMUM": Op(minimum.check_minimum, minimum.maximum),
        "MAX_POOL_2D": Op(max_pool_2d.check_max_pool_2d, max_pool_2d.max_pool_2d),
        "MEAN": Op(mean.check_mean, mean.mean),
        "MINIMUM": Op(minimum.check_minimum, minimum.minimum),
        "MIRROR_PAD": Op(mirror_pad.check_mirror_pad, mirror_pad.mirror_pad),
        "MUL": Op(mul.check_mul, mul.mul),
        "NEG": Op(float_unary.check_unary, float_unary.unary),
        "NOT_EQUAL": Op(comparison.check_comparison, comparison.comparison),
        "PACK": Op(pack.check_pack, pack.pack),
        "PAD": Op(pad.check_pad, pad.pad),
        "PADV2": Op(pad.check_padv2, pad.padv2),
        "PRELU": Op(prelu.check_prelu, prelu.prelu),
        "QUANTIZE": Op(quantize.check_quantize, quantize.quantize),
        "RANK": Op(shape.check_rank, shape.rank),
        "REDUCE_ALL": Op(reduce.check_reduce, reduce.reduce),
        "REDUCE_ANY": Op(reduce.check_reduce, reduce.reduce),
        "REDUCE_MAX": Op(reduce.check_reduce, reduce.reduce),
        "REDUCE_MIN": Op(reduce.check_reduce, reduce.reduce),
        "REDUCE_PROD": Op(reduce.check_reduce, reduce.reduce),
        "RELU": Op(relu.check_relu, relu.relu),
        "RELU6": Op(relu.check_relu, relu.relu),
        "RELU_N1_TO_1": Op(relu.check_relu, relu.relu),
        "RESHAPE": Op(reshape.check_reshape, reshape.reshape),
        "RESIZE_BILINEAR": Op(resize_bilinear.check_resize_bilinear, resize_bilinear.resize_bilinear),
        "RESIZE_NEAREST_NEIGHBOR": Op(
            resize_nearest_neighbor.check_resize_nearest_neighbor,
            resize_nearest_neighbor.resize_nearest_neighbor,
        ),
        "REVERSE_V2": Op(reverse_v2.check_reverse_v2, reverse_v2.reverse_v2),
        "ROUND": Op(float_unary.check_float_unary, float_unary.round_half_even),
        "RSQRT": Op(fixed_unary.check_fixed_unary, fixed_unary.fixed_unary),
        "SELECT": Op(logical.check_select, logical.select),
        "SELECT_V2": Op(logical.check_select_v2, logical.select),
        "SHAPE": Op(shape.check_shape, shape.shape),
        "SLICE": Op(slice_box.check_slice, slice_box.slice_),
        "SOFTMAX": Op(softmax.check_softmax, softmax.softmax),
        "SPACE_TO_BATCH_ND": Op(
            space_to_batch_nd.check_space_to_batch_nd, space_to_batch_nd.space_to_batch_nd
        ),
        "SPACE_TO_DEPTH": Op(depth_to_space.check_space_to_depth, depth_to_space.space_to_depth),
        "SPLIT": Op(split.check_split, split.split),
        "SPLIT_V": Op(split.check_split_v, split.split_v),
        "SQRT": Op(float_unary.check_unary, float_unary.unary),
        "SQUARE": Op(float_unary.check_float_unary, float_unary.float_unary),
        "SQUARED_DIFFERENCE": Op(
            squared_difference.check_squared_difference, squared_difference.squared_difference
        ),
        "SQUEEZE": Op(reshape.check_squeeze, reshape.same_values),
        "STRIDED_SLICE": Op(strided_slice.check_strided_slice, strided_slice.strided_slice),
        "SUB": Op(add.check_add, add.sub),
        "SVDF": Op(svdf.check_svdf, svdf.svdf, leaves=svdf.svdf_state),
        "SUM": Op(reduce.check_reduce, reduce.reduce),
        "TANH": Op(logistic.check_tanh, logistic.tanh),
        "TILE": Op(tile.check_tile, tile.tile),
        "TOPK_V2": Op(top_k.check_top_k, top_k.top_k),
        "TRANSPOSE": Op(transpose.check_transpose, transpose.transpose),
        "TRANSPOSE_CONV": Op(
            transpose_conv.check_transpose_conv, transpose_conv.transpose_conv, accumulates=True
        ),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": Op(lstm_layout.check_lstm, lstm, leaves=lstm_states),
        "UNPACK": Op(pack.check_unpack, pack.unpack),
        **ONNX_OPS,
    }
)
"""Op name, in its format's own words, to the check and slow spec that define it."""

UNPACKING: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"CONV_2D": (1,), "DEPTHWISE_CONV_2D": (1,), "FULLY_CONNECTED": (1,), "DequantizeLinear": (0, 2)}
)
"""Positions of the constants that may be of a packed element type."""

CONTROL_FLOW = ("IF", "WHILE", "CALL_ONCE")
"""Ops that run other graphs of their .tflite file."""

STATES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "LSTM": (lstm_layout.OUTPUT_STATE, lstm_layout.CELL_STATE),
        "SVDF": (4,),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": (lstm_layout.OUTPUT_STATE, lstm_layout.CELL_STATE),
    }
)
"""Positions of the variables an op keeps its state in."""

EDGETPU_OP = "CUSTOM:edgetpu-custom-op"


def unsupported_ops(graph: Graph) -> dict[str, list[int]]:
    """Ops of the graph that have no implementation, each with the layers that use it."""
    missing: dict[str, list[int]] = {}
    for layer in graph.layers:
        if layer.op not in OPS:
            missing.setdefault(layer.op, []).append(layer.index)
    return missing


def check_supported(view: LayerView) -> None:
    """Raises UnsupportedOp where the oracle lacks the layer under every profile, ModelError where it is
    malformed."""
    if view.op not in OPS:
        raise UnsupportedOp(f"no implementation for {view.op}: {why_unsupported(view.op)}")
    for position, tensor in enumerate((*view.inputs, *view.outputs)):
        if tensor is None or not tensor.is_opaque:
            continue
        if position in STATES.get(view.op, ()) and tensor.dtype.startswith(VARIABLE):
            continue
        if position not in UNPACKING.get(view.op, ()) or tensor.dtype not in PACKED:
            raise UnsupportedOp(
                f"{view}: tensor {tensor.index} ({tensor.name!r}) is of element type {tensor.dtype}, "
                "which karat24 does not compute with"
            )
    if UNLISTED in view.layer.attributes:
        raise UnsupportedOp(
            f"{view} stores options at positions {view.integers(UNLISTED)}, whose meaning karat24 does not "
            "know: they come from a newer schema, or the file is damaged"
        )
    OPS[view.op].check(view)


ATTENTION = "com.microsoft:Attention"


def why_unsupported(op: str) -> str:
    """Why an op has no implementation, as a message says it to the user."""
    if op == EDGETPU_OP:
        return (
            "this model is compiled for the Edge TPU and shows no layers; use the model it was compiled from"
        )
    if op in CONTROL_FLOW:
        return (
            "karat24 computes no control flow; the graphs it enters can be judged one by one, with "
            "--subgraph and a number that karat24 inspect shows"
        )
    if op == ATTENTION:
        return (
            "scores and their softmax are summed in float32 inside it, in an order that no document fixes; "
            "what lies before and behind it is compared"
        )
    custom = op.startswith("CUSTOM:") or op.split(":")[0] not in (op, "com.microsoft")
    return "only whoever made the op defines it" if custom else "karat24 lacks it; the model can be sound"
