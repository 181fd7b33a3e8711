"""QLinearConv and ConvInteger, by the NHWC convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.kernels.convolution.base import AccumulatingKernel
from karat24.refimpl.kernels.convolution.conv_2d import prepare_padded_convolution
from karat24.refimpl.kernels.depthwise.convolution import prepare_padded_depthwise
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.onnx.images import ImageKernel, filter_tensor, nhwc_layer, tensor
from karat24.refimpl.kernels.onnx.one_axis import prepare_one_row
from karat24.refimpl.kernels.onnx.parameters import Parameters, parameters, window
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks
from karat24.refimpl.profiles.rules import Rule

WITHOUT_SCALE = Parameters((1.0,), (0,))
SUMS_ONLY = Rule("float32_half_even", "float32")


@dataclass(frozen=True)
class AccumulatorsOf(TaskKernel):
    """A convolution whose int32 output is the accumulators of ``kernel``."""

    kernel: AccumulatingKernel

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return self.kernel.function

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays; requantized values go to memory of their own."""
        return self.kernel.tasks(inputs, [np.empty(outputs[0].shape, np.int8)], outputs[0])


def prepare_qlinear_conv(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QLinearConv rounded in float32, with one zero point for the whole filter."""
    if rule.method != "float32_half_even" or rule.accumulation != "exact":
        return None
    if len(view.input(0).shape) == 3:
        return prepare_one_row(prepare_qlinear_conv, view, rule, target)
    data, filters, output = parameters(view, 1, 2), parameters(view, 4, 5), parameters(view, 6, 7)
    if filters.one_zero_point is None or len(view.input(0).shape) != 4:
        return None
    given, dtype = (data, filters, output), view.output().dtype
    return ImageKernel(_convolution(view, rule, target, (3, 8), given, dtype), (0,))


@dataclass(frozen=True)
class WithComputedZeroPoint:
    """ConvInteger of an image whose zero point, input 2, is only known when the layer runs.

    ``sum (x - zp) (w - zw) = sum x (w - zw) - zp sum 1 (w - zw)`` over the taps inside the image, modulo
    2^32. ``kernel``, prepared with zero point 0, computes both sums: of the image, and of one of ``ones``.
    """

    kernel: ImageKernel
    ones: Array
    shape: tuple[int, ...]

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer; its outputs are its accumulators."""
        self.kernel(inputs, outputs, accumulator)
        zero_point = operand(inputs, 2).reshape(-1)[:1].astype(np.int32)
        outputs[0][...] -= zero_point * self._of_ones

    @cached_property
    def _of_ones(self) -> Array:
        sums = np.empty(self.shape, np.int32)
        self.kernel([self.ones], [sums], None)
        return sums


def prepare_conv_integer(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """ConvInteger of a constant filter with one zero point: the accumulators of a convolution."""
    of_filter = view.optional_input(3)
    computed = of_filter is not None and of_filter.data is None
    if rule.accumulation != "exact" or view.input(1).data is None or computed:
        return None
    if len(view.input(0).shape) == 3:
        return prepare_one_row(prepare_conv_integer, view, rule, target, 1)
    data, filters = _zero_points(view, 2), _zero_points(view, 3)
    if filters.one_zero_point is None or len(view.input(0).shape) != 4:
        return None
    given = (data, Parameters((1.0,), filters.zero_points[:1]), WITHOUT_SCALE)
    kernel = _convolution(view, SUMS_ONLY, target, (1, 4), given, "int8")
    sums = ImageKernel(AccumulatorsOf(kernel), (0,))
    of_image = view.optional_input(2)
    if of_image is None or of_image.data is not None:
        return sums
    image = view.input(0)
    return WithComputedZeroPoint(sums, np.ones(image.shape, image.dtype), view.output().shape)


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
    positions: tuple[int, int],
    given: tuple[Parameters, Parameters, Parameters],
    dtype: str,
) -> AccumulatingKernel:
    """The NHWC convolution, dense or depthwise, that reads the layer's image.

    ``positions`` are the inputs that hold filter and bias; ``given`` belongs to image, filter and output.
    """
    weights, bias = view.input(positions[0]).data, view.optional_input(positions[1])
    assert weights is not None
    filters, _, *kernel = weights.shape
    over = window(view, (kernel[0], kernel[1]))
    batch, channels, in_height, in_width = view.input(0).shape
    _, _, height, width = view.output().shape
    groups = view.integer("group", 1)
    depthwise = groups == channels and groups > 1
    stored = np.ascontiguousarray(weights.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)))
    attributes: dict[str, str | int] = {
        "stride_h": over.strides[0],
        "stride_w": over.strides[1],
        "dilation_h_factor": over.dilations[0],
        "dilation_w_factor": over.dilations[1],
        "fused_activation_function": "NONE",
    }
    output = tensor(3, (batch, height, width, filters), dtype, given[2])
    inputs: list[Tensor | None] = [
        tensor(0, (batch, in_height, in_width, channels), view.input(0).dtype, given[0]),
        filter_tensor(stored, given[1], 3 if depthwise else 0),
    ]
    if bias is not None and bias.data is not None:
        inputs.append(tensor(2, bias.shape, "int32", None, bias.data))
    if depthwise:
        attributes["depth_multiplier"] = filters // groups
        layer = nhwc_layer("DEPTHWISE_CONV_2D", inputs, output, attributes)
        return prepare_padded_depthwise(layer, rule, target, over.before)
    layer = nhwc_layer("CONV_2D", inputs, output, attributes)
    return prepare_padded_convolution(layer, rule, target, over.before)
