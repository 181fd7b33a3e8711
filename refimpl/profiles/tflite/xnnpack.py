"""Which layers LiteRT 2.3's XNNPACK delegate takes; the rest run on the builtin kernels.

Established by experiment: for every condition below, models on both sides of it
were given to LiteRT 2.3.0 (x86-64), and ``_get_ops_details`` said which nodes
were delegated. A layer that is taken is not always one XNNPACK can run: a
convolution whose multiplier is 256 or more, an int8 CONV_2D filter with a zero
point other than 0, and a MAX_POOL_2D, RESIZE_BILINEAR or PAD whose output has other
quantization parameters than its input are taken, and then LiteRT refuses the
whole model ("TfLiteXNNPackDelegate failed to prepare").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.tflite.xnnpack_tensors import (
    MAX_RANK,
    SMALLEST_NORMAL,
    has_shape,
    integers,
    is_bias,
    is_filter,
    is_float,
    is_index_list,
    is_int4_filter,
    is_quantized_8,
    is_symmetric,
    is_value,
    product,
    ratio,
    same_dtype,
    same_parameters,
)


def xnnpack_takes(view: LayerView) -> bool:
    """True when LiteRT 2.3.0 hands this layer to XNNPACK (``_get_ops_details`` agrees).

    Answers for float layers as well. One case needs more than the layer: a
    DEQUANTIZE of a *constant* is taken only if all its readers are; it counts as taken.
    """
    condition = _TAKES.get(view.op)
    return condition is not None and condition(view)


def _clamps(view: LayerView) -> bool:
    """The fused activation is none or a clamp."""
    fused = view.text("fused_activation_function", "NONE")
    return fused in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


def _convolution(view: LayerView) -> bool:
    """CONV_2D and DEPTHWISE_CONV_2D: constant filter and bias, one element type throughout."""
    if len(view.inputs) != 3:
        return False
    image, filter_, output = view.input(0), view.input(1), view.output()
    axis = 0 if view.op == "CONV_2D" else 3
    if not (is_value(image, output) and is_filter(filter_, axis) and is_bias(view.optional_input(2))):
        return False
    if not (same_dtype(image, filter_, output) or _hybrid_convolution(view)) or not _clamps(view):
        return False
    if filter_.quantization is not None and filter_.quantization.per_channel and not is_symmetric(filter_):
        return False
    if not all(has_shape(tensor, 4, 4) for tensor in (image, filter_, output)):
        return False
    if view.op == "CONV_2D":
        return image.shape[3] >= filter_.shape[3]
    multiplier = view.integer("depth_multiplier", 1)
    return multiplier > 0 and filter_.shape[3] % multiplier == 0


def _hybrid_convolution(view: LayerView) -> bool:
    """A CONV_2D of float32 data with an int8 filter."""
    return view.op == "CONV_2D" and is_float(view.output()) and view.input(1).dtype == "int8"


def _transposed_convolution(view: LayerView) -> bool:
    if not 3 <= len(view.inputs) <= 4:
        return False
    output_shape, filter_, image, output = view.input(0), view.input(1), view.input(2), view.output()
    bias = view.optional_input(3)
    if not (is_value(image, output) and is_filter(filter_, 0)) or not (bias is None or is_bias(bias)):
        return False
    if not is_index_list(output_shape) or output_shape.shape != (4,) or not _clamps(view):
        return False
    if not all(has_shape(tensor, 4, 4) for tensor in (image, filter_, output)):
        return False
    for axis, stride_name in ((1, "stride_h"), (2, "stride_w")):
        size, kernel = integers(output_shape)[axis], filter_.shape[axis]
        stride = view.integer(stride_name)
        if view.text("padding") == "VALID":
            if kernel > size:
                return False
        elif -(-size // stride) != image.shape[axis] or kernel < stride:
            return False
    return True


def _fully_connected(view: LayerView) -> bool:
    if not 2 <= len(view.inputs) <= 3 or view.text("weights_format", "DEFAULT") != "DEFAULT":
        return False
    values, filter_, bias, output = view.input(0), view.input(1), view.optional_input(2), view.output()
    int4 = values.dtype == "int8" and is_int4_filter(filter_)
    if not (is_value(values, output) and (int4 or is_filter(filter_, 0)) and has_shape(filter_, 2, 2)):
        return False
    per_channel = filter_.quantization is not None and filter_.quantization.per_channel
    if filter_.dtype == "int8" and not per_channel and not is_symmetric(filter_):
        return False
    if bias is not None and not (is_bias(bias) and math.prod(bias.shape) == filter_.shape[0]):
        return False
    hybrid = is_float(values) and filter_.dtype == "int8"
    types = (values, output) if int4 or hybrid else (values, filter_, output)
    return same_dtype(*types) and _clamps(view)


def _batch_matmul(view: LayerView) -> bool:
    """BATCH_MATMUL: of int8 only where the second operand's zero point is 0; of float32 and int8."""
    if _hybrid_product(view):
        return True
    if not _two_tensors(view):
        return False
    return is_float(view.output()) or is_symmetric(view.input(1))


def _hybrid_product(view: LayerView) -> bool:
    """Of float32 and int8, the second operand with one scale or one per column."""
    filter_ = view.input(1)
    if not is_float(view.input(0), view.output()) or filter_.dtype != "int8" or filter_.quantization is None:
        return False
    columns = len(filter_.shape) - (2 if view.flag("adj_y") else 1)
    return not filter_.quantization.per_channel or filter_.quantization.axis == columns


def _two_tensors(view: LayerView) -> bool:
    tensors = (view.input(0), view.input(1), view.output())
    return len(view.inputs) == 2 and is_value(*tensors) and same_dtype(*tensors)


def _addition(view: LayerView) -> bool:
    """ADD and SUB: each input's scale over the output's within 2^-10 and below 2^8."""
    return _two_values(view) and (
        is_float(view.output())
        or all(2.0**-10 <= ratio(view.input(i).scale, view.output().scale) < 2.0**8 for i in (0, 1))
    )


def _multiplication(view: LayerView) -> bool:
    """MUL: the product of the scales over the output's within 2^-16 and below 2^8."""
    if not _two_values(view):
        return False
    if is_float(view.output()):
        return True
    scale = product(view.input(0).scale, view.input(1).scale)
    return 2.0**-16 <= ratio(scale, view.output().scale) < 2.0**8


def _two_values(view: LayerView) -> bool:
    return (
        _two_tensors(view)
        and all(has_shape(tensor) for tensor in (view.input(0), view.input(1)))
        and _clamps(view)
    )


def _float_only(view: LayerView) -> bool:
    return all(is_float(tensor) and has_shape(tensor) for tensor in (*view.inputs, *view.outputs) if tensor)


def _float_softmax(view: LayerView) -> bool:
    return _float_only(view) and view.real("beta", 1.0) == 1.0


def _one_value(view: LayerView) -> bool:
    return len(view.inputs) == 1 and is_value(view.input(0), view.output()) and has_shape(view.input(0))


def _elu(view: LayerView) -> bool:
    return _one_value(view) and "uint8" not in (view.input(0).dtype, view.output().dtype)


def _leaky_relu(view: LayerView) -> bool:
    alpha = float(np.float32(view.real("alpha")))
    if not _one_value(view) or not SMALLEST_NORMAL <= abs(alpha) < math.inf:
        return False
    if is_float(view.output()):
        return True
    positive = ratio(view.input(0).scale, view.output().scale)
    negative = product(positive, alpha)
    return 2.0**-8 <= positive <= 2.0**7 and abs(negative) >= 2.0**-8 and -127.99609375 <= negative <= 128.0


def _quantize(view: LayerView) -> bool:
    """From float32; or within one element type, scales in a ratio of 2^-8 to 2^7."""
    if not _one_value(view) or not is_quantized_8(view.output()):
        return False
    source, target = view.input(0), view.output()
    if is_float(source):
        return True
    return same_dtype(source, target) and 2.0**-8 <= ratio(source.scale, target.scale) <= 2.0**7


def _dequantize(view: LayerView) -> bool:
    return _one_value(view) and is_quantized_8(view.input(0)) and is_float(view.output())


def _max_pool(view: LayerView) -> bool:
    return len(view.inputs) == 1 and is_value(view.input(0), view.output()) and _pooling_window(view)


def _average_pool(view: LayerView) -> bool:
    return _float_only(view) and _pooling_window(view)


def _pooling_window(view: LayerView) -> bool:
    """Strides within the window (so a 1×1 window with a stride is out)."""
    return (
        1 <= view.integer("stride_w") <= view.integer("filter_width")
        and 1 <= view.integer("stride_h") <= view.integer("filter_height")
        and _clamps(view)
    )


def _reduction(view: LayerView) -> bool:
    if len(view.inputs) != 2 or not is_value(view.input(0), view.output()):
        return False
    axes = view.input(1)
    return axes.is_constant and axes.dtype == "int32" and len(axes.shape) <= 1 and math.prod(axes.shape) > 0


def _concatenation(view: LayerView) -> bool:
    """Two to five inputs; uint8 inputs share the output's parameters (int8 ones always do)."""
    if not 2 <= len(view.inputs) <= 5 or not is_value(*view.inputs, view.output()):
        return False
    if view.output().dtype != "uint8":
        return True
    return all(same_parameters(tensor, view.output()) for tensor in view.inputs if tensor is not None)


def _resize_bilinear(view: LayerView) -> bool:
    image, size = view.input(0), view.optional_input(1)
    return (
        is_value(image, view.output())
        and has_shape(image, 4, 4)
        and has_shape(view.output(), 4, 4)
        and is_index_list(size)
    )


def _pad(view: LayerView) -> bool:
    values, paddings = view.input(0), view.input(1)
    return (
        len(view.inputs) == 2
        and is_value(values, view.output())
        and has_shape(values, 1)
        and has_shape(view.output(), 1)
        and paddings.is_constant
        and paddings.dtype == "int32"
        and paddings.shape == (len(values.shape), 2)
        and min(integers(paddings)) >= 0
    )


def _reshape(view: LayerView) -> bool:
    values, output, shape = view.input(0), view.output(), view.optional_input(1)
    if not is_value(values, output) or not (has_shape(values) and has_shape(output)):
        return False
    if shape is not None and not (shape.is_constant and shape.dtype == "int32"):
        return False
    return same_dtype(values, output) and same_parameters(values, output)


def _transpose(view: LayerView) -> bool:
    permutation = view.input(1)
    return (
        is_value(view.input(0), view.output())
        and permutation.is_constant
        and math.prod(permutation.shape) <= MAX_RANK
    )


def _slice(view: LayerView) -> bool:
    begin, size = view.input(1), view.input(2)
    return (
        is_value(view.input(0), view.output())
        and is_index_list(begin, "int32", "int64")
        and is_index_list(size, "int32", "int64")
        and min(integers(size), default=0) > 0
    )


def _strided_slice(view: LayerView) -> bool:
    """Strides of one, no ellipsis, new axis or shrunk axis."""
    masks = (view.integer(name, 0) for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"))
    values, parameters = view.input(0), [view.input(position) for position in (1, 2, 3)]
    if any(masks) or not is_value(values, view.output()):
        return False
    if not all(is_index_list(tensor) and tensor.shape == (len(values.shape),) for tensor in parameters):
        return False
    return all(stride == 1 for stride in integers(parameters[2]))


def _split(view: LayerView) -> bool:
    axis = view.input(0)
    return (
        2 <= len(view.outputs) <= 4
        and axis.is_constant
        and axis.dtype == "int32"
        and is_value(view.input(1), *view.outputs)
    )


def _depth_to_space(view: LayerView) -> bool:
    return is_value(view.input(0), view.output()) and view.integer("block_size") > 1


def _space_to_depth(view: LayerView) -> bool:
    block = view.integer("block_size")
    image = view.input(0)
    return _depth_to_space(view) and image.shape[1] % block == 0 and image.shape[2] % block == 0


_FLOAT_ONLY = (
    "ABS", "CEIL", "COS", "DIV", "EXP", "FLOOR", "GELU", "HARD_SWISH", "MAXIMUM", "MINIMUM", "NEG", "RELU",
    "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SQRT", "SQUARE", "SQUARED_DIFFERENCE",
)  # fmt: skip

_TAKES: Mapping[str, Callable[[LayerView], bool]] = MappingProxyType(
    {
        **dict.fromkeys(_FLOAT_ONLY, _float_only),
        "ADD": _addition,
        "BATCH_MATMUL": _batch_matmul,
        "AVERAGE_POOL_2D": _average_pool,
        "CONCATENATION": _concatenation,
        "CONV_2D": _convolution,
        "DEPTHWISE_CONV_2D": _convolution,
        "DEPTH_TO_SPACE": _depth_to_space,
        "DEQUANTIZE": _dequantize,
        "ELU": _elu,
        "FULLY_CONNECTED": _fully_connected,
        "LEAKY_RELU": _leaky_relu,
        "LOGISTIC": _one_value,
        "MAX_POOL_2D": _max_pool,
        "MEAN": _reduction,
        "MUL": _multiplication,
        "PAD": _pad,
        "PRELU": _float_only,
        "QUANTIZE": _quantize,
        "REDUCE_MAX": _reduction,
        "REDUCE_MIN": _reduction,
        "RESHAPE": _reshape,
        "RESIZE_BILINEAR": _resize_bilinear,
        "SLICE": _slice,
        "SOFTMAX": _float_softmax,
        "SPACE_TO_DEPTH": _space_to_depth,
        "SPLIT": _split,
        "STRIDED_SLICE": _strided_slice,
        "SUB": _addition,
        "SUM": _reduction,
        "TANH": _one_value,
        "TRANSPOSE": _transpose,
        "TRANSPOSE_CONV": _transposed_convolution,
    }
)
"""Per op, the condition under which LiteRT delegates it."""
