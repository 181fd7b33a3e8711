"""QLinearMatMul and QGemm, by the fully connected layer."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import Kernel, Target
from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.kernels.convolution.fully_connected import prepare_fully_connected
from karat24.refimpl.kernels.onnx.images import filter_tensor, nhwc_layer, tensor
from karat24.refimpl.kernels.onnx.parameters import Parameters, parameters
from karat24.refimpl.profiles.rules import Rule


def prepare_qlinear_matmul(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QLinearMatMul by a constant matrix, and QGemm with a bias per column.

    The kernel reads and writes flat bytes, so the shapes of data and output do not matter to it.
    """
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
    return prepare_fully_connected(layer, rule, target)
