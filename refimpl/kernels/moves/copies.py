"""Ops that move values without looking at them: each is a NumPy view assigned to the output.

What does not depend on the data is settled when the layer is prepared; the
op's check has already established that every shape follows from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import EllipsisType
from typing import Any, ClassVar, TypeAlias

import numpy as np

from karat24.refimpl.contract import Call, Kernel, Target, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.moves.concatenation import BYTES_PER_STEP, copy_rows
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks
from karat24.refimpl.profiles.rules import Rule

Index: TypeAlias = slice | int | EllipsisType | None


@dataclass(frozen=True)
class Copying:
    """Assigns a view of input ``position``, or an array made from it, to the only output."""

    view_of: Callable[[Array], Array]
    position: int = 0

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        outputs[0][...] = self.view_of(operand(inputs, self.position))

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Callable[[], None]:
        """The layer on these arrays; a view is taken once."""
        data = operand(inputs, self.position)
        view = self.view_of(data)
        if np.may_share_memory(view, data):  # else it is an array that each call must make again
            return partial(np.copyto, outputs[0], view)
        return partial(self, inputs, outputs, None)


def _constants(view: LayerView, position: int) -> tuple[int, ...]:
    """A constant list of integers."""
    data = view.input(position).known
    if data is None:
        raise UnsupportedOp(
            f"{view}: input {position} is computed by the graph; only constants are implemented"
        )
    return tuple(int(value) for value in data.reshape(-1))


def _require_shape(view: LayerView, computed: Sequence[int], shape: tuple[int, ...]) -> None:
    """Raises ModelError where a shape computed at run time is not the file's."""
    if tuple(computed) != shape:
        raise ModelError(f"{view}: computed shape {tuple(computed)}, the file says {shape}")


# ---- another shape over the same values


@dataclass(frozen=True)
class Reshape(TaskKernel):
    """A prepared RESHAPE, SQUEEZE or EXPAND_DIMS; ``computed``: its second input holds a shape to check."""

    view: LayerView
    computed: bool

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return copy_rows

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        self._check(inputs)
        outputs[0].reshape(-1)[...] = operand(inputs, 0).reshape(-1)

    def bind(self, inputs: Values, outputs: Sequence[Array]) -> Call:
        """The layer on these arrays; a shape that is a constant is checked once."""
        if self.computed and operand(inputs, 1).flags.writeable:
            return partial(self, inputs, outputs, None)
        self._check(inputs)
        return self.layer(inputs, outputs)

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays."""
        size = outputs[0].nbytes
        parts = math.gcd(size, _MOST_PARTS) if size else 1
        source, target = (
            data.reshape(-1).view(np.uint8).reshape(parts, -1) for data in (operand(inputs, 0), outputs[0])
        )
        return Tasks((source, 0, target), parts, size // BYTES_PER_STEP)

    def _check(self, inputs: Values) -> None:
        if not self.computed:
            return
        shape = self.view.output().shape
        given = [int(size) for size in operand(inputs, 1).reshape(-1)]
        if given.count(-1) == 1:
            known = math.prod(size for size in given if size != -1)
            given[given.index(-1)] = math.prod(shape) // known if known > 0 else -1
        _require_shape(self.view, given, shape)


_MOST_PARTS = 64
"""The most parts a copy is cut into, which must be equal."""


def prepare_settled_reshape(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """The values of input 0 in another shape, which the op's check found to follow from constants."""
    return Reshape(view, computed=False)


def prepare_reshape(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """RESHAPE, SQUEEZE, EXPAND_DIMS. A shape computed at run time is compared with the file's."""
    wanted = view.optional_input(1) if view.op == "RESHAPE" else None
    return Reshape(view, wanted is not None and not wanted.is_constant)


def prepare_transpose(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """TRANSPOSE."""
    permutation = _constants(view, 1)
    return Copying(lambda data: data.transpose(permutation))


def prepare_depth_to_space(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """DEPTH_TO_SPACE: channels ``[block_y, block_x, channel]`` spread over the block's pixels."""
    block, (_, height, width, _) = view.integer("block_size"), view.input(0).shape
    batch, out_height, out_width, channels = view.output().shape

    def spread(data: Array) -> Array:
        blocks = data.reshape(batch, height, width, block, block, channels)
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, out_height, out_width, channels)

    return Copying(spread)


def prepare_space_to_depth(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SPACE_TO_DEPTH, the reverse of DEPTH_TO_SPACE."""
    block, channels = view.integer("block_size"), view.input(0).shape[3]
    batch, height, width, out_channels = view.output().shape

    def gather(data: Array) -> Array:
        blocks = data.reshape(batch, height, block, width, block, channels)
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, out_channels)

    return Copying(gather)


# ---- a part of the values


def prepare_slice(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SLICE: a box of the output's shape, from ``begin`` on."""
    sizes = view.output().shape
    box = tuple(slice(start, start + size) for start, size in zip(_constants(view, 1), sizes, strict=True))
    return Copying(lambda data: data[box])


def prepare_strided_slice(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """STRIDED_SLICE, as a NumPy index."""
    index = _strided_index(view)
    return Copying(lambda data: np.asarray(data[index]))


def _strided_index(view: LayerView) -> tuple[Index, ...]:
    shape = view.input(0).shape
    begins, ends, strides = (_constants(view, position) for position in (1, 2, 3))
    marked = {
        name: {i for i in range(len(begins)) if view.integer(f"{name}_mask", 0) >> i & 1}
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    inserted = marked["new_axis"] - marked["ellipsis"]
    skipped = len(shape) - (len(begins) - len(inserted) - len(marked["ellipsis"]))
    index: list[Index] = []
    dimension = 0
    for i, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        if i in marked["ellipsis"]:
            index.append(Ellipsis)
            dimension += skipped
            continue
        if i in inserted:
            index.append(None)
            continue
        first = None if i in marked["begin"] else begin
        start, _, _ = slice(first, None, stride).indices(shape[dimension])
        if i in marked["shrink_axis"]:
            index.append(start)
        else:
            end = end + start if view.flag("offset") else end
            index.append(slice(first, None if i in marked["end"] else end, stride))
        dimension += 1
    return tuple(index)


def prepare_split(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SPLIT and SPLIT_V: each output is the next part along the axis, as long as its shape says."""
    position, axis_position = (1, 0) if view.op == "SPLIT" else (0, 2)
    rank = len(view.input(position).shape)
    axis = _constants(view, axis_position)[0] % rank

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        data, start = np.moveaxis(operand(inputs, position), axis, 0), 0
        for output in outputs:
            stop = start + output.shape[axis]
            np.moveaxis(output, axis, 0)[...] = data[start:stop]
            start = stop

    return run


def prepare_unpack(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """UNPACK: each output is one index of the axis."""
    axis = view.integer("axis", 0)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        for output, part in zip(outputs, np.moveaxis(operand(inputs, 0), axis, 0), strict=True):
            output[...] = part

    return run


def prepare_gather(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """GATHER: slices along ``axis``, ``batch_dims`` leading dimensions walked in step."""
    shape = view.input(0).shape
    positions_shape = view.input(1).shape
    axis = view.integer("axis", 0) % len(shape)
    batch_dims = view.integer("batch_dims", 0)
    batch_dims += len(positions_shape) if batch_dims < 0 else 0
    batches = math.prod(shape[:batch_dims])
    before, after = math.prod(shape[batch_dims:axis]), math.prod(shape[axis + 1 :])
    picks = math.prod(positions_shape[batch_dims:])
    size = shape[axis]

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        positions = operand(inputs, 1).reshape(batches, picks)
        outside = positions[(positions < 0) | (positions >= size)]
        if outside.size:
            raise ModelError(f"{view}: position {outside[0]} lies outside axis {axis}, which has size {size}")
        data = operand(inputs, 0).reshape(batches, before, size, after)
        output = outputs[0].reshape(batches, before, picks, after)
        for batch in range(batches):
            output[batch] = data[batch][:, positions[batch]]

    return run


# ---- more than the values


def prepare_pack(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """PACK: inputs stacked along a new axis of the output."""
    axis = view.integer("axis", 0)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        stacked = np.moveaxis(outputs[0], axis, 0)
        for position in range(len(stacked)):
            stacked[position] = operand(inputs, position)

    return run


def prepare_mirror_pad(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MIRROR_PAD: without (REFLECT) or with (SYMMETRIC) the edge repeated."""
    counts = _constants(view, 1)
    widths = list(zip(counts[::2], counts[1::2], strict=True))
    if view.text("mode") == "REFLECT":
        return Copying(lambda data: np.pad(data, widths, mode="reflect"))
    return Copying(lambda data: np.pad(data, widths, mode="symmetric"))


def prepare_tile(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """TILE."""
    multiples = _constants(view, 1)
    return Copying(lambda data: np.tile(data, multiples))


def prepare_broadcast_to(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """BROADCAST_TO (data, shape) and FILL (shape, value)."""
    position, shape_position = (0, 1) if view.op == "BROADCAST_TO" else (1, 0)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        sizes = [int(size) for size in operand(inputs, shape_position).reshape(-1)]
        _require_shape(view, sizes, outputs[0].shape)
        outputs[0][...] = operand(inputs, position)

    return run


def prepare_reverse(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """REVERSE_V2."""
    axes = _constants(view, 1)
    return Copying(lambda data: np.flip(data, axes))


def prepare_shape(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """SHAPE."""
    return ShapeOf(view.input(0).shape)


@dataclass(frozen=True)
class ShapeOf:
    """A prepared SHAPE: known before anything runs."""

    shape: tuple[int, ...]
    reads_no_values: ClassVar[bool] = True

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        outputs[0][...] = self.shape
