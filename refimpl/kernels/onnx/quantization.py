"""QuantizeLinear and DequantizeLinear between float32 and bytes, with one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import full_range
from karat24.refimpl.kernels.elementwise.quantize import scale_bytes
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes
from karat24.refimpl.kernels.jit.wrapping_int32 import add32
from karat24.refimpl.kernels.onnx.images import elementwise
from karat24.refimpl.kernels.onnx.parameters import has_one_constant_scale, parameters
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

_BYTES = ("int8", "uint8")

_ELEMENTS_PER_STEP = 4
"""Elements computed in the time of an elementary step of other loops."""


def prepare_quantize_linear(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QuantizeLinear: ``rint(x / scale)``, bounded, plus the zero point; a NaN gives the lowest."""
    output = view.output()
    if (
        output.dtype not in _BYTES
        or view.input(1).dtype != "float32"
        or not has_one_constant_scale(view, 1, 2)
    ):
        return None
    given = parameters(view, 1, 2)
    scale, zero_point = np.float32(given.scales[0]), given.zero_points[0]
    low, high = (np.float32(bound - zero_point) for bound in full_range(output.dtype))

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = buffer(inputs, 0).reshape(-1), flat_bytes(outputs[0])
        return values, scale, low, high, np.int32(zero_point), out

    size = math.prod(output.shape)
    return elementwise(LoopKernel(size // _ELEMENTS_PER_STEP, size, quantize_half_even, arguments), 0)


def prepare_dequantize_linear(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """DequantizeLinear: ``float32(q - zero point) * scale``."""
    data = view.input(0)
    if data.dtype not in _BYTES or not has_one_constant_scale(view, 1, 2):
        return None
    given = parameters(view, 1, 2)
    flip = 128 if data.dtype == "int8" else 0
    offset, scale = np.int32(flip + given.zero_points[0]), np.float32(given.scales[0])

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        return flat_bytes(buffer(inputs, 0)), np.uint8(flip), offset, scale, outputs[0].reshape(-1)

    size = math.prod(data.shape)
    return elementwise(LoopKernel(size // _ELEMENTS_PER_STEP, size, scale_bytes, arguments), 0)


@task_loop
def quantize_half_even(
    values: Any, scale: Any, low: Any, high: Any, zero_point: Any, out: Any, begin: int, end: int
) -> None:
    """Elements ``begin`` … ``end - 1``; ``low`` and ``high`` bound the steps before ``zero_point``."""
    source, target = values[begin:end], out[begin:end]
    for i in range(target.size):
        steps = source[i] / scale
        steps = steps if steps > low else low  # a NaN, too
        steps = steps if steps < high else high
        target[i] = np.uint8(add32(np.int32(np.rint(steps)), zero_point))
