"""How the Edge TPU's compiler lays out a layer's parameters.

A layer with a filter is cut into blocks of output channels, one after another. A block of n channels
is ``[multiplier, float32 × n][bias, int32 × n][filter zero point, int32 × n][filter]``:

* multipliers only where the filter has several scales, which differ;
* biases left out by some compilers where the layer has none or all are zero;
* zero points only where the filter has several scales: always 128, which int8 weights have as
  unsigned bytes.

The filter is ``[in_channels / 4t][y][x][t][n][4]``: groups of 4 input channels, t of them at a time
inside the loop over the window. What fills up 4 input channels, or 4 output channels, is the filter's
zero point; output channels beyond those are 0, in every part. Multipliers that fill up 4 output
channels repeat the first one; those beyond are 0, or 1 in a layer of several blocks. A depthwise
filter's blocks have 4 channels; each tap is a 4×4 matrix with the weights on its diagonal.

Measured on 147 public pairs; a :class:`Form` and t are what varies between compilers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from karat24.golden.edgetpu.arithmetic import multipliers
from karat24.golden.edgetpu.structure import require_filter
from karat24.refimpl.graph import Array, LayerView

UNSIGNED_INT8_ZERO = 128


@dataclass(frozen=True)
class Field:
    """One part of a block, as it lies in the file."""

    name: str
    values: Array


@dataclass(frozen=True)
class Weights:
    """A layer's filter as the device has it.

    ``filter`` is uint8 OHWI, of a depthwise layer ``[y, x, channel]``, and ``zero_point`` fills it up.
    ``bias`` is int32 per output channel. ``multiplier`` (float32) and ``zero_points`` (int32) are per
    output channel too, or empty where one value serves all and stands in the instructions.
    """

    filter: Array
    zero_point: int
    bias: Array
    multiplier: Array
    zero_points: Array
    depthwise: bool

    @property
    def channels(self) -> int:
        """Output channels."""
        return int(self.filter.shape[-1 if self.depthwise else 0])

    @property
    def tap_groups(self) -> int:
        """Groups of 4 input channels."""
        return 1 if self.depthwise else -(-int(self.filter.shape[3]) // 4)

    def positions(self) -> Weights:
        """In place of each value where it comes from: its position in its own array plus 1, and 0
        for what fills up."""

        def numbered(array: Array) -> Array:
            numbers: Array = np.arange(1, array.size + 1).reshape(array.shape)
            return numbers

        return Weights(
            numbered(self.filter),
            0,
            numbered(self.bias),
            numbered(self.multiplier),
            numbered(self.zero_points),
            self.depthwise,
        )


@dataclass(frozen=True)
class Form:
    """What differs between compilers: whether biases are stored, output channels per block, and
    multipliers that fill up 4 channels and a block."""

    bias: bool
    block: int
    filling: tuple[float, float]


def layer_weights(view: LayerView) -> Weights:
    """The weights of CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED.

    A depthwise filter over a single input channel is laid out as an ordinary one. Raises UnsupportedOp
    for tensors of other kinds and sizes than pairs show (``structure.py``).
    """
    require_filter(view)
    filter_, bias = view.input(1), view.optional_input(2)
    assert filter_.quantization is not None
    values: Array = np.asarray(filter_.data).view(np.uint8)
    zero_point = filter_.quantization.zero_point[0]
    if filter_.dtype == "int8":
        values, zero_point = values ^ np.uint8(0x80), zero_point + UNSIGNED_INT8_ZERO
    depthwise = view.op == "DEPTHWISE_CONV_2D"
    if depthwise:
        values = values[0]
        if view.input(0).shape[-1] == 1 and values.shape[-1] > 1:
            values, depthwise = values.transpose(2, 0, 1)[..., np.newaxis], False
    elif values.ndim == 2:
        values = values[:, np.newaxis, np.newaxis, :]
    channels = values.shape[-1 if depthwise else 0]
    has_bias = bias is not None and bias.data is not None
    biases = (
        np.asarray(bias.data).astype("<i4") if bias is not None and has_bias else np.zeros(channels, "<i4")
    )
    factors = multipliers(view).astype("<f4")
    several = filter_.quantization.per_channel
    return Weights(
        np.ascontiguousarray(values),
        zero_point,
        biases,
        factors if several and len(np.unique(factors)) > 1 else np.empty(0, "<f4"),
        np.full(channels if several else 0, UNSIGNED_INT8_ZERO, "<i4"),
        depthwise,
    )


def windowed(weights: Weights, shape: tuple[int, ...]) -> Weights | None:
    """A fully connected layer fed by an image, as the convolution over all of it; None where it is none.

    ``shape`` is ``[1, y, x, channel]`` of the tensor that is flattened into the layer's input.
    """
    if (
        len(shape) != 4
        or math.prod(shape[1:3]) < 2
        or math.prod(shape) != math.prod(weights.filter.shape[1:])
    ):
        return None
    return replace(weights, filter=weights.filter.reshape(weights.channels, *shape[1:]))


def forms(weights: Weights) -> Iterator[Form]:
    """Every form a compiler may have chosen, the usual one first."""
    if weights.depthwise:
        blocks = [4]
    elif weights.channels > 64:
        blocks = [64]
    else:
        blocks = sorted({-(-weights.channels // n) * n for n in (16, 4)}, reverse=True)
    biases = [True] if weights.bias.any() else [True, False]
    for block, bias in itertools.product(blocks, biases):
        filled = weights.multiplier.size and weights.channels % block
        for filling in _fillings(weights) if filled else [(0.0, 0.0)]:
            yield Form(bias, block, filling)


def tiles(weights: Weights) -> list[int]:
    """Groups of input channels a block may keep inside the window's loop; usually all."""
    groups = weights.tap_groups
    if weights.depthwise or weights.filter.shape[1] * weights.filter.shape[2] == 1:
        return [groups]
    return [tile for tile in range(groups, 0, -1) if groups % tile == 0]


def _fillings(weights: Weights) -> list[tuple[float, float]]:
    """Multipliers that fill up 4 channels, and those that fill up a block; the usual pair first."""
    beyond = (1.0, 0.0) if weights.channels > 64 else (0.0, 1.0)
    return list(itertools.product((float(weights.multiplier[0]), 0.0, 1.0), beyond))


def block_fields(weights: Weights, form: Form, first: int, tile: int) -> tuple[Field, ...]:
    """The parts of the block whose first output channel is ``first``."""
    channels = np.arange(first, min(first + form.block, weights.channels))
    filled = _up_to_4(len(channels))
    parts = []
    if weights.multiplier.size:
        multiplier = _per_channel("multiplier", weights.multiplier, channels, form.block)
        multiplier.values[len(channels) : filled] = form.filling[0]
        multiplier.values[filled:] = form.filling[1]
        parts.append(multiplier)
    if form.bias:
        parts.append(_per_channel("bias", weights.bias, channels, form.block))
    if weights.zero_points.size:
        zero_points = _per_channel("filter zero point", weights.zero_points, channels, form.block)
        zero_points.values[len(channels) : filled] = weights.zero_point
        parts.append(zero_points)
    parts.append(Field("filter", _filter(weights, channels, form.block, tile)))
    return tuple(parts)


def encoded(block: Iterable[Field]) -> bytes:
    """A block's bytes."""
    return b"".join(field.values.tobytes() for field in block)


def _up_to_4(count: int) -> int:
    return -(-count // 4) * 4


def _per_channel(name: str, values: Array, channels: Array, block: int) -> Field:
    filled = np.zeros(block, values.dtype)
    filled[: len(channels)] = values[channels]
    return Field(name, filled)


def _filter(weights: Weights, channels: Array, block: int, tile: int) -> Array:
    values = weights.filter
    if weights.depthwise:
        taps = values.shape[0] * values.shape[1]
        matrices = np.full((taps, 4, 4), weights.zero_point, values.dtype)
        for lane, channel in enumerate(channels):
            matrices[:, lane, lane] = values[..., channel].reshape(-1)
        return matrices.reshape(-1)
    height, width, depth = values.shape[1:]
    groups = weights.tap_groups
    padded = np.zeros((block, height, width, 4 * groups), values.dtype)
    padded[: _up_to_4(len(channels))] = weights.zero_point
    padded[: len(channels), :, :, :depth] = values[channels]
    split = padded.reshape(block, height, width, groups // tile, tile, 4)
    return split.transpose(3, 1, 2, 4, 0, 5).reshape(-1)
