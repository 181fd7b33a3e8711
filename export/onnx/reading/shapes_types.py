"""Types, broadcasting and known constants, which all shape rules use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import LayerView

Shape: TypeAlias = tuple[int, ...]


class Type(NamedTuple):
    """Shape and element type of one edge."""

    shape: Shape
    dtype: str


Rule: TypeAlias = Callable[[LayerView], list[Type]]
"""The types of a node's outputs, in order."""


def broadcast(view: LayerView, *shapes: Shape) -> Shape:
    """The shape NumPy's broadcasting gives. Raises ModelError when there is none."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for sizes in zip(*padded, strict=True):
        wide = {size for size in sizes if size != 1} or {1}
        if len(wide) > 1:
            raise ModelError(f"{view}: shapes {list(shapes)} do not broadcast")
        result.append(wide.pop())
    return tuple(result)


def known_integers(view: LayerView, position: int) -> Shape:
    """The values of an integer input, which must follow from constants.

    Raises UnsupportedOp when they depend on the model's inputs.
    """
    tensor = view.input(position)
    if tensor.data is None:
        raise UnsupportedOp(
            f"{view}: input {position} ({tensor.name!r}) decides a shape but is not constant; "
            "export the model with fixed shapes"
        )
    if tensor.dtype not in ("int32", "int64") or tensor.data.ndim > 1:
        raise ModelError(f"{view}: input {position} ({tensor.name!r}) must be a list of integers")
    return tuple(int(value) for value in tensor.data.reshape(-1))


def given_integers(view: LayerView, attribute: str) -> Shape:
    """Integers from input 1, or from the attribute that held them in operator sets before 13."""
    if view.layer.version < 13 and attribute in view.layer.attributes:
        return view.integers(attribute)
    return known_integers(view, 1)


def axis_in(view: LayerView, axis: int, rank: int) -> int:
    """The axis counted from the front. Raises ModelError when a tensor of ``rank`` has no such axis."""
    if not -rank <= axis < rank:
        raise ModelError(f"{view}: axis {axis} of a rank-{rank} tensor")
    return axis % rank


def axes_in(view: LayerView, axes: Shape, rank: int) -> Shape:
    """Several axes, each at most once."""
    found = tuple(axis_in(view, axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise ModelError(f"{view}: axes {axes} name one axis twice")
    return found


def has_input(view: LayerView, position: int) -> bool:
    """True when the optional input is present."""
    return view.optional_input(position) is not None
