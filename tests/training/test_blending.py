"""Training through the average of tiles: the same average as at work, whichever way a block is turned."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.refimpl.errors import UsageError  # noqa: E402
from karat24.tomography.tiles import TileGrid  # noqa: E402
from training.blending import BlendedFineTune, blocks  # noqa: E402
from training.model import FineTune  # noqa: E402

GRID = TileGrid(36, 36, 16, 16, blend=6)
"""Three tiles along each side, 10 apart."""


def cut(images: np.ndarray, grid: TileGrid) -> np.ndarray:
    return np.stack([grid.cut(image[..., None])[..., 0] for image in images])


def test_training_averages_tiles_as_stitching_does() -> None:
    torch.manual_seed(0)
    model = BlendedFineTune(stride=10)
    tiles = torch.rand(2, 9, 16, 16)
    with torch.no_grad():
        found = model(tiles).numpy()
        for block, middle in zip(tiles, found, strict=True):
            repaired = FineTune.forward(model, block[:, None]).numpy().transpose(0, 2, 3, 1)
            stitched = GRID.stitch(repaired)[10:26, 10:26, 0]
            np.testing.assert_allclose(middle[0], stitched, atol=1e-6)


@pytest.mark.parametrize("size", [36, 55])
def test_augmentation_turns_input_and_target_alike(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of the clean slice itself average to it, whichever way turned; a size whose last tile is
    shifted back (55: starts 0, 10, 20, 30, 39) too."""
    monkeypatch.setattr(FineTune, "forward", lambda self, x: x)
    clean = np.random.default_rng(0).random((3, size, size), np.float32)
    grid = TileGrid(size, size, 16, 16, blend=6)
    batches = blocks(cut(clean, grid), clean, grid, batch=32, seed=0)
    given, target = next(batches)
    assert given.shape == (32, 9, 16, 16)
    torch.testing.assert_close(BlendedFineTune(stride=10)(given), target, atol=1e-6, rtol=0)
    assert len({image.numpy().tobytes() for image in target}) > 8


def test_slices_without_a_block_are_refused() -> None:
    clean = np.zeros((1, 35, 35), np.float32)
    small = TileGrid(35, 35, 16, 16, blend=6)
    with pytest.raises(UsageError, match="slices of 35 hold no 3×3 tiles of 16, 10 apart"):
        next(blocks(cut(clean, small), clean, small, 1, 0))
    wide = TileGrid(35, 35, 16, 16, blend=9)
    with pytest.raises(UsageError, match="more than their neighbours"):
        next(blocks(cut(clean, wide), clean, wide, 1, 0))
