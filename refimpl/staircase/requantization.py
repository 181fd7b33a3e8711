"""The last step of an accumulating layer by itself: int32 accumulators in, quantized outputs out.

What is computed is the spec's own code, so what is derived from it is as true as the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.spec.onnx import qgemm, qlinear_conv, qlinear_matmul
from karat24.refimpl.spec.shared.primitives import INT32_MAX, INT32_MIN, quantize_multipliers
from karat24.refimpl.spec.tflite.weights import effective_multipliers, requantized


class Operands(NamedTuple):
    """Input positions of an accumulating op's data, filter and bias; the filter's axis of output channels
    (-1: the last one) and the output's."""

    data: int
    filter: int
    bias: int
    filter_axis: int
    output_axis: int


ACCUMULATING: Mapping[str, Operands] = MappingProxyType(
    {
        "CONV_2D": Operands(0, 1, 2, 0, -1),
        "DEPTHWISE_CONV_2D": Operands(0, 1, 2, 3, -1),
        "FULLY_CONNECTED": Operands(0, 1, 2, 0, -1),
        "TRANSPOSE_CONV": Operands(2, 1, 3, 0, -1),
        "QLinearConv": Operands(0, 3, 8, 0, 1),
        "QLinearMatMul": Operands(0, 3, 9, -1, -1),
        "com.microsoft:QGemm": Operands(0, 3, 6, -1, -1),
    }
)
"""The ops with int32 accumulators. QLinearMatMul has no bias: it never has an input 9."""

_ONNX: Mapping[str, Callable[[LayerView, Array, Rule], Array]] = MappingProxyType(
    {
        "QLinearConv": lambda view, acc, rule: qlinear_conv.requantized_convolution(
            view, acc[..., np.newaxis, np.newaxis], rule
        )[..., 0, 0],
        "QLinearMatMul": qlinear_matmul.requantized_product,
        "com.microsoft:QGemm": qgemm.requantized_gemm,
    }
)

_ONNX_MULTIPLIERS: Mapping[str, Callable[[LayerView, Rule], Array]] = MappingProxyType(
    {
        "QLinearConv": qlinear_conv.effective_multipliers,
        "QLinearMatMul": qlinear_matmul.effective_multipliers,
        "com.microsoft:QGemm": qgemm.effective_multipliers,
    }
)


_ZERO_POINTS = 256
"""More than any zero point of 8 bits."""


@dataclass(frozen=True, eq=False)
class Requantization:
    """How one layer makes outputs of accumulators, whatever the method.

    ``low`` and ``high`` bound the output's element type; a fused activation may leave less.
    """

    view: LayerView
    rule: Rule
    channels: int
    low: int
    high: int

    def __call__(self, acc: Array, method: Method) -> Array:
        """Accumulators int64 ``[any, channel]`` as outputs, int64 of that shape, rounded by ``method``."""
        rule = replace(self.rule, method=method, tail=None, block=0, block_axis="none")
        compute = _ONNX.get(self.view.op)
        if compute is not None:
            return compute(self.view, acc, rule)
        operands = ACCUMULATING[self.view.op]
        data, filter_ = self.view.input(operands.data), self.view.input(operands.filter)
        return requantized(self.view, data, filter_, acc, rule)

    def defined(self, method: Method) -> tuple[Array, Array]:
        """Lowest and highest accumulator, int64 ``[channel]``, at which ``method`` is monotone.

        ``gemmlowp``, ``ruy`` and ``single_rounding`` shift an accumulator left, modulo 2^32, before they
        multiply when the multiplier is large; beyond these bounds the sign changes. A float64 product
        beyond int32 becomes -2^31, or the nearest int32, and the zero point is added modulo 2^32.
        """
        lowest = np.full(self.channels, INT32_MIN, np.int64)
        highest = np.full(self.channels, INT32_MAX, np.int64)
        if method in ("gemmlowp", "ruy", "single_rounding"):
            _, shift = quantize_multipliers(self._multipliers())
            more = 1 if method == "single_rounding" else 0
            left = np.maximum(np.broadcast_to(shift, self.channels) + more, 0)
            lowest, highest = lowest >> left, highest >> left
        elif method in ("float64_half_away", "float64_saturating"):
            held = (INT32_MAX - _ZERO_POINTS) / np.maximum(np.asarray(self._multipliers(), np.float64), 0.5)
            held = np.broadcast_to(held.astype(np.int64), self.channels)
            lowest, highest = np.maximum(lowest, -held), np.minimum(highest, held)
        return lowest, highest

    def _multipliers(self) -> Array:
        """``s_in * s_filter / s_out`` as the rule evaluates it, one or one per channel."""
        if self.view.op in _ONNX_MULTIPLIERS:
            return _ONNX_MULTIPLIERS[self.view.op](self.view, self.rule)
        operands = ACCUMULATING[self.view.op]
        data, filter_ = self.view.input(operands.data), self.view.input(operands.filter)
        return effective_multipliers(data, filter_, self.view.output(), self.rule)


def requantization(view: LayerView, rule: Rule) -> Requantization | None:
    """The layer's requantization under ``rule``; None where it has no accumulators or a float32 output."""
    output = view.output() if view.outputs else None
    if view.op not in ACCUMULATING or output is None or output.dtype not in ("int8", "uint8"):
        return None
    low, high = QUANTIZED_RANGE[output.dtype]
    return Requantization(view, rule, output.shape[ACCUMULATING[view.op].output_axis], low, high)
