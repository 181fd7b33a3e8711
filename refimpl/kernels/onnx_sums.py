"""QLinearConv, ConvInteger, QLinearMatMul, QGemm and MaxPool on the compiled NHWC loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from refimpl.contract import Kernel, Target, Values
from refimpl.graph import DTYPES, Array, LayerView, Tensor
from refimpl.kernels.conv_2d import prepare_convolution
from refimpl.kernels.depthwise import prepare_depthwise
from refimpl.kernels.fully_connected import prepare_fully_connected
from refimpl.kernels.lookup import operand
from refimpl.kernels.onnx_translation import (
    Parameters,
    converted,
    filter_tensor,
    lowest,
    nhwc_layer,
    parameters,
    tensor,
    window,
)
from refimpl.kernels.pooling import prepare_max_pool
from refimpl.profiles.rules import EXACT, Rule

WITHOUT_SCALE = Parameters((1.0,), (0,))
SUMS_ONLY = Rule("float32_half_even", "float32")


def prepare_qlinear_conv(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QLinearConv rounded in float32, with one zero point for the whole filter."""
    if rule.method != "float32_half_even" or rule.accumulation != "exact":
        return None
    if len(view.input(0).shape) == 3:
        return _over_one_axis(view, rule, target)
    data, filters, output = parameters(view, 1, 2), parameters(view, 4, 5), parameters(view, 6, 7)
    if filters.one_zero_point is None:
        return None
    return _convolution(view, rule, target, 3, 8, (data, filters, output), view.output().dtype)


def _over_one_axis(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """The convolution of a picture of one row, whose arrays have one axis more."""
    wide = {
        name: (0, values[0], 0, values[1]) if name == "pads" else (1, *values)
        for name in ("kernel_shape", "strides", "dilations", "pads")
        if (values := view.integers(name, ()))
    }
    layer = dataclasses.replace(view.layer, attributes={**view.layer.attributes, **wide})
    tensors = tuple(_one_row(t) if i in (0, 3) else t for i, t in enumerate(view.inputs))
    output = _one_row(view.output())
    assert output is not None
    prepared = prepare_qlinear_conv(LayerView(layer, tensors, (output,)), rule, target)
    if prepared is None:
        return None
    shape = output.shape

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        rows = [operand(inputs, 0)[:, :, None, :], *inputs[1:]]
        sums = None if accumulator is None else accumulator.reshape(shape)
        prepared(rows, [outputs[0].reshape(shape)], sums)

    return run


def _one_row(given: Tensor | None) -> Tensor | None:
    """``[batch, channel, x]`` as ``[batch, channel, 1, x]``."""
    if given is None:
        return None
    data = None if given.data is None else given.data[:, :, None, :]
    shape = (*given.shape[:2], 1, given.shape[2])
    return dataclasses.replace(given, shape=shape, data=data, shape_signature=None)


def prepare_conv_integer(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """ConvInteger of a constant filter with one zero point: the accumulators of a convolution."""
    if rule.accumulation != "exact" or view.input(1).data is None:
        return None
    data, filters = _zero_points(view, 2), _zero_points(view, 3)
    if filters.one_zero_point is None:
        return None
    filters = Parameters((1.0,), filters.zero_points[:1])
    return _convolution(view, SUMS_ONLY, target, 1, 4, (data, filters, WITHOUT_SCALE), "int8")


def _zero_points(view: LayerView, position: int) -> Parameters:
    stored = view.optional_input(position)
    if stored is None or stored.data is None:
        return WITHOUT_SCALE
    zeros = tuple(int(value) for value in stored.data.reshape(-1))
    return Parameters((1.0,) * len(zeros), zeros)


def _convolution(
    view: LayerView,
    rule: Rule,
    target: Target,
    filter_position: int,
    bias_position: int,
    given: tuple[Parameters, Parameters, Parameters],
    dtype: str,
) -> Kernel:
    """The NHWC convolution, dense or depthwise, behind a change of layout."""
    weights = view.input(filter_position).data
    assert weights is not None
    filters, _, *kernel = weights.shape
    over = window(view, (kernel[0], kernel[1]))
    batch, channels = view.input(0).shape[:2]
    groups = view.integer("group", 1)
    depthwise = groups == channels and groups > 1
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    stored = np.ascontiguousarray(weights.transpose(order))
    bias = view.optional_input(bias_position)
    attributes: dict[str, str | int] = {
        "padding": "VALID",
        "stride_h": over.strides[0],
        "stride_w": over.strides[1],
        "dilation_h_factor": over.dilations[0],
        "dilation_w_factor": over.dilations[1],
        "fused_activation_function": "NONE",
    }
    _, _, height, width = view.output().shape
    output = tensor(3, (batch, height, width, filters), dtype, given[2])
    inputs: list[Tensor | None] = [
        tensor(0, (batch, *over.padded, channels), view.input(0).dtype, given[0]),
        filter_tensor(stored, given[1], 3 if depthwise else 0),
    ]
    if bias is not None and bias.data is not None:
        inputs.append(tensor(2, bias.shape, "int32", None, bias.data))
    if depthwise:
        layer = nhwc_layer(
            "DEPTHWISE_CONV_2D", inputs, output, {**attributes, "depth_multiplier": filters // groups}
        )
        prepared = prepare_depthwise(layer, rule, target)
    else:
        prepared = prepare_convolution(nhwc_layer("CONV_2D", inputs, output, attributes), rule, target)
    return converted(prepared, over, given[0].zero_points[0], output)


def prepare_qlinear_matmul(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QLinearMatMul by a constant matrix, and QGemm with a bias per column: a fully connected layer."""
    gemm = view.op.endswith("QGemm")
    matrix, output = view.input(3).data, view.output()
    if rule.method != "float32_half_even" or rule.accumulation != "exact" or output.dtype == "float32":
        return None
    bias = view.optional_input(6) if gemm else None
    if matrix is None or matrix.ndim != 2 or view.integer("transA", 0):
        return None
    columns = output.shape[-1]
    if bias is not None and bias.shape != (columns,):
        return None
    left, right = parameters(view, 1, 2), parameters(view, 4, 5)
    result = parameters(view, *((7, 8) if gemm else (6, 7)))
    if right.one_zero_point is None:
        return None
    if gemm:
        alpha = np.float32(view.real("alpha", 1.0)) * np.float32(left.scales[0])
        if not (np.isfinite(alpha) and alpha > 0):
            return None
        left = Parameters((float(alpha),), left.zero_points)
    rows_of_columns = np.ascontiguousarray(matrix if gemm and view.integer("transB", 0) else matrix.T)
    depth = rows_of_columns.shape[1]
    rows = int(np.prod(view.input(0).shape)) // depth
    inputs: list[Tensor | None] = [
        tensor(0, (rows, depth), view.input(0).dtype, left),
        filter_tensor(rows_of_columns, right, 0),
    ]
    if bias is not None and bias.data is not None:
        inputs.append(tensor(2, bias.shape, "int32", None, bias.data))
    layer = nhwc_layer(
        "FULLY_CONNECTED", inputs, tensor(3, (rows, columns), output.dtype, result),
        {"fused_activation_function": "NONE", "keep_num_dims": False, "weights_format": "DEFAULT"},
    )  # fmt: skip
    prepared = prepare_fully_connected(layer, rule, target)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        data = operand(inputs, 0).reshape(rows, depth)
        sums = None if accumulator is None else accumulator.reshape(rows, columns)
        prepared([data], [outputs[0].reshape(rows, columns)], sums)

    return run


def prepare_max_pool_nchw(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """MaxPool of int8 and uint8; the padding is the least value there is."""
    data, output = view.input(0), view.output()
    if output.dtype not in ("int8", "uint8") or view.integers("dilations", (1, 1)) != (1, 1):
        return None
    kernel = view.integers("kernel_shape")
    over = window(view, (kernel[0], kernel[1]))
    batch, channels, height, width = output.shape
    result = tensor(1, (batch, height, width, channels), output.dtype)
    layer = nhwc_layer(
        "MAX_POOL_2D", [tensor(0, (batch, *over.padded, channels), data.dtype)], result,
        {
            "padding": "VALID", "stride_h": over.strides[0], "stride_w": over.strides[1],
            "filter_height": kernel[0], "filter_width": kernel[1], "fused_activation_function": "NONE",
        },
    )  # fmt: skip
    assert DTYPES[output.dtype].itemsize == 1
    return converted(prepare_max_pool(layer, EXACT, target), over, lowest(data.dtype), result)
