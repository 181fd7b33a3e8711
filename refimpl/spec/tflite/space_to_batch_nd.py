"""SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: pixels a stride apart become images of their own, and back.

Converters write dilated convolutions as such a pair. NHWC, or ``[batch, x, channel]``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import QUANTIZED_RANGE, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    constant_integers,
    operand,
    require,
    require_arity,
    require_rank,
    require_same_dtype,
    require_shape,
)

Borders = tuple[tuple[int, int], ...]


def check_space_to_batch_nd(view: LayerView) -> None:
    """Inputs: data of 3 or 4 dimensions, block (int32 constant, one per spatial dimension), paddings
    (int32 constant ``[spatial, 2]``). Padded sizes are multiples of the block."""
    block, paddings = _block_and_borders(view, "the list of paddings")
    data = view.input(0)
    padded = [n + a + b for n, (a, b) in zip(data.shape[1:-1], paddings, strict=True)]
    require(
        view,
        all(size % factor == 0 for size, factor in zip(padded, block, strict=True)),
        f"padded sizes {padded} must be multiples of the block {block}",
    )
    sizes = (size // factor for size, factor in zip(padded, block, strict=True))
    require_shape(view, view.output(), (data.shape[0] * math.prod(block), *sizes, data.shape[-1]))


def check_batch_to_space_nd(view: LayerView) -> None:
    """Inputs as of SPACE_TO_BATCH_ND, with crops in place of paddings."""
    block, crops = _block_and_borders(view, "the list of crops")
    data = view.input(0)
    require(
        view,
        data.shape[0] % math.prod(block) == 0,
        f"a batch of {data.shape[0]} must be a multiple of the block {block}",
    )
    sizes = [n * k - a - b for n, k, (a, b) in zip(data.shape[1:-1], block, crops, strict=True)]
    require(view, all(size >= 0 for size in sizes), f"crops {crops} exceed the image")
    require_shape(view, view.output(), (data.shape[0] // math.prod(block), *sizes, data.shape[-1]))


def _block_and_borders(view: LayerView, what: str) -> tuple[tuple[int, ...], Borders]:
    require_arity(view, 3)
    data = view.input(0)
    require_same_dtype(view, data, view.output())
    require_rank(view, data, 3, 4)
    spatial = len(data.shape) - 2
    block = constant_integers(view, 1, "the block", (spatial,))
    require(view, all(factor >= 1 for factor in block), f"block {block} needs sizes of 1 or more")
    flat = constant_integers(view, 2, what, (spatial, 2))
    require(view, all(count >= 0 for count in flat), f"{what} {flat} holds a negative number")
    return block, tuple((flat[2 * axis], flat[2 * axis + 1]) for axis in range(spatial))


def space_to_batch_nd(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """Image ``n + batch * offset`` of the output holds the pixels at ``offset`` within each block,
    offsets counted row by row; padding is the quantized zero."""
    data, output = operand(values, 0), view.output()
    block, paddings = _block_and_borders(view, "the list of paddings")
    zero = 0
    if output.dtype in QUANTIZED_RANGE and output.quantization is not None:
        zero = output.quantization.zero_point[0]
    padded = np.pad(data, ((0, 0), *paddings, (0, 0)), constant_values=zero)
    images = [
        padded[(slice(None), *_every(offset, block))]
        for offset in itertools.product(*(range(factor) for factor in block))
    ]
    return SpecResult((np.concatenate(images, axis=0),))


def batch_to_space_nd(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """The inverse of SPACE_TO_BATCH_ND, then the crops."""
    data = operand(values, 0)
    block, crops = _block_and_borders(view, "the list of crops")
    batch = data.shape[0] // math.prod(block)
    sizes = [size * factor for size, factor in zip(data.shape[1:-1], block, strict=True)]
    whole = np.empty((batch, *sizes, data.shape[-1]), data.dtype)
    for number, offset in enumerate(itertools.product(*(range(factor) for factor in block))):
        whole[(slice(None), *_every(offset, block))] = data[number * batch : (number + 1) * batch]
    kept = tuple(slice(before, size - after) for size, (before, after) in zip(sizes, crops, strict=True))
    return SpecResult((np.array(whole[(slice(None), *kept)]),))


def _every(offset: tuple[int, ...], block: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(first, None, factor) for first, factor in zip(offset, block, strict=True))
