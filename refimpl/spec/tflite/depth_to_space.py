"""DEPTH_TO_SPACE and SPACE_TO_DEPTH: blocks of channels become blocks of pixels, and back. NHWC."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_arity,
    require_rank,
    require_same_dtype,
    require_shape,
)


def check_depth_to_space(view: LayerView) -> None:
    """Input ``[batch, y, x, channel]``, channels a multiple of ``block_size`` squared."""
    block = _block(view)
    batch, height, width, channels = view.input(0).shape
    require(
        view,
        channels % (block * block) == 0,
        f"{channels} channels must be a multiple of the squared block size {block * block}",
    )
    require_shape(view, view.output(), (batch, height * block, width * block, channels // (block * block)))


def check_space_to_depth(view: LayerView) -> None:
    """Input ``[batch, y, x, channel]``, y and x multiples of ``block_size``."""
    block = _block(view)
    batch, height, width, channels = view.input(0).shape
    require(
        view,
        height % block == 0 and width % block == 0,
        f"height {height} and width {width} must be multiples of the block size {block}",
    )
    require_shape(view, view.output(), (batch, height // block, width // block, channels * block * block))


def _block(view: LayerView) -> int:
    require_arity(view, 1)
    require_same_dtype(view, view.input(0), view.output())
    require_rank(view, view.input(0), 4)
    block = view.integer("block_size")
    require(view, block >= 1, f"block size {block}")
    return block


def depth_to_space(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """``output[n, y*b + i, x*b + j, c] = input[n, y, x, (i*b + j)*channels + c]``."""
    block, data = view.integer("block_size"), operand(values, 0)
    output = np.empty(view.output().shape, data.dtype)
    channels = output.shape[3]
    for i in range(block):
        for j in range(block):
            first = (i * block + j) * channels
            output[:, i::block, j::block, :] = data[:, :, :, first : first + channels]
    return SpecResult((output,))


def space_to_depth(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """``output[n, y, x, (i*b + j)*channels + c] = input[n, y*b + i, x*b + j, c]``."""
    block, data = view.integer("block_size"), operand(values, 0)
    output = np.empty(view.output().shape, data.dtype)
    channels = data.shape[3]
    for i in range(block):
        for j in range(block):
            first = (i * block + j) * channels
            output[:, :, :, first : first + channels] = data[:, i::block, j::block, :]
    return SpecResult((output,))
