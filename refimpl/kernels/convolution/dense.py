"""The compiled loop every dense convolution shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Border, Target, Values
from karat24.refimpl.graph import Array, LayerView, Tensor
from karat24.refimpl.kernels.convolution.base import AccumulatingKernel
from karat24.refimpl.kernels.convolution.patches import (
    ByteToElement,
    PatchSource,
    byte_to_element,
    fill_patch,
)
from karat24.refimpl.kernels.convolution.pixels_as_channels import (
    ConvolutionShapes,
    as_channels,
    pixels_side_by_side,
)
from karat24.refimpl.kernels.convolution.tiling import (
    PHASE_FIELDS,
    Dimensions,
    TilePlan,
    plan_tiles,
)
from karat24.refimpl.kernels.images.strided_images import whole_pixels
from karat24.refimpl.kernels.jit.callee import Callee, call_by_address
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_once, task_loop
from karat24.refimpl.kernels.jit.operands import flat_accumulator, read_only_bytes, writable_bytes
from karat24.refimpl.kernels.jit.scratch import allocate, piece, piece_size, release
from karat24.refimpl.kernels.microkernel.blocking import Amx, Block
from karat24.refimpl.kernels.microkernel.microkernel import close_block, microkernel_for, open_block
from karat24.refimpl.kernels.microkernel.row import in_loops, multiply_row
from karat24.refimpl.kernels.rounding.requantize import Requantization, prepare_epilogue, requantization
from karat24.refimpl.kernels.threads.task_kernel import Tasks
from karat24.refimpl.profiles.rules import Rule

(
    _OUT_Y, _OUT_Y_STEP, _ROWS, _IN_Y, _IN_Y_STEP, _TAP_Y_STEP, _TAPS_Y, _ROW_STEP,
    _OUT_X, _OUT_X_STEP, _COLUMNS, _IN_X, _IN_X_STEP, _TAP_X_STEP, _TAPS_X,
    _PIXEL_STEP, _GATHERED, _RUNS, _STEPS, _WEIGHTS,
) = range(len(PHASE_FIELDS))  # fmt: skip


@dataclass(frozen=True)
class DenseConvolution(AccumulatingKernel):
    """A prepared CONV_2D, TRANSPOSE_CONV or FULLY_CONNECTED; input ``position`` is its data.

    ``strided_outputs``: it can write a strided image (``kernels/images/strided_images.py``). It cannot where
    an output's flat index decides how to round, nor where neighbouring pixels are computed as channels.
    """

    position: int
    plan: TilePlan
    conversion: ByteToElement
    weights: Array
    folded: NDArray[np.int32]
    strided_outputs: bool
    strided_inputs: bool = False

    def reading_inside(self, border: Border) -> DenseConvolution | None:
        """This kernel on the image inside ``border`` in place of the padded one.

        None where the padded image is not that of the plan.
        """
        d, phases = self.plan.dimensions, self.plan.phases.copy()
        if (d.in_height, d.in_width, d.in_channels) != border.outer:
            return None
        phases[:, _IN_Y] -= border.top
        phases[:, _IN_X] -= border.left
        dimensions = d._replace(in_height=border.inner[0], in_width=border.inner[1])
        return replace(self, plan=replace(self.plan, dimensions=dimensions, phases=phases))

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return convolve_tasks

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays, and on ``accumulator`` unless it is None."""
        data, out = inputs[self.position], whole_pixels(outputs[0])
        assert data is not None
        plan, d, epilogue = self.plan, self.plan.dimensions, self.epilogue
        if out is not outputs[0]:
            assert self.strided_outputs
            assert accumulator is None
            d = d._replace(out_pitch=out.shape[-1])
            epilogue = epilogue._replace(flat_body=out.size)
        kernel = plan.microkernel
        layer = DenseLayer(
            in_loops(kernel), multiply_row(kernel), np.empty(0, kernel.element), self.conversion, d,
            plan.phases, plan.offsets, self.weights, self.folded, requantization(epilogue),
        )  # fmt: skip
        arguments = layer, read_only_bytes(data), writable_bytes(out), flat_accumulator(accumulator)
        return Tasks(arguments, d.tasks, plan.work)


def prepare_dense(
    view: LayerView,
    rule: Rule,
    target: Target,
    shapes: ConvolutionShapes,
    positions: tuple[int, int, int],
    channels_last: bool = False,
) -> DenseConvolution:
    """The kernel of a layer of these shapes; ``positions`` are its data, filter and bias.

    ``channels_last``: the filter is not OHWI, but its output channels vary fastest.
    """
    data, filters = view.input(positions[0]), view.input(positions[1])
    bias = view.optional_input(positions[2])
    centred = centred_filter(filters)
    if channels_last:
        centred = np.ascontiguousarray(centred.reshape(-1, shapes.filter[0]).T)
    centred = centred.reshape(shapes.filter)
    epilogue = prepare_epilogue(view, rule, data, filters, view.output())
    side_by_side = pixels_side_by_side(shapes)
    if side_by_side > 1:
        shapes, centred = as_channels(shapes, centred, side_by_side)
        epilogue = epilogue.repeated(side_by_side)
    groups = shapes.input[3] // shapes.filter[3]
    widest = max((x.outputs for x in shapes.columns), default=1)
    microkernel = microkernel_for(target.isa, shapes.filter[0] // groups, widest)
    plan = plan_tiles(
        shapes.input, shapes.output, groups, shapes.rows, shapes.columns, microkernel, target.threads,
        len(microkernel.split(centred)),
    )  # fmt: skip
    conversion = byte_to_element(data, microkernel.element)
    biases = None if bias is None or bias.data is None else np.tile(bias.data, side_by_side)
    return DenseConvolution(
        epilogue, positions[0], plan, conversion, plan.pack(centred),
        plan.fold(centred, biases, conversion.border),
        side_by_side == 1 and epilogue.flat_body >= math.prod(view.output().shape),
    )  # fmt: skip


def centred_filter(filters: Tensor) -> NDArray[np.int16]:
    """A constant filter less its zero point (0 for each channel of a per-channel filter)."""
    assert filters.quantization is not None
    assert filters.data is not None
    return filters.data.astype(np.int16) - np.int16(filters.quantization.zero_point[0])


class DenseLayer(NamedTuple):
    """What the compiled loop knows of a layer besides its arrays."""

    blocking: Block | Amx
    """The micro-kernel's block."""
    multiply: Callee
    """The micro-kernel on a row of pixels."""
    empty_patch: Array
    """An empty array of the patch's element type."""
    conversion: ByteToElement
    """From an input byte to an element of the patch."""
    dimensions: Dimensions
    """Sizes of images, tiles and patch."""
    phases: Array
    """int64 [phase, PHASE_FIELDS]."""
    offsets: Array
    """int64 [phase, run]: elements from a pixel's first element of the patch to each of its runs."""
    weights: Array
    """The filter as the micro-kernel reads it, phase by phase."""
    folded: Array
    """int32 [phase, group, lane]: bias less what the zero point adds, where sums begin."""
    requantization: Requantization
    """From accumulators to bytes."""


@no_refcount_once
def _convolve_tile(
    layer: DenseLayer, task: int, image: Array, patch: Array, acc: Array, out: Array, acc_out: Array
) -> None:
    """One task: a tile of a few output rows, for some or all output channels."""
    blocking, d, weights, folded = layer.blocking, layer.dimensions, layer.weights, layer.folded
    rest, split = divmod(task, d.splits)
    rest, tile_index = divmod(rest, d.tiles)
    rest, index = divmod(rest, layer.phases.shape[0])
    batch, row_block = divmod(rest, d.row_blocks)
    phase, offsets = layer.phases[index], layer.offsets[index]
    first_column, first_row = tile_index * d.tile, row_block * phase[_ROWS] // d.row_blocks
    pixels = min(d.tile, phase[_COLUMNS] - first_column)
    rows = (row_block + 1) * phase[_ROWS] // d.row_blocks - first_row
    if pixels <= 0 or rows <= 0:
        return  # this phase has fewer tiles than the largest one

    reading = PatchSource(
        d.in_height, d.in_width, d.in_channels, 1, phase[_TAP_Y_STEP],
        phase[_TAPS_Y] + (rows - 1) * phase[_ROW_STEP],
        phase[_IN_X_STEP], phase[_TAP_X_STEP], phase[_TAPS_X], d.patch_columns, phase[_GATHERED],
    )  # fmt: skip
    in_y = phase[_IN_Y] + first_row * phase[_IN_Y_STEP]
    in_x = phase[_IN_X] + first_column * phase[_IN_X_STEP]
    fill_patch(image, layer.conversion, reading, batch, in_y, in_x, pixels, patch)

    blocks = d.group_blocks
    first_block, end_block = split * blocks // d.splits, (split + 1) * blocks // d.splits
    first_filter = first_block * blocking.channels
    width = (end_block - first_block) * blocking.channels
    filters = min(end_block * blocking.channels, d.group_filters) - first_filter
    runs, steps = phase[_RUNS], phase[_STEPS]
    panel = runs * steps * blocking.depth * blocking.channels
    stride = phase[_PIXEL_STEP] * d.in_channels
    out_x = phase[_OUT_X] + first_column * phase[_OUT_X_STEP]
    out_step = phase[_OUT_X_STEP] * d.out_pitch
    acc_address = acc.ctypes.data
    offsets_address, weights_address = offsets.ctypes.data, weights.ctypes.data
    folded_address = folded[index].ctypes.data
    epilogue_address = layer.requantization.epilogue.ctypes.data
    acc_out_address = acc_out.ctypes.data if acc_out.size else 0
    for row in range(rows):
        out_y = phase[_OUT_Y] + (first_row + row) * phase[_OUT_Y_STEP]
        out_row = (batch * d.out_height + out_y) * d.out_width
        row_elements = row * phase[_ROW_STEP] * d.patch_columns * d.in_channels
        row_address = patch.ctypes.data + patch.itemsize * row_elements
        for group in range(d.groups):
            for block in range(first_block, end_block):
                lane = (block - first_block) * blocking.channels
                panel_at = phase[_WEIGHTS] + (group * blocks + block) * panel
                call_by_address(layer.multiply, (
                    pixels, row_address + patch.itemsize * group * d.group_channels, stride, offsets_address,
                    runs, steps, weights_address + weights.itemsize * panel_at,
                    folded_address + 4 * (group * blocks + block) * blocking.channels,
                    acc_address + 4 * lane, width,
                ))  # fmt: skip
            channel = group * d.group_filters + first_filter
            at = (out_row + out_x) * d.out_pitch + channel
            call_by_address(layer.requantization.function, (
                epilogue_address, acc_address, width, pixels, channel, filters,
                out.ctypes.data, at, out_step, acc_out_address,
            ))  # fmt: skip


@task_loop
def convolve_tasks(layer: DenseLayer, image: Array, out: Array, acc_out: Array, begin: int, end: int) -> None:
    """Runs tasks ``begin`` … ``end - 1`` of a plan on this thread.

    ``image`` and ``out`` are bytes, NHWC flat; ``acc_out`` int32 like ``out``, or
    empty. Sums wrap at 32 bits, as the runtimes' do.
    """
    blocking, d, empty_patch = layer.blocking, layer.dimensions, layer.empty_patch
    sums = d.tile * d.group_blocks * blocking.channels
    of_patch = piece_size(d.patch_size, empty_patch.itemsize)
    memory = allocate(of_patch + piece_size(sums, 4))
    patch = piece(memory, 0, d.patch_size, empty_patch.dtype)
    acc = piece(memory, of_patch, sums, np.int32)
    open_block(blocking)
    for task in range(begin, end):
        _convolve_tile(layer, task, image, patch, acc, out, acc_out)
    close_block(blocking)
    release(memory)
