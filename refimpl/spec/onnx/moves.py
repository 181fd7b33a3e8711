"""Ops that move values without looking at them: the same bits in every runtime."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    MAX_RANK,
    constant_integers,
    operand,
    require,
    require_same_dtype,
    require_shape,
    resolve_axis,
)


def _require_first(view: LayerView, inputs: int, most: int | None = None) -> Array | None:
    """``inputs`` to ``most`` inputs, outputs of the first one's type, few enough dimensions."""
    most = inputs if most is None else most
    require(
        view, inputs <= len(view.inputs) <= most, f"{len(view.inputs)} inputs, the op takes {inputs}…{most}"
    )
    require(view, len(view.outputs) >= 1, "no output")
    require_same_dtype(view, view.input(0), *view.outputs)
    for tensor in (view.input(0), *view.outputs):
        if len(tensor.shape) > MAX_RANK:
            raise UnsupportedOp(f"{view}: {tensor.name!r} has {len(tensor.shape)} dimensions")
    return view.input(0).data


def check_reshape(view: LayerView) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity: the output has as many values as the input.

    The reader worked its shape out; a shape or axes computed by the graph were constants then.
    """
    _require_first(view, 1, 2)
    given, found = math.prod(view.input(0).shape), math.prod(view.output().shape)
    require(view, given == found, f"{view.input(0).shape} has {given} values, {view.output().shape} {found}")
    if view.op == "Identity":
        require_shape(view, view.output(), view.input(0).shape)


def reshape(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """The same values in another shape."""
    return SpecResult((operand(values, 0).reshape(view.output().shape),))


def check_transpose(view: LayerView) -> None:
    """Attribute ``perm``; axes in reverse without it."""
    _require_first(view, 1)
    require_shape(view, view.output(), (view.input(0).shape[axis] for axis in _permutation(view)))


def _permutation(view: LayerView) -> tuple[int, ...]:
    rank = len(view.input(0).shape)
    axes = view.integers("perm", tuple(reversed(range(rank))))
    require(view, sorted(axes) == list(range(rank)), f"{axes} must be a permutation of {rank} axes")
    return axes


def transpose(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Dimension k of the output is dimension ``perm[k]`` of the input."""
    return SpecResult((np.ascontiguousarray(operand(values, 0).transpose(_permutation(view))),))


def check_concat(view: LayerView) -> None:
    """Inputs of one type that agree in every size but the axis's."""
    _require_first(view, 1, max(len(view.inputs), 1))
    first = view.input(0)
    axis = resolve_axis(view, view.integer("axis"), len(first.shape))
    total = 0
    for position in range(len(view.inputs)):
        part = view.input(position)
        require_same_dtype(view, first, part)
        require(view, len(part.shape) == len(first.shape), f"{part.shape} beside {first.shape}")
        require_shape(view, part, (*first.shape[:axis], part.shape[axis], *first.shape[axis + 1 :]))
        total += part.shape[axis]
    require_shape(view, view.output(), (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def concat(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Inputs side by side along ``axis``."""
    parts = [operand(values, position) for position in range(len(view.inputs))]
    return SpecResult((np.concatenate(parts, axis=view.integer("axis")),))


def check_slice(view: LayerView) -> None:
    """Inputs: data, and constants: starts, ends, optional axes, optional steps."""
    _require_first(view, 3, 5)
    box = _box(view)
    shape = view.input(0).shape
    require_shape(
        view, view.output(), (len(range(*part.indices(n))) for part, n in zip(box, shape, strict=True))
    )


def _box(view: LayerView) -> tuple[slice, ...]:
    """One slice per axis; ONNX clamps starts and ends as Python does."""
    rank = len(view.input(0).shape)
    starts, ends = (constant_integers(view, i, what) for i, what in ((1, "starts"), (2, "ends")))
    axes = tuple(range(len(starts)))
    if view.optional_input(3) is not None:
        axes = constant_integers(view, 3, "axes")
    steps = (1,) * len(starts)
    if view.optional_input(4) is not None:
        steps = constant_integers(view, 4, "steps")
    require(
        view,
        len(starts) == len(ends) == len(axes) == len(steps) and 0 not in steps,
        f"starts {starts}, ends {ends}, axes {axes}, steps {steps}",
    )
    box = [slice(None)] * rank
    seen = [resolve_axis(view, axis, rank) for axis in axes]
    require(view, len(set(seen)) == len(seen), f"axes {axes} name one axis twice")
    for axis, start, end, step in zip(seen, starts, ends, steps, strict=True):
        size = view.input(0).shape[axis]
        # An end that means "past the first element" going down has no number in Python.
        stop = None if step < 0 and end < -size else end
        box[axis] = slice(start, stop, step)
    return tuple(box)


def slice_(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """A box of the input."""
    return SpecResult((np.ascontiguousarray(operand(values, 0)[_box(view)]),))


def check_split(view: LayerView) -> None:
    """Inputs: data, optional constant sizes; attribute ``axis``. Without sizes, equal parts."""
    _require_first(view, 1, 2)
    shape = view.input(0).shape
    axis = resolve_axis(view, view.integer("axis", 0), len(shape))
    for part, size in zip(view.outputs, _sizes(view, axis), strict=True):
        require_shape(view, part, (*shape[:axis], size, *shape[axis + 1 :]))


def _sizes(view: LayerView, axis: int) -> tuple[int, ...]:
    total, parts = view.input(0).shape[axis], len(view.outputs)
    if view.optional_input(1) is not None:
        sizes = constant_integers(view, 1, "the sizes of the parts")
    elif "split" in view.layer.attributes:  # where they stand before version 13
        sizes = view.integers("split")
    else:
        each = -(-total // parts)
        sizes = tuple(max(min(each, total - each * i), 0) for i in range(parts))
    fits = len(sizes) == parts and sum(sizes) == total and min(sizes) >= 0
    require(view, fits, f"parts of {sizes} out of {total} for {parts} outputs")
    return sizes


def split(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Parts of the input along ``axis``."""
    axis = resolve_axis(view, view.integer("axis", 0), len(view.input(0).shape))
    cuts = np.cumsum(_sizes(view, axis))[:-1]
    parts = np.split(operand(values, 0), [int(cut) for cut in cuts], axis=axis)
    return SpecResult(tuple(np.ascontiguousarray(part) for part in parts))


def check_pad(view: LayerView) -> None:
    """Inputs: data, pads (constant: before each axis, then behind), optional value, optional axes.

    Modes ``constant``, ``reflect`` and ``edge``; negative pads cut off.
    """
    _require_first(view, 2, 4)
    pads = _pads(view)
    shape = view.input(0).shape
    require_shape(
        view, view.output(), (n + before + behind for n, (before, behind) in zip(shape, pads, strict=True))
    )
    mode = view.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise UnsupportedOp(f"{view}: padding by {mode!r} is not implemented")
    if mode != "constant":
        require(view, all(min(pair) >= 0 for pair in pads) and 0 not in shape, f"pads {pads} by {mode}")
        if mode == "reflect":
            fits = all(max(pair) < n for n, pair in zip(shape, pads, strict=True))
            require(view, fits, f"pads {pads} reflect more than {shape} holds")
    value = view.optional_input(2)
    if value is not None:
        require_same_dtype(view, view.input(0), value)
        require(view, math.prod(value.shape) == 1, f"a padding value of shape {value.shape}")


def _pads(view: LayerView) -> list[tuple[int, int]]:
    rank = len(view.input(0).shape)
    pads = constant_integers(view, 1, "the pads")
    axes = tuple(range(rank))
    if view.optional_input(3) is not None:
        axes = tuple(resolve_axis(view, a, rank) for a in constant_integers(view, 3, "the axes"))
    require(view, len(pads) == 2 * len(axes), f"{len(pads)} pads for {len(axes)} axes")
    found = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        found[axis] = pads[position], pads[position + len(axes)]
    return found


def pad(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Pad."""
    data, pads = operand(values, 0), _pads(view)
    mode = view.text("mode", "constant")
    if mode == "reflect":
        return SpecResult((np.pad(data, pads, "reflect"),))
    if mode == "edge":
        return SpecResult((np.pad(data, pads, "edge"),))
    value = view.optional_input(2)
    fill = data.dtype.type(0) if value is None else operand(values, 2).reshape(())
    kept = data[tuple(slice(max(-b, 0), n - max(-e, 0)) for n, (b, e) in zip(data.shape, pads, strict=True))]
    outside = [(max(before, 0), max(behind, 0)) for before, behind in pads]
    return SpecResult((np.pad(kept, outside, constant_values=fill),))


def check_gather(view: LayerView) -> None:
    """Inputs: data, indices; attribute ``axis``."""
    _require_first(view, 2)
    shape, indices = view.input(0).shape, view.input(1)
    axis = resolve_axis(view, view.integer("axis", 0), len(shape))
    require(view, indices.dtype in ("int32", "int64"), "indices must be integers")
    require_shape(view, view.output(), (*shape[:axis], *indices.shape, *shape[axis + 1 :]))
    if indices.data is not None:
        _require_inside(view, indices.data)


def _require_inside(view: LayerView, indices: Array) -> None:
    shape = view.input(0).shape
    axis = resolve_axis(view, view.integer("axis", 0), len(shape))
    inside = bool(((indices >= -shape[axis]) & (indices < shape[axis])).all())
    require(view, inside, f"an index lies outside axis {axis} of {shape}")


def gather(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Rows along ``axis``. Raises ModelError for a computed index outside it."""
    indices = operand(values, 1)
    _require_inside(view, indices)
    return SpecResult((np.take(operand(values, 0), indices, axis=view.integer("axis", 0)),))


ROUNDED_CASTS = frozenset(
    {
        ("int64", "int32"), ("int32", "int64"), ("int32", "float32"), ("int64", "float32"),
        ("float32", "float16"),
    }
)  # fmt: skip
"""Casts that may change values: to the low bits, or to the nearest value, ties to even."""


def check_cast(view: LayerView) -> None:
    """Between types whose values all fit the target exactly, or from integers to a nearest float32."""
    require(view, len(view.inputs) == 1 and len(view.outputs) == 1, "Cast takes one input and gives one")
    require_shape(view, view.output(), view.input(0).shape)
    source, target = DTYPES[view.input(0).dtype], DTYPES[view.output().dtype]
    pair = source.name, target.name
    if not np.can_cast(source, target, "safe") and pair not in ROUNDED_CASTS:
        raise UnsupportedOp(f"{view}: a cast from {source} to {target}, which may lose values")


def cast(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Cast; int64 to int32 keeps the low bits."""
    with np.errstate(over="ignore"):
        return SpecResult((operand(values, 0).astype(DTYPES[view.output().dtype]),))


def check_depth_to_space(view: LayerView) -> None:
    """``[batch, channel, y, x]``, attribute ``blocksize``, ``mode`` DCR or CRD; and the reverse."""
    _require_first(view, 1)
    shape, block = view.input(0).shape, view.integer("blocksize")
    require(view, len(shape) == 4 and block >= 1, f"blocks of {block} in {shape}")
    batch, channels, height, width = shape
    if view.op == "DepthToSpace":
        require(view, channels % (block * block) == 0, f"{channels} channels in blocks of {block}")
        sizes = (batch, channels // block**2, height * block, width * block)
    else:
        if view.text("mode", "DCR") != "DCR":
            raise UnsupportedOp(f"{view}: mode {view.text('mode')!r}; only DCR is implemented")
        require(view, height % block == 0 and width % block == 0, f"an image of {shape} in blocks of {block}")
        sizes = (batch, channels * block**2, height // block, width // block)
    require_shape(view, view.output(), sizes)


def depth_to_space(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Channels become pixels."""
    data, block = operand(values, 0), view.integer("blocksize")
    batch, _, height, width = data.shape
    mode = view.text("mode", "DCR")
    if mode == "DCR":
        blocks = data.reshape(batch, block, block, -1, height, width).transpose(0, 3, 4, 1, 5, 2)
    elif mode == "CRD":
        blocks = data.reshape(batch, -1, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        raise ModelError(f"{view}: mode {mode!r} is neither DCR nor CRD")
    return SpecResult((blocks.reshape(view.output().shape),))


def space_to_depth(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Pixels become channels."""
    data, block = operand(values, 0), view.integer("blocksize")
    batch, channels, height, width = data.shape
    blocks = data.reshape(batch, channels, height // block, block, width // block, block)
    return SpecResult((blocks.transpose(0, 3, 5, 1, 2, 4).reshape(view.output().shape),))


def check_expand(view: LayerView) -> None:
    """Expand and Tile: the output's shape is the reader's; the second input is constant."""
    _require_first(view, 2)
    constant_integers(view, 1, "the shape or repeats")
    if view.op == "Tile":
        repeats, shape = constant_integers(view, 1, "the repeats"), view.input(0).shape
        require(view, len(repeats) == len(shape) and min(repeats, default=0) >= 0, f"repeats {repeats}")
        require_shape(view, view.output(), (n * times for n, times in zip(shape, repeats, strict=True)))
        return
    try:
        wide = np.broadcast_shapes(view.input(0).shape, constant_integers(view, 1, "the shape"))
    except ValueError:
        raise ModelError(f"{view}: {view.input(0).shape} does not expand to the shape given") from None
    require_shape(view, view.output(), wide)


def expand(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Broadcast to the output's shape."""
    return SpecResult((np.ascontiguousarray(np.broadcast_to(operand(values, 0), view.output().shape)),))


def tile(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Repeated along each axis."""
    return SpecResult((np.tile(operand(values, 0), constant_integers(view, 1, "the repeats")),))


def check_shape(view: LayerView) -> None:
    """Shape: int64 sizes, from ``start`` to ``end``."""
    require(view, len(view.inputs) == 1 and len(view.outputs) == 1, "Shape takes one input and gives one")
    require(view, view.output().dtype == "int64", "Shape gives int64")
    require_shape(view, view.output(), (len(_sizes_of(view)),))


def _sizes_of(view: LayerView) -> tuple[int, ...]:
    sizes = view.input(0).shape
    return sizes[view.integer("start", 0) : view.integer("end", len(sizes))]


def shape(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """The input's sizes."""
    return SpecResult((np.array(_sizes_of(view), np.int64),))
