"""Tiles: nothing is lost, nothing is invented, seams stay a halo away from tile borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.tiles import TileGrid

SIZES = st.integers(1, 40)


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile_height, tile_width = draw(SIZES), draw(SIZES)
    halo = draw(st.integers(0, (min(tile_height, tile_width) - 1) // 2))
    return TileGrid(draw(SIZES), draw(SIZES), tile_height, tile_width, halo)


@st.composite
def blended(draw: st.DrawFn) -> TileGrid:
    tile_height, tile_width = draw(SIZES), draw(SIZES)
    blend = draw(st.integers(0, min(tile_height, tile_width) - 1))
    return TileGrid(draw(SIZES), draw(SIZES), tile_height, tile_width, blend=blend)


def numbered(grid: TileGrid) -> Array:
    """An image whose every pixel is its own number."""
    return np.arange(grid.height * grid.width * 2, dtype=np.int32).reshape(grid.height, grid.width, 2)


@given(grids())
@settings(deadline=None, max_examples=300)
def test_stitching_what_was_cut_gives_the_image(grid: TileGrid) -> None:
    image = numbered(grid)
    assert np.array_equal(grid.stitch(grid.cut(image)), image)


@given(blended())
@settings(deadline=None, max_examples=200)
def test_blending_what_was_cut_gives_the_image(grid: TileGrid) -> None:
    """Equal values average to themselves, exactly: float32 values have 24 bits, weights at most 9."""
    image = numbered(grid).astype(np.float32) + np.float32(0.1)
    assert np.array_equal(grid.stitch(grid.cut(image)), image)


def test_blending_weights_pixels_by_distance_to_the_border() -> None:
    """Tiles of 4 on 6 pixels, blend 2: pixels 2 and 3 lie in both, 2 and 1 (1 and 2) pixels from a border."""
    grid = TileGrid(4, 6, 4, 4, blend=2)
    tiles = np.stack([np.full((4, 4, 1), 3.0, np.float32), np.full((4, 4, 1), 9.0, np.float32)])
    assert grid.count == 2
    assert grid.stitch(tiles)[..., 0].tolist() == [[3.0, 3.0, 5.0, 7.0, 9.0, 9.0]] * 4


@pytest.mark.parametrize(("blend", "count"), [(31, 31 * 31), (39, 40 * 40)])
def test_blended_tiles_start_at_every_phase_of_pooling_by_eight(blend: int, count: int) -> None:
    """As many tiles as with a halo of 16, and the default of the demonstration."""
    grid = TileGrid(1024, 1024, blend=blend)
    starts = grid.cut(numbered(grid)[:, :, :1])[: grid.columns, 0, 0, 0] // 2
    assert grid.count == count
    assert set(starts % 8) == set(range(8))


@given(grids())
@settings(deadline=None, max_examples=300)
def test_kept_pixels_lie_a_halo_away_from_seams(grid: TileGrid) -> None:
    """Marking each tile's outer halo must leave marks only at the image's own border."""
    tiles = np.zeros((grid.count, grid.tile_height, grid.tile_width, 1), np.uint8)
    if grid.halo:
        tiles[:, : grid.halo] = tiles[:, -grid.halo :] = 1
        tiles[:, :, : grid.halo] = tiles[:, :, -grid.halo :] = 1
    marked = np.argwhere(grid.stitch(tiles)[:, :, 0])
    for y, x in marked:
        near_y = y < grid.halo or y >= grid.height - grid.halo
        near_x = x < grid.halo or x >= grid.width - grid.halo
        assert near_y or near_x, (y, x)


@given(grids())
@settings(deadline=None, max_examples=100)
def test_tiles_hold_pixels_of_the_image_in_their_places(grid: TileGrid) -> None:
    """A tile is a window of the image: its columns differ by one pixel number, unless enlarged."""
    tiles = grid.cut(numbered(grid))
    if grid.width >= grid.tile_width and grid.height >= grid.tile_height:
        assert np.all(np.diff(tiles, axis=2) == 2)
        assert np.all(np.diff(tiles, axis=1) == 2 * grid.width)


def test_the_papers_tiles() -> None:
    """1024×1024 in 64×64 is 256 tiles, without overlap, in row order."""
    grid = TileGrid(1024, 1024)
    assert (grid.rows, grid.columns, grid.count) == (16, 16, 256)
    image = numbered(grid)
    tiles = grid.cut(image)
    assert np.array_equal(tiles[17], image[64:128, 64:128])


def test_a_halo_of_eight_keeps_starts_at_multiples_of_eight() -> None:
    grid = TileGrid(1024, 1024, halo=8)
    assert grid.rows == 21
    image = numbered(grid)[:, :, :1]
    starts = grid.cut(image)[: grid.columns, 0, 0, 0] // 2
    assert np.all(starts % 8 == 0)


def test_a_small_image_is_enlarged_with_its_border() -> None:
    grid = TileGrid(2, 3, 4, 4)
    tile = grid.cut(np.array([[[1], [2], [3]], [[4], [5], [6]]], np.uint8))[0, :, :, 0]
    assert tile.tolist() == [[1, 2, 3, 3], [4, 5, 6, 6], [4, 5, 6, 6], [4, 5, 6, 6]]


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_map_runs_full_batches_and_keeps_order(batch: int) -> None:
    """Six tiles: batches that divide the count, that do not, and one larger than it."""
    grid = TileGrid(20, 30, 10, 10)
    image = numbered(grid)
    seen = []

    def run(tiles: Array) -> Array:
        seen.append(len(tiles))
        return tiles[:, :, :, :1] + 1

    assert np.array_equal(grid.map(run, image, batch), image[:, :, :1] + 1)
    assert set(seen) == {batch}


def test_a_halo_hides_seams_from_a_filter() -> None:
    """A 3×3 mean with zero padding: halo 1 gives the whole image's result, halo 0 does not."""

    def blur(tiles: Array) -> Array:
        padded = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = tiles.shape[1:3]
        return sum(padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3))

    image = np.random.default_rng(0).integers(0, 9, (37, 41, 1))
    whole = blur(image[None])[0]
    assert np.array_equal(TileGrid(37, 41, 16, 16, halo=1).map(blur, image), whole)
    assert not np.array_equal(TileGrid(37, 41, 16, 16).map(blur, image), whole)


def test_wrong_sizes_are_refused() -> None:
    grid = TileGrid(8, 8, 4, 4)
    with pytest.raises(FeedError, match=r"\(8, 8, channels\), got \(8, 9, 1\)"):
        grid.cut(np.zeros((8, 9, 1)))
    with pytest.raises(FeedError, match=r"\(4, 4, 4, channels\), got \(3, 4, 4, 1\)"):
        grid.stitch(np.zeros((3, 4, 4, 1)))
    with pytest.raises(UsageError, match="leaves nothing"):
        TileGrid(8, 8, 4, 4, halo=2)
    with pytest.raises(UsageError, match="a blend of 4 leaves nothing"):
        TileGrid(8, 8, 4, 4, blend=4)
    with pytest.raises(UsageError, match="not both"):
        TileGrid(8, 8, 4, 4, halo=1, blend=1)
    with pytest.raises(UsageError, match="at least 1"):
        TileGrid(0, 8)
    with pytest.raises(UsageError, match="at least 0"):
        TileGrid(8, 8, 4, 4, blend=-1)
    with pytest.raises(FeedError, match="int8 cannot be blended"):
        TileGrid(8, 8, 4, 4, blend=1).stitch(np.zeros((9, 4, 4, 1), np.int8))
    with pytest.raises(UsageError, match="batch of 0"):
        grid.map(lambda tiles: tiles, np.zeros((8, 8, 1)), 0)
