"""The benchmark from end to end on two small slices, and again: nothing is computed twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import cases, evaluate, plans
from benchmarks.quality.__main__ import main
from benchmarks.quality.cases import Case, choose_cases, load_slice
from benchmarks.quality.plans import resized
from karat24.export.quantize import PRESETS, quantize_model
from karat24.refimpl.errors import UsageError
from karat24.refimpl.networks import Upsampling, tomogan


def test_the_test_set_has_every_family() -> None:
    chosen = choose_cases(66, 1024)
    found = Counter(case.family for case in chosen)
    assert found.pop("bone") == 12
    assert set(found.values()) == {9}
    assert len(found) == 6
    assert len({case.name for case in chosen}) == 66
    assert {case.family for case in choose_cases(2, 64)} == {"spheres", "bone"}


@pytest.mark.parametrize(("count", "size"), [(1, 64), (8, 100), (8, 0)])
def test_test_sets_that_cannot_be_are_refused(count: int, size: int) -> None:
    with pytest.raises(UsageError):
        choose_cases(count, size)


def test_a_slice_is_simulated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_slice(Case("bone", 3, 64), tmp_path)
    monkeypatch.delattr(cases, "simulate_slices")
    again = load_slice(Case("bone", 3, 64), tmp_path)
    np.testing.assert_array_equal(first.noisy, again.noisy)
    np.testing.assert_array_equal(first.clean, again.clean)
    assert first.noisy.shape == (64, 64, 3)
    assert not np.array_equal(first.clean, load_slice_of(tmp_path, monkeypatch, 4).clean)


def load_slice_of(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> cases.Slice:
    monkeypatch.undo()
    return load_slice(Case("bone", number, 64), folder)


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("scheme", [None, "int8"])
def test_a_resized_network_is_the_one_drawn_at_that_size(upsampling: Upsampling, scheme: str | None) -> None:
    """Shapes and constants agree; the quantized one keeps its parameters and weights."""
    small, large = tomogan(16, 16, upsampling), tomogan(48, 48, upsampling)
    if scheme is not None:
        sample = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
        small = quantize_model(small, [sample], PRESETS[scheme])
    grown = resized(small, 3)
    assert [t.shape for t in grown.tensors] == [t.shape for t in large.tensors]
    for ours, was, drawn in zip(grown.tensors, small.tensors, large.tensors, strict=True):
        assert ours.quantization == was.quantization
        if ours.data is not None:
            expected = drawn.data if drawn.dtype == "int32" else was.data
            assert expected is not None
            np.testing.assert_array_equal(ours.data, expected)


def test_other_weights_make_other_networks(tmp_path: Path) -> None:
    """A plan without Fine-Tune is prepared anew as well, for all that was kept."""
    (alone,) = (plan for plan in plans.PLANS if plan.name == "transposed")
    made = []
    for seed in (0, 1, 1):
        graph = tomogan(16, 16, "transposed", seed=seed)
        constants = {t.name: t.data for t in graph.tensors if t.name.endswith(("/filter", "/bias"))}
        np.savez(tmp_path / f"{seed}.npz", **constants)
        files = plans.WeightFiles(given={"tomogan-transposed": tmp_path / f"{seed}.npz"})
        made.append(plans.prepare(tmp_path / "models", files, lambda _: None, [alone]))
    assert made[0] != made[1] == made[2]


def test_weights_that_no_plan_reads_are_refused(tmp_path: Path) -> None:
    """Otherwise the shipped ones would be measured under another's name."""
    (alone,) = (plan for plan in plans.PLANS if plan.name == "transposed")
    files = plans.WeightFiles(given={"tomogan-bilinear-aware-int8": tmp_path / "w.npz"})
    with pytest.raises(UsageError, match=r"tomogan-bilinear-aware-int8: no plan reads .*tomogan-bilinear, "):
        plans.prepare(tmp_path / "models", files, lambda _: None, [alone])


def test_an_aware_plan_needs_learnt_ranges(tmp_path: Path) -> None:
    """Weights without them are not calibrated in their place: the plan is left out with a reason."""
    (aware,) = (plan for plan in plans.PLANS if plan.name == "aware-int8")
    graph = tomogan(16, 16)
    constants = {t.name: t.data for t in graph.tensors if t.name.endswith(("/filter", "/bias"))}
    np.savez(tmp_path / "w.npz", **constants)
    files, said = plans.WeightFiles(given={"tomogan-bilinear": tmp_path / "w.npz"}), []
    assert plans.prepare(tmp_path / "models", files, said.append, [aware]) == {}
    assert said[-1].startswith("aware-int8: left out: ")


def test_wrong_flags_end_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path)]
    for flags in (["--size", "100"], ["--weights", "nothing"], ["--weights", "fine-tune=/no/such.npz"]):
        assert main([*folder, "--slices", "2", "--size", "64", *flags]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_two_slices_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, tables and pictures are there; a second run measures nothing, one record less is redone."""
    monkeypatch.setattr(plans, "PLANS", plans.PLANS[:2])
    monkeypatch.setattr(plans, "CALIBRATION_SIZE", 128)
    document = tmp_path / "README.md"
    document.write_text("<!-- quality: schemes -->\n<!-- end of quality: schemes -->\n")
    output = tmp_path / "results.json"
    command = [
        "--slices", "2", "--size", "128", "--few", "1", "--folder", str(tmp_path / "work"),
        "--output", str(output), "--documents", str(document), "--processes", "1",
    ]  # fmt: skip
    assert main(command) == 0
    first = json.loads(output.read_text())["methods"]
    assert {len(found["ssim"]) for found in first.values()} == {2}
    assert first["float whole"]["mean_ssim"] > first["noisy"]["mean_ssim"]
    # With a halo, a pixel of a tile sees nearly all that it sees in the whole image.
    whole, halo, tiles = (first[f"int8 {way}"]["ssim"] for way in ("whole", "halo", "tiles"))
    for name in whole:
        assert abs(halo[name] - whole[name]) < abs(tiles[name] - whole[name]) / 2, name
    assert document.read_text().count("int8, 64×64 tiles + Fine-Tune") == 1
    pictures = sorted((tmp_path / "work" / "pictures").glob("*.png"))
    assert len(pictures) == 5
    assert all(0 < path.stat().st_size < 400_000 for path in pictures)

    monkeypatch.setattr(evaluate, "ProcessPoolExecutor", None)  # any work at all would need it
    assert main(command) == 0
    assert json.loads(output.read_text())["methods"] == first

    monkeypatch.undo()
    monkeypatch.setattr(plans, "PLANS", plans.PLANS[:2])
    monkeypatch.setattr(plans, "CALIBRATION_SIZE", 128)
    (record,) = (tmp_path / "work" / "records").glob("bone-*.json")
    kept = json.loads(record.read_text())
    removed = kept.pop("tv")
    record.write_text(json.dumps(kept))
    settings = evaluate.Settings(tmp_path / "work", _models(tmp_path / "work" / "models"), 1)
    assert [m.name for m in evaluate.open_methods(settings, Case("bone", 0, 128))] == ["tv"]
    again = evaluate.score_case(settings, Case("bone", 0, 128))["tv"]
    assert {**again, "seconds": 0} == {**removed, "seconds": 0}


def _models(folder: Path) -> dict[str, str]:
    return {
        f"{made.parent.name}/{name}": digest
        for made in folder.glob("*/made.json")
        for name, digest in json.loads(made.read_text())["models"].items()
    }
