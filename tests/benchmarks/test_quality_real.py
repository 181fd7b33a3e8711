"""Measures against noisy references, and total variation that has converged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_tv_chambolle

from benchmarks.quality import field, real
from benchmarks.quality.corrected import References
from benchmarks.quality.metrics import ssim
from benchmarks.quality.total_variation import converged_total_variation, energy
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array

SIDE = 192


def truth() -> Array:
    """Blocks with a fine texture."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.uniform(0.2, 0.8, (8, 8)), np.ones((SIDE // 8, SIDE // 8)))
    texture = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 1.0)
    return (blocks + 0.03 * texture / texture.std()).astype(np.float32)


def noisy(seed: int, deviation: float = 0.05) -> Array:
    noise = np.random.default_rng(seed).normal(0, deviation, (SIDE, SIDE))
    return (truth() + noise).astype(np.float32)


@pytest.fixture(scope="module")
def references() -> References:
    return References(noisy(1), noisy(2), np.ones((SIDE, SIDE), bool))


def test_plain_similarity_to_a_noisy_reference_prefers_noise_and_the_corrected_one_the_truth(
    references: References,
) -> None:
    worse, better = noisy(1), truth()
    assert references.similarity(better) > references.similarity(worse) + 0.1
    assert references.similarity(better) > 0.85
    assert ssim(references.independent, better) < 0.75


def test_the_error_is_that_against_the_truth(references: References) -> None:
    image = gaussian_filter(noisy(3), 1.0)
    exact = float(np.sqrt(np.mean((image - truth()) ** 2)))
    assert references.error(image) == pytest.approx(exact, rel=0.1)
    assert references.error(truth()) < 0.01


def test_detail_kept_is_a_share_of_the_truths_whatever_noise_there_is(references: References) -> None:
    assert references.detail_kept(truth()) == pytest.approx(1.0, abs=0.05)
    assert references.detail_kept(noisy(3)) == pytest.approx(1.0, abs=0.05)
    assert references.detail_kept(np.zeros((SIDE, SIDE), np.float32)) == 0.0
    half = 0.5 * (truth() + gaussian_filter(truth(), 5.0))
    assert references.detail_kept(half) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("weight", [0.2, 0.5])
def test_converged_total_variation_goes_lower_than_scikit_images(weight: float) -> None:
    """And as low as scikit-image's when that is not allowed to stop."""
    image = noisy(4, 0.2)
    found = energy(converged_total_variation(image, weight), image, weight)
    early = energy(denoise_tv_chambolle(image, weight=weight), image, weight)
    late = energy(denoise_tv_chambolle(image, weight=weight, eps=1e-9, max_num_iter=2000), image, weight)
    assert found < early * 0.999
    assert found <= late * 1.001


def test_tables_of_the_field_mark_the_best_method() -> None:
    found = [
        field.Found("similarity", "wood", "input", 0.4),
        field.Found("similarity", "wood", "float", 0.9),
        field.Found("without noise", "wood", "float", 1.0),
    ]
    texts = field.tables(found)
    assert "| wood | 0.400 | **0.900** |" in texts["quality: field, similarity"]
    assert "| wood | 1.000 |" in texts["quality: field, without noise"]


def test_the_tooth_reconstructs_to_two_rows_that_agree(tmp_path: Path) -> None:
    """The reference is nearly the same slice with noise of its own; rows count up to the table."""
    scan = Path("../shared/scans/tooth_aps/tooth.h5")
    if not scan.is_file():
        pytest.skip(f"{scan} is not there: the tooth of tomopy's repository")
    rows = real.reconstructed(scan, 4)
    assert rows.shape == (2, 640, 640)
    inside = rows[:, 200:440, 200:440]
    assert float(np.corrcoef(inside.reshape(2, -1))[0, 1]) > 0.5
    table = real.table_of([real.Row(46, "input", 0.35, 0.1, 1.0, 10, 2, 3)])
    assert "| 46 | input | **0.350** | 0.1000 | 100 % | 8 / 2 / 3 |" in table
    real.keep([real.Row(46, "input", 0.35, 0.1, 1.0, 10, 2, 3)], tmp_path / "r.json")
    assert '"views": 46' in (tmp_path / "r.json").read_text()


def test_earlier_figures_stand_for_the_classical_filters(monkeypatch, tmp_path) -> None:
    """They are read from the file of an earlier run; those of other samples are refused, as is another
    file."""
    window = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    monkeypatch.setattr(field, "networks", lambda _: {})
    monkeypatch.setattr(field, "scan_of", lambda *_: (window, window[..., 0]))
    monkeypatch.setattr(field, "non_local_means", lambda image, _: image)
    monkeypatch.setattr(field, "converged_total_variation", lambda image, _: image)
    monkeypatch.setattr(field, "aggregate", lambda: window[..., 0])
    first = field.measure(0, {}, lambda _: None)
    changed = [replace(one, value=0.125) if one.method == "non-local means, tuned" else one for one in first]
    field.keep(changed, tmp_path / "field.json")
    again = field.measure(0, {}, lambda _: None, field.kept(tmp_path / "field.json"))
    assert again == changed != first
    window = window[::-1].copy()
    monkeypatch.setattr(field, "scan_of", lambda *_: (window, window[..., 1] ** 2))
    with pytest.raises(UsageError, match="other samples"):
        field.measure(0, {}, lambda _: None, field.kept(tmp_path / "field.json"))
    (tmp_path / "other.json").write_text('{"rows": 1}')
    with pytest.raises(UsageError, match="no figures"):
        field.kept(tmp_path / "other.json")
