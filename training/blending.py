"""Training Fine-Tune for blended tiles: it repairs tiles one by one, and the loss is that of their average.

Averaging tiles with different rounding errors smooths an image. A Fine-Tune that was trained without
averaging smooths it once more, and fine textures are lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from karat24.refimpl.errors import UsageError
from karat24.tomography.tiles import TileGrid, tile_weights
from training.model import FineTune

Float = NDArray[np.float32]

SIDE = 3
"""Tiles per side of a block: the middle tile only overlaps its neighbours."""


class BlendedFineTune(FineTune):
    """Fine-Tune between tiles and their average: ``[batch, 9, tile, tile]`` → ``[batch, 1, tile, tile]``.

    The input is a block of 3×3 tiles in row order, ``stride`` apart; the output is the image at the place of
    the middle tile.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Repairs each tile, then averages them as ``TileGrid.stitch`` does."""
        batch, _, tile, _ = x.shape
        repaired = super().forward(x.reshape(-1, 1, tile, tile)).reshape(batch, SIDE, SIDE, tile, tile)
        weight = torch.from_numpy(tile_weights(tile, tile)).to(x)
        side = tile + (SIDE - 1) * self.stride
        total, weights = x.new_zeros(batch, side, side), x.new_zeros(side, side)
        for row in range(SIDE):
            for column in range(SIDE):
                y, x_ = row * self.stride, column * self.stride
                place = (slice(y, y + tile), slice(x_, x_ + tile))
                total[:, *place] += weight * repaired[:, row, column]
                weights[place] += weight
        middle = slice(self.stride, self.stride + tile)
        return (total / weights)[:, None, middle, middle]


def blocks(
    tiles: Float, clean: Float, grid: TileGrid, batch: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ``(tiles [batch, 9, tile, tile], clean [batch, 1, tile, tile])``, turned and mirrored.

    ``tiles`` ``[slice, tile, y, x]`` are those of ``grid`` over each slice, ``clean`` is ``[slice, y, x]``.
    Raises UsageError for slices that hold no block, and for tiles that overlap more than their neighbours.
    """
    tile, stride = grid.tile_height, grid.tile_height - grid.overlap
    # The last tile of a row may be shifted back: only tiles a whole stride apart make blocks.
    along = (grid.height - tile) // stride + 1
    if 2 * stride < tile:
        raise UsageError(f"tiles of {tile} blended over {grid.overlap} overlap more than their neighbours")
    if along < SIDE:
        raise UsageError(
            f"slices of {grid.height} hold no {SIDE}×{SIDE} tiles of {tile}, {stride} apart; "
            "give larger ones (--crop)"
        )
    generator = np.random.default_rng(seed)
    square = tiles.reshape(len(tiles), grid.rows, grid.columns, tile, tile)
    while True:
        inputs, targets = [], []
        for _ in range(batch):
            n, row, column = generator.integers(len(clean)), *generator.integers(along - SIDE + 1, size=2)
            block = square[n, row : row + SIDE, column : column + SIDE]
            y, x = (row + 1) * stride, (column + 1) * stride
            target = clean[n, y : y + tile, x : x + tile]
            turns, mirror = generator.integers(4), generator.random() < 0.5
            block = np.rot90(np.rot90(block, turns, (0, 1)), turns, (2, 3))
            target = np.rot90(target, turns)
            if mirror:
                block, target = block[:, ::-1, :, ::-1], target[:, ::-1]
            inputs.append(block.reshape(-1, tile, tile))
            targets.append(target[None])
        yield torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))
