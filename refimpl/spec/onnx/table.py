"""The ONNX half of the table of ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from karat24.refimpl.contract import Op
from karat24.refimpl.spec.onnx import (
    conv_integer,
    conv_transpose,
    dynamic_quantize_linear,
    elementwise,
    float_functions,
    matmul_integer_to_float,
    matmul_nbits,
    moves,
    normalization,
    pools,
    qattention,
    qgemm,
    qlinear_add,
    qlinear_conv,
    qlinear_matmul,
    qlinear_softmax,
    qlinear_table,
    quantize_linear,
    reductions,
    resize,
    unspecified,
)
from karat24.refimpl.spec.onnx.versions import versioned

MICROSOFT = "com.microsoft:"

_BINARY = Op(elementwise.check_binary, elementwise.binary)
_ROUNDING = Op(elementwise.check_float_unary, elementwise.rounding)
_FUNCTION = Op(float_functions.check_function, float_functions.function)
_EXTREME = Op(reductions.check_reduction, reductions.reduce_extreme)
_POSITION = Op(reductions.check_arg_extreme, reductions.arg_extreme)
_LAYER_NORMALIZATION = Op(normalization.check_layer_normalization, normalization.normalize)
_RESHAPE = Op(moves.check_reshape, moves.reshape)
_QUANTIZE = Op(quantize_linear.check_quantize_linear, quantize_linear.quantize_linear)
_DEQUANTIZE = Op(quantize_linear.check_dequantize_linear, quantize_linear.dequantize_linear)

_OPS: Mapping[str, Op] = MappingProxyType(
    {
        "Abs": Op(elementwise.check_unary, elementwise.abs_),
        "Add": _BINARY,
        "ArgMax": _POSITION,
        "ArgMin": _POSITION,
        "AveragePool": Op(unspecified.check_average_pool, unspecified.average_pool),
        "BatchNormalization": Op(
            float_functions.check_batch_normalization, float_functions.batch_normalization
        ),
        "Cast": Op(moves.check_cast, moves.cast),
        "Ceil": _ROUNDING,
        "Clip": Op(elementwise.check_clip, elementwise.clip),
        "Concat": Op(moves.check_concat, moves.concat),
        "Conv": Op(unspecified.check_conv, unspecified.conv),
        "ConvInteger": Op(conv_integer.check_conv_integer, conv_integer.conv_integer),
        "ConvTranspose": Op(conv_transpose.check_conv_transpose, conv_transpose.conv_transpose),
        "DepthToSpace": Op(moves.check_depth_to_space, moves.depth_to_space),
        "DequantizeLinear": _DEQUANTIZE,
        "Div": _BINARY,
        "DynamicQuantizeLinear": Op(
            dynamic_quantize_linear.check_dynamic_quantize_linear,
            dynamic_quantize_linear.dynamic_quantize_linear,
        ),
        "Elu": _FUNCTION,
        "Erf": _FUNCTION,
        "Exp": _FUNCTION,
        "Expand": Op(moves.check_expand, moves.expand),
        "Flatten": _RESHAPE,
        "Floor": _ROUNDING,
        "Gather": Op(moves.check_gather, moves.gather),
        "Gelu": _FUNCTION,
        "Gemm": Op(unspecified.check_gemm, unspecified.gemm),
        "GlobalAveragePool": Op(unspecified.check_global_average_pool, unspecified.global_average_pool),
        "GlobalMaxPool": Op(reductions.check_global_max_pool, reductions.global_max_pool),
        "GroupNormalization": Op(normalization.check_group_normalization, normalization.normalize),
        "HardSigmoid": Op(elementwise.check_float_unary, elementwise.hard_sigmoid),
        "HardSwish": Op(elementwise.check_float_unary, elementwise.hard_swish),
        "Identity": _RESHAPE,
        "InstanceNormalization": Op(normalization.check_instance_normalization, normalization.normalize),
        "LayerNormalization": _LAYER_NORMALIZATION,
        "LeakyRelu": Op(elementwise.check_float_unary, elementwise.leaky_relu),
        "Log": _FUNCTION,
        "MatMul": Op(unspecified.check_matmul, unspecified.matmul),
        "MatMulInteger": Op(conv_integer.check_matmul_integer, conv_integer.matmul_integer),
        "Max": _BINARY,
        "MaxPool": Op(pools.check_max_pool, pools.max_pool),
        "Min": _BINARY,
        "Mul": _BINARY,
        "Neg": Op(elementwise.check_unary, elementwise.neg),
        "PRelu": Op(elementwise.check_prelu, elementwise.prelu),
        "Pad": Op(moves.check_pad, moves.pad),
        "Pow": Op(float_functions.check_pow, float_functions.pow_),
        "QLinearConv": Op(qlinear_conv.check_qlinear_conv, qlinear_conv.qlinear_conv, accumulates=True),
        "QLinearMatMul": Op(
            qlinear_matmul.check_qlinear_matmul, qlinear_matmul.qlinear_matmul, accumulates=True
        ),
        "QuantizeLinear": _QUANTIZE,
        "RMSNormalization": _LAYER_NORMALIZATION,
        "Reciprocal": Op(elementwise.check_float_unary, elementwise.reciprocal),
        "ReduceMax": _EXTREME,
        "ReduceMean": Op(reductions.check_reduction, reductions.reduce_mean),
        "ReduceMin": _EXTREME,
        "ReduceSum": Op(reductions.check_reduction, reductions.reduce_sum),
        "Relu": Op(elementwise.check_unary, elementwise.relu),
        "Reshape": _RESHAPE,
        "Resize": Op(resize.check_resize, resize.resize),
        "Round": _ROUNDING,
        "Shape": Op(moves.check_shape, moves.shape),
        "SimplifiedLayerNormalization": _LAYER_NORMALIZATION,
        "Sigmoid": Op(elementwise.check_float_unary, elementwise.sigmoid),
        "Slice": Op(moves.check_slice, moves.slice_),
        "Softmax": Op(float_functions.check_softmax, float_functions.softmax),
        "Softplus": _FUNCTION,
        "SpaceToDepth": Op(moves.check_depth_to_space, moves.space_to_depth),
        "Split": Op(moves.check_split, moves.split),
        "Sqrt": _ROUNDING,
        "Squeeze": _RESHAPE,
        "Sub": _BINARY,
        "Tanh": _FUNCTION,
        "Tile": Op(moves.check_expand, moves.tile),
        "Transpose": Op(moves.check_transpose, moves.transpose),
        "Unsqueeze": _RESHAPE,
        f"{MICROSOFT}BiasGelu": Op(float_functions.check_biased, float_functions.biased_gelu),
        f"{MICROSOFT}DequantizeLinear": _DEQUANTIZE,
        f"{MICROSOFT}DynamicQuantizeMatMul": Op(
            matmul_integer_to_float.check_dynamic_quantize_matmul,
            matmul_integer_to_float.dynamic_quantize_matmul,
            accumulates=True,
        ),
        f"{MICROSOFT}FastGelu": Op(float_functions.check_biased, float_functions.biased_gelu),
        f"{MICROSOFT}FusedMatMul": Op(unspecified.check_fused_matmul, unspecified.fused_matmul),
        f"{MICROSOFT}Gelu": _FUNCTION,
        f"{MICROSOFT}MatMulIntegerToFloat": Op(
            matmul_integer_to_float.check_matmul_integer_to_float,
            matmul_integer_to_float.matmul_integer_to_float,
            accumulates=True,
        ),
        f"{MICROSOFT}MatMulNBits": Op(matmul_nbits.check_matmul_nbits, matmul_nbits.matmul_nbits),
        f"{MICROSOFT}QAttention": Op(qattention.check_qattention, qattention.qattention),
        f"{MICROSOFT}QGemm": Op(qgemm.check_qgemm, qgemm.qgemm, accumulates=True),
        f"{MICROSOFT}QLinearAdd": Op(qlinear_add.check_qlinear_binary, qlinear_add.qlinear_add),
        f"{MICROSOFT}QLinearAveragePool": Op(pools.check_qlinear_average_pool, pools.qlinear_average_pool),
        f"{MICROSOFT}QLinearConcat": Op(qlinear_table.check_qlinear_concat, qlinear_table.qlinear_concat),
        f"{MICROSOFT}QLinearGlobalAveragePool": Op(
            pools.check_qlinear_global_average_pool, pools.qlinear_global_average_pool
        ),
        f"{MICROSOFT}QLinearLeakyRelu": Op(
            qlinear_table.check_qlinear_unary, qlinear_table.qlinear_leaky_relu
        ),
        f"{MICROSOFT}QLinearMul": Op(qlinear_add.check_qlinear_binary, qlinear_add.qlinear_mul),
        f"{MICROSOFT}QLinearSigmoid": Op(qlinear_table.check_qlinear_unary, qlinear_table.qlinear_sigmoid),
        f"{MICROSOFT}QLinearSoftmax": Op(
            qlinear_softmax.check_qlinear_softmax, qlinear_softmax.qlinear_softmax
        ),
        f"{MICROSOFT}QuantizeLinear": _QUANTIZE,
        f"{MICROSOFT}QuickGelu": _FUNCTION,
        f"{MICROSOFT}SkipLayerNormalization": Op(
            normalization.check_skip_layer_normalization, normalization.normalize
        ),
    }
)

ONNX_OPS: Mapping[str, Op] = MappingProxyType(
    {name: replace(op, check=versioned(op.check)) for name, op in _OPS.items()}
)
"""Op type, behind its domain where that is not the standard one, to the check and spec that define it."""
