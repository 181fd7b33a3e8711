"""ONNX layers as the NHWC layers the compiled loops were written for.

Values change layout on the way in and out, which is a copy a convolution hardly notices; padding is
written into that copy, so the loops see a window that fits everywhere ("VALID").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refimpl.contract import Kernel, Values
from refimpl.graph import (
    DTYPES,
    QUANTIZED_RANGE,
    Array,
    AttributeValue,
    Layer,
    LayerView,
    Quantization,
    Tensor,
)
from refimpl.kernels.jit.operands import operand

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


@dataclass(frozen=True)
class Parameters:
    """Scales and zero points a node has as inputs, as numbers."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

    @property
    def one_zero_point(self) -> int | None:
        """The zero point of every channel, or None where they differ."""
        return self.zero_points[0] if len(set(self.zero_points)) == 1 else None


def parameters(view: LayerView, scale: int, zero_point: int) -> Parameters:
    """Of the tensor whose scale and zero point are those inputs; the op's check has found them constant."""
    scales = view.input(scale).data
    assert scales is not None
    values = tuple(float(value) for value in scales.reshape(-1))
    stored = view.optional_input(zero_point)
    if stored is None or stored.data is None:
        return Parameters(values, (0,) * len(values))
    zeros = np.broadcast_to(stored.data.reshape(-1), len(values))
    return Parameters(values, tuple(int(value) for value in zeros))


def nhwc_layer(
    op: str,
    inputs: Sequence[Tensor | None],
    output: Tensor,
    attributes: Mapping[str, AttributeValue],
) -> LayerView:
    """A layer in TFLite's words over tensors made here."""
    indices = tuple(-1 if tensor is None else tensor.index for tensor in inputs)
    return LayerView(Layer(0, op, indices, (output.index,), attributes), tuple(inputs), (output,))


def tensor(
    index: int, shape: Sequence[int], dtype: str, given: Parameters | None = None, data: Array | None = None
) -> Tensor:
    """A tensor of such a layer, quantized per tensor when ``given`` says how."""
    quantization = None
    if given is not None:
        quantization = Quantization(given.scales, given.zero_points)
    return Tensor(index, f"nhwc{index}", tuple(int(n) for n in shape), dtype, quantization, data)


def filter_tensor(stored: Array, given: Parameters, axis: int) -> Tensor:
    """A filter with one scale, or one per index of ``axis``."""
    quantization = Quantization(given.scales, given.zero_points, axis if len(given.scales) > 1 else 0)
    return Tensor(1, "filter", stored.shape, stored.dtype.name, quantization, stored)


@dataclass(frozen=True)
class Window:
    """A window on NCHW images, one number per spatial axis, every padding worked out."""

    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    padded: tuple[int, int]
    """Height and width of the image with just the padding that windows reach."""


def window(view: LayerView, kernel: tuple[int, int]) -> Window:
    """From ``strides``, ``dilations``, ``pads``, ``auto_pad`` and the sizes of image and output."""
    image, output = view.input(0).shape[2:], view.output().shape[2:]
    strides, dilations = view.integers("strides", (1, 1)), view.integers("dilations", (1, 1))
    pads, auto_pad = view.integers("pads", (0, 0, 0, 0)), view.text("auto_pad", "NOTSET")
    before, padded = [], []
    for axis in (0, 1):
        reach = (output[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        first = pads[axis] if auto_pad == "NOTSET" else 0
        if auto_pad.startswith("SAME"):
            total = max(reach - image[axis], 0)
            first = (total + 1) // 2 if auto_pad == "SAME_LOWER" else total // 2
        before.append(first)
        padded.append(reach)
    return Window(
        (strides[0], strides[1]), (dilations[0], dilations[1]), (before[0], before[1]), (padded[0], padded[1])
    )


def to_nhwc(image: Array, over: Window, fill: int) -> Array:
    """``[batch, channel, y, x]`` as ``[batch, y, x, channel]``, padded with ``fill`` or cut to fit."""
    batch, channels, height, width = image.shape
    result = np.full((batch, *over.padded, channels), fill, image.dtype)
    top, left = over.before
    rows, columns = min(height, over.padded[0] - top), min(width, over.padded[1] - left)
    inner = image[:, :, :rows, :columns].transpose(TO_NHWC)
    result[:, top : top + rows, left : left + columns] = inner
    return result


def converted(kernel: Kernel, over: Window, fill: int, output: Tensor) -> Kernel:
    """``kernel``, which works on NHWC, for a layer on NCHW; an int32 output gets the accumulators."""

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        data = to_nhwc(operand(inputs, 0), over, fill)
        result = np.empty(output.shape, DTYPES[output.dtype])
        whole = outputs[0].dtype == np.int32
        sums = np.empty(output.shape, np.int32) if whole or accumulator is not None else None
        kernel([data], [result], sums)
        if accumulator is not None and sums is not None:
            accumulator[...] = sums.transpose(TO_NCHW)
        taken = result if sums is None or not whole else sums
        outputs[0][...] = taken.transpose(TO_NCHW)

    return run


def lowest(dtype: str) -> int:
    """The least value of an element type."""
    return QUANTIZED_RANGE[dtype][0]
