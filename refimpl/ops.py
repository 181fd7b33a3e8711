"""The table of ops. Adding one: a file in ``refimpl/spec``, a line here, a reader and writer
line per format, a test, optionally a kernel in ``refimpl/kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from refimpl.contract import Op
from refimpl.spec import (
    add,
    arg_max,
    average_pool_2d,
    broadcast_to,
    concatenation,
    conv_2d,
    depth_to_space,
    depthwise_conv_2d,
    dequantize,
    fully_connected,
    gather,
    hard_swish,
    l2_normalization,
    leaky_relu,
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
    relu,
    reshape,
    resize_bilinear,
    resize_nearest_neighbor,
    reverse_v2,
    shape,
    softmax,
    split,
    strided_slice,
    tile,
    transpose,
    transpose_conv,
)
from refimpl.spec import slice as slice_box

OPS: Mapping[str, Op] = MappingProxyType(
    {
        "ADD": Op(add.check_add, add.add),
        "ARG_MAX": Op(arg_max.check_arg_max, arg_max.arg_max),
        "ARG_MIN": Op(arg_max.check_arg_max, arg_max.arg_min),
        "AVERAGE_POOL_2D": Op(average_pool_2d.check_average_pool_2d, average_pool_2d.average_pool_2d),
        "BROADCAST_TO": Op(broadcast_to.check_broadcast_to, broadcast_to.broadcast_to),
        "CONCATENATION": Op(concatenation.check_concatenation, concatenation.concatenation),
        "CONV_2D": Op(conv_2d.check_conv_2d, conv_2d.conv_2d, accumulates=True),
        "DEPTHWISE_CONV_2D": Op(
            depthwise_conv_2d.check_depthwise_conv_2d, depthwise_conv_2d.depthwise_conv_2d, accumulates=True
        ),
        "DEPTH_TO_SPACE": Op(depth_to_space.check_depth_to_space, depth_to_space.depth_to_space),
        "DEQUANTIZE": Op(dequantize.check_dequantize, dequantize.dequantize),
        "EXPAND_DIMS": Op(reshape.check_expand_dims, reshape.same_values),
        "FILL": Op(broadcast_to.check_fill, broadcast_to.fill),
        "FULLY_CONNECTED": Op(
            fully_connected.check_fully_connected, fully_connected.fully_connected, accumulates=True
        ),
        "GATHER": Op(gather.check_gather, gather.gather),
        "HARD_SWISH": Op(hard_swish.check_hard_swish, hard_swish.hard_swish),
        "L2_NORMALIZATION": Op(l2_normalization.check_l2_normalization, l2_normalization.l2_normalization),
        "LEAKY_RELU": Op(leaky_relu.check_leaky_relu, leaky_relu.leaky_relu),
        "LOGISTIC": Op(logistic.check_logistic, logistic.logistic),
        "MAXIMUM": Op(minimum.check_minimum, minimum.maximum),
        "MAX_POOL_2D": Op(max_pool_2d.check_max_pool_2d, max_pool_2d.max_pool_2d),
        "MEAN": Op(mean.check_mean, mean.mean),
        "MINIMUM": Op(minimum.check_minimum, minimum.minimum),
        "MIRROR_PAD": Op(mirror_pad.check_mirror_pad, mirror_pad.mirror_pad),
        "MUL": Op(mul.check_mul, mul.mul),
        "PACK": Op(pack.check_pack, pack.pack),
        "PAD": Op(pad.check_pad, pad.pad),
        "PADV2": Op(pad.check_padv2, pad.padv2),
        "PRELU": Op(prelu.check_prelu, prelu.prelu),
        "QUANTIZE": Op(quantize.check_quantize, quantize.quantize),
        "RANK": Op(shape.check_rank, shape.rank),
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
        "SHAPE": Op(shape.check_shape, shape.shape),
        "SLICE": Op(slice_box.check_slice, slice_box.slice_),
        "SOFTMAX": Op(softmax.check_softmax, softmax.softmax),
        "SPACE_TO_DEPTH": Op(depth_to_space.check_space_to_depth, depth_to_space.space_to_depth),
        "SPLIT": Op(split.check_split, split.split),
        "SPLIT_V": Op(split.check_split_v, split.split_v),
        "SQUEEZE": Op(reshape.check_squeeze, reshape.same_values),
        "STRIDED_SLICE": Op(strided_slice.check_strided_slice, strided_slice.strided_slice),
        "SUB": Op(add.check_add, add.sub),
        "TANH": Op(logistic.check_tanh, logistic.tanh),
        "TILE": Op(tile.check_tile, tile.tile),
        "TRANSPOSE": Op(transpose.check_transpose, transpose.transpose),
        "TRANSPOSE_CONV": Op(
            transpose_conv.check_transpose_conv, transpose_conv.transpose_conv, accumulates=True
        ),
        "UNPACK": Op(pack.check_unpack, pack.unpack),
    }
)
"""Op name, in its format's own words, to the check and slow spec that define it."""
