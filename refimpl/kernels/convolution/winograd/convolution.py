"""3x3 convolutions by Winograd's transforms, exactly: a quarter of the products, of int16.

A task takes neighbouring tiles of 4x4 outputs (``winograd.transforms``). Their inputs, copied to a patch
where they reach beyond the image, are transformed and multiplied with the filters point by point. The sums
are transformed back, a row of tiles at a time, and requantized as any convolution's are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Border, MaxPool2x2, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.convolution.base import AccumulatingKernel
from karat24.refimpl.kernels.convolution.dense import centred_filter
from karat24.refimpl.kernels.convolution.patches import ByteToElement, byte_to_element
from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from karat24.refimpl.kernels.convolution.tiling import steps_of
from karat24.refimpl.kernels.convolution.winograd.grid import (
    PRODUCTS_SAVED,
    WinogradGrid,
    applies,
    pays,
    plan_grid,
)
from karat24.refimpl.kernels.convolution.winograd.loop import WinogradLayer, winograd_tasks
from karat24.refimpl.kernels.convolution.winograd.transforms import (
    LARGEST_INPUT,
    ONE_FACTOR,
    TAPS,
    transformed_filter,
)
from karat24.refimpl.kernels.images.strided_images import whole_pixels
from karat24.refimpl.kernels.jit.operands import flat_accumulator, read_only_bytes, writable_bytes
from karat24.refimpl.kernels.microkernel.blocking import Block
from karat24.refimpl.kernels.microkernel.microkernel import OF_PAIRS, Microkernel
from karat24.refimpl.kernels.microkernel.row import multiply_row
from karat24.refimpl.kernels.rounding.requantize import prepare_epilogue, requantization
from karat24.refimpl.kernels.threads.task_kernel import Tasks
from karat24.refimpl.kernels.threads.thread_count import threads_for
from karat24.refimpl.profiles.rules import Rule

BOUND = 1 << 25
"""Results below this size come out exactly."""

NO_POOL = MaxPool2x2(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class WinogradConvolution(AccumulatingKernel):
    """A prepared CONV_2D.

    ``weights`` int16: the filters at every point, as the micro-kernel reads them. ``initial`` int32
    [block, 2, lane]: zeros, and what makes up for the input's zero point and adds the bias.
    ``strided_outputs``: as for ``DenseConvolution``.
    """

    microkernel: Microkernel
    grid: WinogradGrid
    conversion: ByteToElement
    weights: Array
    initial: NDArray[np.int32]
    work: int
    strided_outputs: bool
    strided_inputs: bool = False
    pooled: MaxPool2x2 | None = None

    def with_maxima(self, maxima: MaxPool2x2) -> WinogradConvolution:
        """This kernel with a second output, the largest of each 2x2 results."""
        return replace(self, pooled=maxima)

    def reading_inside(self, border: Border) -> WinogradConvolution | None:
        """This kernel on the image inside ``border`` in place of the padded one; None for another image."""
        g = self.grid
        if (g.in_height, g.in_width, g.in_channels) != border.outer:
            return None
        height, width, _ = border.inner
        inside = g._replace(
            in_height=height, in_width=width, in_y=g.in_y - border.top, in_x=g.in_x - border.left
        )
        return replace(self, grid=inside)

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return winograd_tasks

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays, and on ``accumulator`` unless it is None."""
        data, out = inputs[0], whole_pixels(outputs[0])
        assert data is not None
        grid, epilogue = self.grid, self.epilogue
        if out is not outputs[0]:
            assert self.strided_outputs
            assert accumulator is None
            grid = grid._replace(out_pitch=out.shape[-1])
            epilogue = epilogue._replace(flat_body=out.size)
        maxima, pooled = NO_POOL, np.empty(0, np.uint8)
        if self.pooled is not None:
            whole = whole_pixels(outputs[1])
            maxima, pooled = self.pooled._replace(pitch=whole.shape[-1]), writable_bytes(whole)
        layer = WinogradLayer(
            Block(*self.microkernel.blocking), multiply_row(self.microkernel), self.conversion, grid,
            self.weights, self.initial, requantization(epilogue), maxima,
        )  # fmt: skip
        arguments = layer, read_only_bytes(data), writable_bytes(out), pooled, flat_accumulator(accumulator)
        return Tasks(arguments, grid.tasks, self.work)


def prepare_winograd(
    view: LayerView, rule: Rule, target: Target, shapes: ConvolutionShapes
) -> WinogradConvolution | None:
    """The kernel of a CONV_2D of these shapes; None where it would not be exact, or not be faster."""
    if not (applies(shapes) and pays(target.isa, shapes)):
        return None
    data, bias = view.input(0), view.optional_input(2)
    filters, conversion = centred_filter(view.input(1)), byte_to_element(data, np.int8)
    constants = -conversion.border * filters.sum(axis=(1, 2, 3), dtype=np.int64)
    if bias is not None and bias.data is not None:
        constants = constants + bias.data
    largest = np.abs(constants) + LARGEST_INPUT * np.abs(filters).sum(axis=(1, 2, 3), dtype=np.int64)
    at_points = transformed_filter(filters)
    if largest.max() >= BOUND or at_points is None:
        return None
    kernel = OF_PAIRS[target.isa]
    outputs = math.prod(shapes.output)
    work = steps_of(outputs * TAPS * TAPS * shapes.filter[3] // PRODUCTS_SAVED, outputs)
    grid = plan_grid(shapes, kernel.blocking, threads_for(work, target.threads))
    initial = np.zeros((grid.blocks, 2, kernel.blocking.channels), np.int32)
    lanes = np.zeros(grid.blocks * kernel.blocking.channels, np.int64)
    lanes[: grid.filters] = ONE_FACTOR * constants
    initial[:, 1] = lanes.reshape(grid.blocks, -1).astype(np.int32)
    epilogue = prepare_epilogue(view, rule, data, view.input(1), view.output())
    return WinogradConvolution(
        epilogue, kernel, grid, conversion, kernel.pack(at_points),
        initial, work, epilogue.flat_body >= outputs,
    )  # fmt: skip
