"""Fast implementations, op by op. Shares no code with ``karat24.refimpl.spec``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import karat24.refimpl.kernels.jit  # noqa: F401 - first: it says where compiled code is kept
from karat24.refimpl.contract import Kernel, Prepare, Target
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.convolution.conv_2d import prepare_convolution
from karat24.refimpl.kernels.convolution.fully_connected import prepare_fully_connected
from karat24.refimpl.kernels.convolution.hybrid import prepare_hybrid
from karat24.refimpl.kernels.convolution.transposed import prepare_transposed
from karat24.refimpl.kernels.convolution.wide import prepare_wide_convolution
from karat24.refimpl.kernels.depthwise.convolution import prepare_depthwise
from karat24.refimpl.kernels.elementwise.activations import (
    prepare_hard_swish,
    prepare_leaky_relu,
    prepare_logistic,
    prepare_relu,
    prepare_tanh,
)
from karat24.refimpl.kernels.elementwise.binary import (
    prepare_add,
    prepare_minimum,
    prepare_mul,
    prepare_prelu,
    prepare_sub,
)
from karat24.refimpl.kernels.elementwise.cast import prepare_cast
from karat24.refimpl.kernels.elementwise.quantize import prepare_dequantize, prepare_quantize
from karat24.refimpl.kernels.images.pooling import prepare_average_pool, prepare_max_pool
from karat24.refimpl.kernels.images.resize import prepare_resize_bilinear, prepare_resize_nearest
from karat24.refimpl.kernels.moves.concatenation import prepare_concatenation
from karat24.refimpl.kernels.moves.copies import (
    prepare_broadcast_to,
    prepare_depth_to_space,
    prepare_gather,
    prepare_mirror_pad,
    prepare_pack,
    prepare_reshape,
    prepare_reverse,
    prepare_settled_reshape,
    prepare_shape,
    prepare_slice,
    prepare_space_to_depth,
    prepare_split,
    prepare_strided_slice,
    prepare_tile,
    prepare_transpose,
    prepare_unpack,
)
from karat24.refimpl.kernels.moves.padding import prepare_pad
from karat24.refimpl.kernels.onnx.addition import prepare_qlinear_add
from karat24.refimpl.kernels.onnx.average_pool import (
    prepare_qlinear_average_pool,
    prepare_qlinear_global_average_pool,
)
from karat24.refimpl.kernels.onnx.conv_transpose import prepare_conv_transpose
from karat24.refimpl.kernels.onnx.convolution import prepare_conv_integer, prepare_qlinear_conv
from karat24.refimpl.kernels.onnx.dynamic_matmul import prepare_dynamic_product
from karat24.refimpl.kernels.onnx.matmul import prepare_qlinear_matmul
from karat24.refimpl.kernels.onnx.pooling import prepare_max_pool_nchw
from karat24.refimpl.kernels.onnx.quantization import prepare_dequantize_linear, prepare_quantize_linear
from karat24.refimpl.kernels.onnx.resize import prepare_resize
from karat24.refimpl.kernels.onnx.softmax import prepare_qlinear_softmax
from karat24.refimpl.kernels.onnx.tables import (
    prepare_concat,
    prepare_qlinear_concat,
    prepare_qlinear_leaky_relu,
    prepare_qlinear_mul,
)
from karat24.refimpl.kernels.reductions.l2_normalization import prepare_l2_normalization
from karat24.refimpl.kernels.reductions.reduction import prepare_arg_max, prepare_mean
from karat24.refimpl.kernels.reductions.softmax import prepare_softmax
from karat24.refimpl.profiles.rules import Rule

__all__ = ["KERNELS"]


def _of_bytes(prepare: Prepare) -> Prepare:
    """``prepare`` for layers without int16 and int4 tensors, which its kernel was not written for."""

    def prepared(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
        tensors = (*view.inputs, *view.outputs)
        if any(tensor is not None and tensor.dtype in ("int16", "int4") for tensor in tensors):
            return None
        return prepare(view, rule, target)

    return prepared


def _filtered(of_bytes: Prepare) -> Prepare:
    """Of a layer that multiplies by a filter: ``of_bytes``, or the kernel for outputs of its other types."""

    def prepared(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
        prepare = _OF_OTHERS.get(view.output().dtype, _of_bytes(of_bytes))
        return prepare(view, rule, target)

    return prepared


_OF_OTHERS: Mapping[str, Prepare] = {"int16": prepare_wide_convolution, "float32": prepare_hybrid}


KERNELS: Mapping[str, Prepare] = MappingProxyType(
    {
        "ADD": _of_bytes(prepare_add),
        "ARG_MAX": prepare_arg_max,
        "ARG_MIN": prepare_arg_max,
        "AVERAGE_POOL_2D": _of_bytes(prepare_average_pool),
        "BROADCAST_TO": prepare_broadcast_to,
        "CAST": prepare_cast,
        "CONCATENATION": prepare_concatenation,
        "CONV_2D": _filtered(prepare_convolution),
        "DEPTHWISE_CONV_2D": _filtered(prepare_depthwise),
        "DEPTH_TO_SPACE": prepare_depth_to_space,
        "DEQUANTIZE": prepare_dequantize,
        "EXPAND_DIMS": prepare_reshape,
        "FILL": prepare_broadcast_to,
        "FULLY_CONNECTED": _filtered(prepare_fully_connected),
        "GATHER": prepare_gather,
        "HARD_SWISH": prepare_hard_swish,
        "L2_NORMALIZATION": prepare_l2_normalization,
        "LEAKY_RELU": _of_bytes(prepare_leaky_relu),
        "LOGISTIC": _of_bytes(prepare_logistic),
        "MAXIMUM": prepare_minimum,
        "MAX_POOL_2D": _of_bytes(prepare_max_pool),
        "MEAN": _of_bytes(prepare_mean),
        "MINIMUM": prepare_minimum,
        "MIRROR_PAD": prepare_mirror_pad,
        "MUL": _of_bytes(prepare_mul),
        "PACK": prepare_pack,
        "PAD": prepare_pad,
        "PADV2": prepare_pad,
        "PRELU": _of_bytes(prepare_prelu),
        "QUANTIZE": _of_bytes(prepare_quantize),
        "RELU": _of_bytes(prepare_relu),
        "RELU6": _of_bytes(prepare_relu),
        "RELU_N1_TO_1": _of_bytes(prepare_relu),
        "RESHAPE": prepare_reshape,
        "RESIZE_BILINEAR": _of_bytes(prepare_resize_bilinear),
        "RESIZE_NEAREST_NEIGHBOR": prepare_resize_nearest,
        "REVERSE_V2": prepare_reverse,
        "SHAPE": prepare_shape,
        "SLICE": prepare_slice,
        "SOFTMAX": _of_bytes(prepare_softmax),
        "SPACE_TO_DEPTH": prepare_space_to_depth,
        "SPLIT": prepare_split,
        "SPLIT_V": prepare_split,
        "SQUEEZE": prepare_reshape,
        "STRIDED_SLICE": prepare_strided_slice,
        "SUB": _of_bytes(prepare_sub),
        "TANH": _of_bytes(prepare_tanh),
        "TILE": prepare_tile,
        "TRANSPOSE": prepare_transpose,
        "TRANSPOSE_CONV": _filtered(prepare_transposed),
        "UNPACK": prepare_unpack,
        "Concat": prepare_concat,
        "ConvInteger": prepare_conv_integer,
        "ConvTranspose": prepare_conv_transpose,
        "DequantizeLinear": prepare_dequantize_linear,
        "Flatten": prepare_settled_reshape,
        "Identity": prepare_settled_reshape,
        "MatMulInteger": prepare_dynamic_product,
        "MaxPool": prepare_max_pool_nchw,
        "QLinearConv": prepare_qlinear_conv,
        "QLinearMatMul": prepare_qlinear_matmul,
        "QuantizeLinear": prepare_quantize_linear,
        "Reshape": prepare_settled_reshape,
        "Resize": prepare_resize,
        "Squeeze": prepare_settled_reshape,
        "Unsqueeze": prepare_settled_reshape,
        "com.microsoft:DequantizeLinear": prepare_dequantize_linear,
        "com.microsoft:DynamicQuantizeMatMul": prepare_dynamic_product,
        "com.microsoft:MatMulIntegerToFloat": prepare_dynamic_product,
        "com.microsoft:QGemm": prepare_qlinear_matmul,
        "com.microsoft:QLinearAdd": prepare_qlinear_add,
        "com.microsoft:QLinearAveragePool": prepare_qlinear_average_pool,
        "com.microsoft:QLinearConcat": prepare_qlinear_concat,
        "com.microsoft:QLinearGlobalAveragePool": prepare_qlinear_global_average_pool,
        "com.microsoft:QLinearLeakyRelu": prepare_qlinear_leaky_relu,
        "com.microsoft:QLinearMul": prepare_qlinear_mul,
        "com.microsoft:QLinearSoftmax": prepare_qlinear_softmax,
        "com.microsoft:QuantizeLinear": prepare_quantize_linear,
    }
)
"""Op name to the function that prepares its kernel; an op missing here runs its spec."""
