"""The slice selector: which slices it sends to be denoised, and what a clean one costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.export.quantize import output_range
from karat24.refimpl.cost import count
from karat24.refimpl.errors import FeedError, ModelError
from karat24.refimpl.networks import slice_selector, tomogan, trained_weights
from karat24.tomography.imaging.simulate import simulate_stack
from karat24.tomography.selection import (
    CROP,
    SliceSelector,
    crops_of,
    quantized_selector,
    restore_selected,
    shipped_selector,
)


@pytest.fixture(scope="module")
def selector() -> SliceSelector:
    return shipped_selector(threads=1)


def test_a_noisy_slice_is_restored_and_a_clean_one_is_not_touched(selector: SliceSelector) -> None:
    stack = simulate_stack("foam", 96, 3, split="validation")
    seen = []

    def restored(window: np.ndarray) -> np.ndarray:
        seen.append(window)
        return np.zeros(window.shape[:2], np.float32)

    for images, noisy in ((stack.noisy, True), (stack.clean, False)):
        window = np.ascontiguousarray(images.transpose(1, 2, 0))
        image, changed = restore_selected(window, selector, restored)
        assert changed == noisy
        assert np.array_equal(image, np.zeros((96, 96)) if noisy else images[1])
    assert len(seen) == 1


def test_crops_lie_inside_whatever_the_size() -> None:
    """Of the least size there is one place; of a long one they lie apart, in row order."""
    assert all(np.array_equal(crop, np.ones((CROP, CROP, 3))) for crop in crops_of(np.ones((CROP, CROP, 3))))
    rows, columns = np.mgrid[:100, :400]
    window = np.stack([rows, columns, rows], 2).astype(np.float32)
    corners = [tuple(crop[0, 0, :2]) for crop in crops_of(window)]
    assert corners == [(0, 88), (0, 248), (36, 88), (36, 248)]
    assert {crop.shape for crop in crops_of(window)} == {(CROP, CROP, 3)}


@pytest.mark.parametrize("shape", [(CROP - 1, CROP, 3), (CROP, CROP - 1, 3), (CROP, CROP, 1), (CROP, CROP)])
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...], selector: SliceSelector) -> None:
    with pytest.raises(FeedError, match="at least 64×64"):
        selector.score(np.zeros(shape, np.float32))


def test_scores_are_added_and_a_tie_is_clean(selector: SliceSelector) -> None:
    class Scripted:
        def __init__(self, pairs: list[tuple[float, float]]) -> None:
            self.pairs = iter(pairs)

        def __call__(self, crop: np.ndarray) -> np.ndarray:
            return np.array(next(self.pairs), np.float32).reshape(1, 1, 1, 2)

    window = np.zeros((CROP, CROP, 3), np.float32)
    for pairs, score in (([(1, 0)] * 3 + [(0, 4)], 1.0), ([(1, 2), (2, 1)] * 2, 0.0), ([(0, -1)] * 4, -4.0)):
        scripted = replace(selector, network=Scripted(pairs))
        assert scripted.score(window) == score
    assert not replace(selector, network=Scripted([(1, 2), (2, 1)] * 2)).needs_denoising(window)


def test_it_is_small_and_reads_what_tomogan_reads() -> None:
    graph = slice_selector()
    assert count(graph).parameters == 1410
    assert 4 * count(graph).macs < count(tomogan(1024, 1024)).macs / 10_000
    weights = trained_weights("slice-selector")
    assert weights is not None
    with pytest.raises(ModelError, match="'extra' is not a weight"):
        slice_selector(weights={**weights, "extra": np.zeros(1, np.float32)})
    low, high = output_range(quantized_selector()).low, output_range(quantized_selector()).high
    assert low < 0 < high
