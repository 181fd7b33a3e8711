"""Mistakes at the border: what stands there, and where the windows lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.suspect import Suspect, with_attributes, with_input
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.spec.onnx.windows import windows as onnx_windows
from karat24.refimpl.spec.shared.geometry import Window, windows

_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def zero_padding(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """The border holds the number 0, not the input's zero point."""
    if (over := _windows(suspect)) is None or _zero_point(suspect.view) == 0:
        return
    if any(_needed(window) > window.input_size for window in over):
        yield _moved(suspect, over, 0, 0, 0, "0 in place of the zero point")


def offset(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Every window lies one position off, as where the larger half of SAME's padding comes first."""
    if (over := _windows(suspect)) is None:
        return
    zero_point = _zero_point(suspect.view)
    for y, x in ((-1, -1), (1, 1), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, 1), (1, -1)):
        place = " and ".join(f"{abs(by)} to the {'front' if by < 0 else 'back'} in {axis}" for by, axis in
                             ((y, "y"), (x, "x")) if by)  # fmt: skip
        yield _moved(suspect, over, y, x, zero_point, f"windows {place}")


def _windows(suspect: Suspect) -> tuple[Window, Window] | None:
    view = suspect.view
    if view.op == "QLinearConv" and len(view.input(0).shape) == 4:
        return onnx_windows(view, view.input(0).shape, view.input(3).shape[2:])
    if view.op not in _OPS or suspect.weighted is None:
        return None
    return windows(view, view.input(0).shape, view.input(1).shape, dilated=True)


def _needed(window: Window) -> int:
    """Positions that the windows cover together."""
    return (window.output_size - 1) * window.stride + (window.taps - 1) * window.dilation + 1


def _moved(
    suspect: Suspect, over: tuple[Window, Window], y: int, x: int, fill: int, place: str
) -> Hypothesis:
    """The layer over exactly the positions its windows cover, which begin ``y`` and ``x`` later."""
    data, view = suspect.inputs[0], suspect.view
    assert data is not None
    onnx = view.op == "QLinearConv"
    for axis, (window, by) in enumerate(zip(over, (y, x), strict=True), start=2 if onnx else 1):
        data = _positions(data, axis, np.arange(_needed(window)) - window.pad_before + by, fill)
    moved = with_input(view, 0, replace(view.input(0), shape=data.shape, shape_signature=None))
    if onnx:
        return Hypothesis(place, with_attributes(moved, auto_pad="NOTSET", pads=(0, 0, 0, 0)), data)
    return Hypothesis(place, with_attributes(moved, padding="VALID"), data)


def _zero_point(view: LayerView) -> int:
    """The zero point of the layer's input."""
    if view.op != "QLinearConv":
        return view.input(0).zero_point
    given = view.optional_input(2)
    return 0 if given is None or given.data is None else int(given.data.reshape(-1)[0])


def _positions(data: Array, axis: int, positions: Array, fill: int) -> Array:
    """The values at ``positions`` of an axis, ``fill`` where there are none."""
    size = data.shape[axis]
    taken = np.take(data, np.clip(positions, 0, size - 1), axis)
    outside = (positions < 0) | (positions >= size)
    shape = [1] * data.ndim
    shape[axis] = positions.size
    return np.where(outside.reshape(shape), np.array(fill, data.dtype), taken)
