"""Cutting an image into tiles of a fixed size and stitching what a network made of them.

Devices with a fixed input size (the paper's 64×64 on an Edge TPU) see an image
tile by tile. Without overlap a network sees a false border at every seam. With a
halo the tiles overlap, and what lies within ``halo`` pixels of a seam is computed
twice and kept from neither border. Blended, what overlaps is averaged instead, each
tile weighing less towards its border: no work is thrown away, and the
average of values rounded in several ways is finer than any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class _Span:
    """One tile along one axis: it covers ``start`` onwards, and ``kept`` of the image comes from it."""

    start: int
    kept: slice

    @property
    def inside(self) -> slice:
        """The kept part in the tile's own coordinates."""
        return slice(self.kept.start - self.start, self.kept.stop - self.start)


def tile_weights(height: int, width: int) -> Array:
    """What each pixel of a blended tile weighs, float64 ``[y, x]``: 1 in a corner, rising linearly from
    every border."""
    rows, columns = (np.minimum(np.arange(1.0, n + 1.0), np.arange(n, 0.0, -1.0)) for n in (height, width))
    weights: Array = np.outer(rows, columns)
    return weights


@dataclass(frozen=True)
class TileGrid:
    """How an image of ``height`` × ``width`` is covered by tiles of one size.

    Neighbouring tiles overlap by ``2 * halo`` and meet in the middle of the
    overlap, or by ``blend`` and are averaged there, with weights falling linearly
    to each tile's border. Tiles stay inside the image: the last of a row or column
    is shifted back to end at the border, and only an image smaller than a tile is
    enlarged, by repeating its border pixels. A network that pools by 8 computes the
    same in a tile as in the whole image only where tiles start at multiples of 8:
    with a halo, choose sizes so that ``tile - 2 * halo`` and ``image - tile`` are.
    Blended tiles had better not: with an odd ``tile - blend``, what is averaged was
    pooled at every phase.

    Raises UsageError for sizes below 1, for an overlap as wide as a tile, and for both overlaps at once.
    """

    height: int
    width: int
    tile_height: int = 64
    tile_width: int = 64
    halo: int = 0
    blend: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.tile_height, self.tile_width) < 1:
            raise UsageError(f"{self}: sizes must be at least 1")
        if min(self.halo, self.blend) < 0:
            raise UsageError(f"{self}: halo and blend must be at least 0")
        if self.halo and self.blend:
            raise UsageError(f"{self}: tiles have a halo or are blended, not both")
        for image, tile in ((self.height, self.tile_height), (self.width, self.tile_width)):
            if tile < image and tile <= self.overlap:
                name, pixels = ("blend", self.blend) if self.blend else ("halo", self.halo)
                raise UsageError(f"a {name} of {pixels} leaves nothing of tiles of {tile}")

    @property
    def overlap(self) -> int:
        """Pixels by which neighbouring tiles overlap; the last of a row or column may overlap by more."""
        return self.blend or 2 * self.halo

    @property
    def rows(self) -> int:
        """Tiles per column."""
        return len(self._spans(self.height, self.tile_height))

    @property
    def columns(self) -> int:
        """Tiles per row."""
        return len(self._spans(self.width, self.tile_width))

    @property
    def count(self) -> int:
        """Tiles in all, in row order."""
        return self.rows * self.columns

    def _spans(self, image: int, tile: int) -> list[_Span]:
        if image <= tile:
            return [_Span(0, slice(0, image))]
        spans: list[_Span] = []
        kept = start = 0
        while kept < image:
            last = start + tile >= image
            start = image - tile if last else start
            end = image if last else start + tile - self.overlap // 2
            spans.append(_Span(start, slice(kept, end)))
            kept, start = end, start + tile - self.overlap
        return spans

    def _tiles(self) -> Iterator[tuple[_Span, _Span]]:
        columns = self._spans(self.width, self.tile_width)
        for row in self._spans(self.height, self.tile_height):
            for column in columns:
                yield row, column

    def cut(self, image: Array) -> Array:
        """The tiles of ``image`` [y, x, channel], as [tile, y, x, channel] in row order.

        Raises FeedError for an image of another size.
        """
        if image.ndim != 3 or image.shape[:2] != (self.height, self.width):
            raise FeedError(
                f"the grid cuts images of shape ({self.height}, {self.width}, channels), got {image.shape}"
            )
        missing = (max(self.tile_height - self.height, 0), max(self.tile_width - self.width, 0))
        if any(missing):
            image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        tiles = np.empty((self.count, self.tile_height, self.tile_width, image.shape[2]), image.dtype)
        for tile, (row, column) in zip(tiles, self._tiles(), strict=True):
            tile[...] = image[
                row.start : row.start + self.tile_height, column.start : column.start + self.tile_width
            ]
        return tiles

    def stitch(self, tiles: Array) -> Array:
        """The image [y, x, channel] whose tiles, in row order, are ``tiles`` [tile, y, x, channel].

        ``stitch(cut(image))`` is the image: overlaps are discarded, or, blended, averaged in float64
        and rounded to the tiles' type. Raises FeedError for another number or size of tiles, and for
        integers where tiles are blended: an average of integers may not be one.
        """
        if tiles.ndim != 4 or tiles.shape[:3] != (self.count, self.tile_height, self.tile_width):
            raise FeedError(
                f"the grid stitches tiles of shape ({self.count}, {self.tile_height}, {self.tile_width}, "
                f"channels), got {tiles.shape}"
            )
        if self.blend:
            return self._blended(tiles)
        image = np.empty((self.height, self.width, tiles.shape[3]), tiles.dtype)
        for tile, (row, column) in zip(tiles, self._tiles(), strict=True):
            image[row.kept, column.kept] = tile[row.inside, column.inside]
        return image

    def _blended(self, tiles: Array) -> Array:
        if not np.issubdtype(tiles.dtype, np.floating):
            raise FeedError(f"tiles of {tiles.dtype} cannot be blended; dequantize them first")
        weight = tile_weights(self.tile_height, self.tile_width)[..., np.newaxis]
        # Small images were enlarged; what was added is cut off at the end.
        shape = (max(self.height, self.tile_height), max(self.width, self.tile_width))
        total, weights = np.zeros((*shape, tiles.shape[3])), np.zeros((*shape, 1))
        for tile, (row, column) in zip(tiles, self._tiles(), strict=True):
            place = (
                slice(row.start, row.start + self.tile_height),
                slice(column.start, column.start + self.tile_width),
            )
            total[place] += weight * tile
            weights[place] += weight
        image: Array = (total / weights)[: self.height, : self.width].astype(tiles.dtype)
        return image

    def map(self, run: Callable[[Array], Array], image: Array, batch: int = 1) -> Array:
        """Cuts, runs ``batch`` tiles at a time, and stitches.

        ``run`` takes and gives [batch, y, x, channel]. The last batch is filled
        up with copies of its last tile, since exported models have a fixed batch.
        """
        if batch < 1:
            raise UsageError(f"a batch of {batch} tiles; at least one is needed")
        tiles = self.cut(image)
        results = []
        for first in range(0, self.count, batch):
            given = tiles[first : first + batch]
            filled = np.concatenate([given, np.repeat(given[-1:], batch - len(given), axis=0)])
            results.append(run(filled)[: len(given)])
        return self.stitch(np.concatenate(results))
