"""Output shapes of ops that move, cut, join or look up values."""

from __future__ import annotations

import math

import numpy as np

from karat24.export.onnx.reading.shapes_types import (
    Rule,
    Shape,
    Type,
    axes_in,
    axis_in,
    broadcast,
    given_integers,
    has_input,
    known_integers,
)
from karat24.export.onnx.schema import TYPE_NAMES
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import LayerView


def joined(step: int, first: int = 0) -> Rule:
    """Concat of inputs ``first``, ``first + step``, ... along ``axis``."""

    def rule(view: LayerView) -> list[Type]:
        tensors = [view.input(position) for position in range(first, len(view.inputs), step)]
        if not tensors:
            raise ModelError(f"{view} joins nothing")
        axis = axis_in(view, view.integer("axis"), len(tensors[0].shape))
        rests = {tensor.shape[:axis] + tensor.shape[axis + 1 :] for tensor in tensors}
        if len(rests) > 1 or len({len(tensor.shape) for tensor in tensors}) > 1:
            raise ModelError(f"{view}: shapes {[t.shape for t in tensors]} cannot be joined at axis {axis}")
        shape = list(tensors[0].shape)
        shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
        return [Type(tuple(shape), tensors[0].dtype)]

    return rule


def reshape(view: LayerView) -> list[Type]:
    """A size of 0 copies the input's (unless ``allowzero``); one of -1 keeps the number of elements."""
    x, wanted = view.input(0), list(known_integers(view, 1))
    if not view.integer("allowzero", 0):
        for i, size in enumerate(wanted):
            if size == 0:
                if i >= len(x.shape):
                    raise ModelError(f"{view}: size 0 at {i} of {tuple(wanted)} copies nothing of {x.shape}")
                wanted[i] = x.shape[i]
    count = math.prod(x.shape)
    if wanted.count(-1) == 1:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = count // rest if rest > 0 and count % rest == 0 else -1
    if min(wanted, default=1) < 0 or math.prod(wanted) != count:
        raise ModelError(f"{view}: {x.shape} cannot become {known_integers(view, 1)}")
    return [Type(tuple(wanted), x.dtype)]


def flatten(view: LayerView) -> list[Type]:
    """Two dimensions: the axes before ``axis``, and the others."""
    x, axis = view.input(0), view.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise ModelError(f"{view}: axis {axis} of a rank-{len(x.shape)} tensor")
    axis += len(x.shape) if axis < 0 else 0
    return [Type((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), x.dtype)]


def squeeze(view: LayerView) -> list[Type]:
    """The shape without the given axes, or without all axes of size 1."""
    x = view.input(0)
    if has_input(view, 1) or "axes" in view.layer.attributes:
        axes = axes_in(view, given_integers(view, "axes"), len(x.shape))
    else:
        axes = tuple(i for i, size in enumerate(x.shape) if size == 1)
    if any(x.shape[axis] != 1 for axis in axes):
        raise ModelError(f"{view}: axes {axes} of shape {x.shape} are not of size 1")
    return [Type(tuple(size for i, size in enumerate(x.shape) if i not in axes), x.dtype)]


def unsqueeze(view: LayerView) -> list[Type]:
    """The shape with new axes of size 1; ``axes`` are axes of the result."""
    x, axes = view.input(0), given_integers(view, "axes")
    rank = len(x.shape) + len(axes)
    new = axes_in(view, axes, rank)
    old = iter(x.shape)
    return [Type(tuple(1 if i in new else next(old) for i in range(rank)), x.dtype)]


def transpose(view: LayerView) -> list[Type]:
    """The axes in the order ``perm``, or reversed where that is missing."""
    x = view.input(0)
    order = view.integers("perm", tuple(reversed(range(len(x.shape)))))
    if sorted(order) != list(range(len(x.shape))):
        raise ModelError(f"{view}: perm {order} must be a permutation of {len(x.shape)} axes")
    return [Type(tuple(x.shape[axis] for axis in order), x.dtype)]


def slice_(view: LayerView) -> list[Type]:
    """Python's slices along the given axes."""
    x, starts, ends = view.input(0), known_integers(view, 1), known_integers(view, 2)
    axes = known_integers(view, 3) if has_input(view, 3) else tuple(range(len(starts)))
    steps = known_integers(view, 4) if has_input(view, 4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ModelError(f"{view}: starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    shape = list(x.shape)
    for axis, start, end, step in zip(
        axes_in(view, axes, len(shape)), starts, ends, steps, strict=True
    ):  # fmt: skip
        # With a negative step an end before the front means "including the front", as in Python.
        shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    return [Type(tuple(shape), x.dtype)]


def split(view: LayerView) -> list[Type]:
    """Pieces of the given sizes, else of equal size; the last one is smaller where that does not divide."""
    x = view.input(0)
    axis = axis_in(view, view.integer("axis", 0), len(x.shape))
    count = len(view.outputs)
    if has_input(view, 1) or "split" in view.layer.attributes:
        sizes = given_integers(view, "split")
    else:
        if view.integer("num_outputs", count) != count:
            raise ModelError(f"{view}: {count} outputs, but num_outputs {view.integer('num_outputs')}")
        each = -(-x.shape[axis] // count)
        sizes = (each,) * (count - 1) + (x.shape[axis] - each * (count - 1),)
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ModelError(f"{view}: pieces {sizes} for {count} outputs and {x.shape[axis]} rows")
    return [Type((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype) for size in sizes]


def resize(view: LayerView) -> list[Type]:
    """``sizes``, or ``floor(size * scale)``, along the given axes, or along all."""
    x = view.input(0)
    rank = len(x.shape)
    axes = axes_in(view, view.integers("axes", tuple(range(rank))), rank)
    policy = view.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise UnsupportedOp(f"{view}: keep_aspect_ratio_policy {policy!r}; only 'stretch' is supported")
    shape = list(x.shape)
    if has_input(view, 3):
        given: Shape = known_integers(view, 3)
        if len(given) == len(axes):
            for axis, size in zip(axes, given, strict=True):
                shape[axis] = size
            return [Type(tuple(shape), x.dtype)]
        raise ModelError(f"{view}: {len(given)} sizes for {len(axes)} axes")
    scales = view.input(2)
    if scales.data is None:
        raise UnsupportedOp(f"{view}: scales ({scales.name!r}) are not constant")
    values = np.asarray(scales.data)
    if scales.dtype != "float32" or values.shape != (len(axes),):
        raise ModelError(
            f"{view}: scales of shape {values.shape} and type {scales.dtype} for {len(axes)} axes"
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ModelError(f"{view}: scales {values.tolist()} are not all positive")
    for axis, scale in zip(axes, values.tolist(), strict=True):
        shape[axis] = math.floor(shape[axis] * scale)
    return [Type(tuple(shape), x.dtype)]


def pad(view: LayerView) -> list[Type]:
    """Values added before and after each given axis; a negative number cuts values off."""
    x, pads = view.input(0), known_integers(view, 1)
    rank = len(x.shape)
    axes = axes_in(view, known_integers(view, 3), rank) if has_input(view, 3) else tuple(range(rank))
    if len(pads) != 2 * len(axes):
        raise ModelError(f"{view}: {len(pads)} pads for {len(axes)} axes")
    shape = list(x.shape)
    for position, axis in enumerate(axes):
        shape[axis] += pads[position] + pads[position + len(axes)]
    return [Type(tuple(shape), x.dtype)]


def gather(view: LayerView) -> list[Type]:
    """Rows along ``axis``, in the shape of the indices."""
    x, indices = view.input(0), view.input(1)
    axis = axis_in(view, view.integer("axis", 0), len(x.shape))
    return [Type((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)]


def expand(view: LayerView) -> list[Type]:
    """Broadcast against a shape."""
    x = view.input(0)
    return [Type(broadcast(view, x.shape, known_integers(view, 1)), x.dtype)]


def tile(view: LayerView) -> list[Type]:
    """Each size times the number of repeats."""
    x, repeats = view.input(0), known_integers(view, 1)
    if len(repeats) != len(x.shape):
        raise ModelError(f"{view}: {len(repeats)} repeats for {len(x.shape)} axes")
    return [Type(tuple(size * times for size, times in zip(x.shape, repeats, strict=True)), x.dtype)]


def shape(view: LayerView) -> list[Type]:
    """The number of sizes from ``start`` to ``end`` of the input's shape."""
    return [Type((len(sliced_shape(view)),), "int64")]


def sliced_shape(view: LayerView) -> Shape:
    """The sizes that a Shape node returns."""
    sizes = view.input(0).shape
    return sizes[view.integer("start", 0) : view.integer("end", len(sizes))]


def cast(view: LayerView) -> list[Type]:
    """The type numbered ``to``."""
    code = view.integer("to")
    if code not in TYPE_NAMES:
        raise UnsupportedOp(
            f"{view}: element type number {code} is newer than the versions of ONNX read here"
        )
    return [Type(view.input(0).shape, TYPE_NAMES[code])]


def reduce(view: LayerView) -> list[Type]:
    """Axes come from an input or an attribute; without them all axes are reduced, or none with
    ``noop_with_empty_axes``."""
    x = view.input(0)
    rank = len(x.shape)
    axes = known_integers(view, 1) if has_input(view, 1) else view.integers("axes", ())
    if not axes and not view.integer("noop_with_empty_axes", 0):
        axes = tuple(range(rank))
    gone = axes_in(view, axes, rank)
    keep = view.integer("keepdims", 1)
    sizes = [1 if i in gone else size for i, size in enumerate(x.shape) if keep or i not in gone]
    return [Type(tuple(sizes), x.dtype)]


def arg_extreme(view: LayerView) -> list[Type]:
    """ArgMax and ArgMin: int64 positions along one axis."""
    x = view.input(0)
    axis = axis_in(view, view.integer("axis", 0), len(x.shape))
    middle = (1,) if view.integer("keepdims", 1) else ()
    return [Type((*x.shape[:axis], *middle, *x.shape[axis + 1 :]), "int64")]


def depth_to_space(view: LayerView) -> list[Type]:
    """NCHW: channels become blocks of pixels."""
    batch, channels, height, width = _image(view)
    block = view.integer("blocksize")
    if block < 1 or channels % (block * block):
        raise ModelError(f"{view}: {channels} channels in blocks of {block}")
    sizes = (batch, channels // (block * block), height * block, width * block)
    return [Type(sizes, view.input(0).dtype)]


def space_to_depth(view: LayerView) -> list[Type]:
    """NCHW: blocks of pixels become channels."""
    batch, channels, height, width = _image(view)
    block = view.integer("blocksize")
    if block < 1 or height % block or width % block:
        raise ModelError(f"{view}: an image of {height}×{width} in blocks of {block}")
    sizes = (batch, channels * block * block, height // block, width // block)
    return [Type(sizes, view.input(0).dtype)]


def _image(view: LayerView) -> Shape:
    if len(view.input(0).shape) != 4:
        raise ModelError(f"{view}: {view.input(0).name!r} has shape {view.input(0).shape}, not NCHW")
    return view.input(0).shape
