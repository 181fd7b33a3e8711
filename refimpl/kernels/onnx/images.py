"""ONNX layers on NCHW images, by kernels that work on NHWC ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.contract import Kernel, Values
from karat24.refimpl.graph import Array, AttributeValue, Layer, LayerView, Quantization, Tensor
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.moves.image_layout import TO_NCHW, TO_NHWC
from karat24.refimpl.kernels.onnx.parameters import Parameters


@dataclass(frozen=True)
class ImageKernel:
    """A layer that ``nhwc`` computes on NHWC images, and ``nchw`` on NCHW ones where that is as fast.

    Both read the layer's inputs at ``positions`` only. By itself, the layer reads and writes NCHW.
    """

    nhwc: Kernel
    positions: tuple[int, ...]
    nchw: Kernel | None = None

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        read = [operand(inputs, position) for position in self.positions]
        if self.nchw is not None:
            self.nchw(read, outputs, accumulator)
            return
        images = [np.ascontiguousarray(image.transpose(TO_NHWC)) for image in read]
        results = [_empty_nhwc(output) for output in outputs]
        sums = None if accumulator is None else _empty_nhwc(accumulator)
        self.nhwc(images, results, sums)
        for output, result in zip(outputs, results, strict=True):
            output[...] = result.transpose(TO_NCHW)
        if accumulator is not None and sums is not None:
            accumulator[...] = sums.transpose(TO_NCHW)


def elementwise(kernel: Kernel, *positions: int) -> ImageKernel:
    """A layer whose kernel works on any layout, reading the inputs at ``positions``."""
    return ImageKernel(kernel, positions, kernel)


def _empty_nhwc(image: Array) -> Array:
    return np.empty(tuple(image.shape[axis] for axis in TO_NHWC), image.dtype)


# ---- layers with TFLite's ops and attributes, for which the NHWC kernels are prepared


def nhwc_layer(
    op: str,
    inputs: Sequence[Tensor | None],
    output: Tensor,
    attributes: Mapping[str, AttributeValue],
) -> LayerView:
    """A layer with TFLite's op and attributes over tensors made here."""
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
