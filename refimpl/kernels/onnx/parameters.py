"""Scales, zero points and windows of ONNX layers, read from their inputs and attributes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import LayerView


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
    """A tensor's, from the inputs at these positions, which the op's check has found to be constant."""
    scales = view.input(scale).data
    assert scales is not None
    values = tuple(float(value) for value in scales.reshape(-1))
    stored = view.optional_input(zero_point)
    if stored is None or stored.data is None:
        return Parameters(values, (0,) * len(values))
    zeros = np.broadcast_to(stored.data.reshape(-1), len(values))
    return Parameters(values, tuple(int(value) for value in zeros))


def has_one_constant_scale(view: LayerView, scale: int, zero_point: int) -> bool:
    """False where there are several scales, one of float16, or the graph computes one or its zero point."""
    scales, stored = view.input(scale).data, view.optional_input(zero_point)
    if scales is None or scales.size != 1 or scales.dtype != np.float32:
        return False
    return stored is None or stored.data is not None


@dataclass(frozen=True)
class Window:
    """A window on NCHW images, one number for y and one for x."""

    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    """Rows above and columns before the image that windows reach."""


def window(view: LayerView, kernel: tuple[int, int]) -> Window:
    """The layer's, from ``strides``, ``dilations``, ``pads``, ``auto_pad`` and sizes of image and output."""
    image, output = view.input(0).shape[2:], view.output().shape[2:]
    strides, dilations = view.integers("strides", (1, 1)), view.integers("dilations", (1, 1))
    pads, auto_pad = view.integers("pads", (0, 0, 0, 0)), view.text("auto_pad", "NOTSET")
    before = []
    for axis in (0, 1):
        reach = (output[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        first = pads[axis] if auto_pad == "NOTSET" else 0
        if auto_pad.startswith("SAME"):
            total = max(reach - image[axis], 0)
            first = (total + 1) // 2 if auto_pad == "SAME_LOWER" else total // 2
        before.append(first)
    return Window((strides[0], strides[1]), (dilations[0], dilations[1]), (before[0], before[1]))
