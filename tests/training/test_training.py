"""The training programs: repeatable, resumable, and the same networks as the ones that ship."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from karat24.export.quantize import PRESETS, quantize_learnt  # noqa: E402
from karat24.refimpl.errors import FeedError, UsageError  # noqa: E402
from karat24.refimpl.networks import (  # noqa: E402
    fine_tune,
    learnt_ranges,
    load_weights,
    tomogan,
    trained_weights,
)
from karat24.tomography.imaging.dataset import write_dataset  # noqa: E402
from karat24.tomography.imaging.simulate import simulate_stack  # noqa: E402
from karat24.tomography.restoration import on_onnx_runtime  # noqa: E402
from training import data  # noqa: E402
from training.__main__ import main, repair_lesson  # noqa: E402
from training.losses import lost_structure, ssim  # noqa: E402
from training.model import FineTune, TomoGAN  # noqa: E402
from training.patches import patches  # noqa: E402

REPOSITORY = Path(__file__).parents[2]


def train(*arguments: str, code: int = 0) -> str:
    """Runs ``python -m training`` here, where PyTorch is loaded already, and keeps this process's threads."""
    output, errors, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    with (
        patch.object(sys, "argv", ["training", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        found = main()
    torch.set_num_threads(threads)
    assert found == code, errors.getvalue()
    return (errors if code else output).getvalue()


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.npz"
    train("data", "--output", str(path), "--samples", "64x6", "--crop", "64")
    return path


@pytest.fixture(scope="module")
def weights(windows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network of two steps, which other runs begin with."""
    folder = tmp_path_factory.mktemp("float")
    train(*command(windows, folder, steps=2))
    return folder / "weights.npz"


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def command(windows: Path, folder: Path, steps: int = 50) -> list[str]:
    return [
        "tomogan", "--data", str(windows), "--folder", str(folder), "--steps", str(steps), "--patch", "32",
        "--batch", "2", "--threads", "1", "--adversarial", "1e-3", "--adversarial-from", "16",
    ]  # fmt: skip


@pytest.mark.slow
def test_same_seed_same_loss_curve(windows: Path, tmp_path: Path) -> None:
    """Fifty steps, the critic among them, here and in a process of its own: equal to the last digit, and
    falling."""
    train(*command(windows, tmp_path / "first"))
    program = [sys.executable, "-m", "training", *command(windows, tmp_path / "second")]
    subprocess.run(program, cwd=REPOSITORY, capture_output=True, check=True)
    first, second = losses(tmp_path / "first"), losses(tmp_path / "second")
    assert len(first) == 50
    assert first == second
    assert sum("critic" in entry for entry in first) == 5
    assert np.mean([e["loss"] for e in first[-5:]]) < 0.7 * np.mean([e["loss"] for e in first[:5]])
    ended = [np.load(tmp_path / name / "weights.npz") for name in ("first", "second")]
    assert all(np.array_equal(ended[0][key], ended[1][key]) for key in ended[0].files)


def test_another_schedule_does_not_continue_a_run(windows: Path, tmp_path: Path) -> None:
    train(*command(windows, tmp_path, steps=1))
    assert "another schedule" in train(*command(windows, tmp_path, steps=2), code=2)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped after its first checkpoint, a run ends in the same weights as one that was not."""
    from training.loop import Schedule
    from training.loop import train as loop

    noisy = np.random.default_rng(1).random((2, 40, 40, 3), dtype=np.float32)
    schedule = Schedule(6, adversarial=1e-3, adversarial_every=2, checkpoint_every=3)

    class Stopped(Exception):
        pass

    def until(stop: int):
        for number, batch in enumerate(patches(noisy, noisy[..., 1], 32, 2, seed=3)):
            if number == stop:
                raise Stopped
            yield batch

    ended = []
    for stops in ((4, 99), (99,)):
        folder = tmp_path / str(len(stops))
        for stop in stops:
            torch.manual_seed(5)
            try:
                model = loop(TomoGAN("bilinear"), until(stop), schedule, folder, torch.device("cpu"))
            except Stopped:
                continue
        ended.append(model.weights())
    assert all(np.array_equal(ended[0][name], ended[1][name]) for name in ended[0])


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_twin_of_the_graph(upsampling: str) -> None:
    """The same weights give what ONNX Runtime computes from the shipped graph."""
    torch.manual_seed(0)
    model, image = TomoGAN(upsampling), np.random.default_rng(0).random((1, 32, 40, 3), dtype=np.float32)
    wanted = on_onnx_runtime(tomogan(32, 40, upsampling, model.weights()))(image)
    found = model(torch.from_numpy(image.transpose(0, 3, 1, 2))).detach().numpy()[:, 0]
    np.testing.assert_allclose(found, wanted[..., 0], atol=2e-5)


def test_fine_tune_begins_as_identity() -> None:
    torch.manual_seed(0)
    image = np.random.default_rng(0).uniform(-0.2, 1.1, (1, 16, 24, 1)).astype(np.float32)
    wanted = on_onnx_runtime(fine_tune(16, 24, FineTune().weights()))(image)
    np.testing.assert_allclose(wanted, image, atol=0.2)


def test_ssim_is_scikit_images() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = np.random.default_rng(2).random((2, 48, 64))
    wanted = metrics.structural_similarity(
        a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1][5:-5, 5:-5].mean()
    found = float(ssim(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]))
    assert found == pytest.approx(wanted, abs=1e-9)


def test_losing_faint_structure_costs_more_than_ssim_says() -> None:
    """Texture of 2 % of the grey range wiped out: SSIM hardly sees it, the term that is for it does. An image
    that keeps it loses nothing, and noise put in its place is punished, too."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(1, 1, 64, 64, generator=generator)
    texture = torch.nn.functional.avg_pool2d(fine, 3, 1, 1) * 3 * 0.02
    clean = 0.5 + texture
    flat, other = torch.full_like(clean, 0.5), 0.5 + texture.flip(2)
    assert float(lost_structure(clean, clean)) == pytest.approx(0.0, abs=1e-5)
    assert float(lost_structure(flat, clean)) > 0.8
    assert float(lost_structure(other, clean)) > 0.9
    assert 1 - float(ssim(flat, clean)) < 0.7 * float(lost_structure(flat, clean))


def test_field_windows_are_training_data(tmp_path: Path) -> None:
    """As the other windows are, seeded, and of no held-out kind: those are refused by the simulator."""
    for name in ("first", "second"):
        data.simulate_field_windows(3, 64, 0, tmp_path / f"{name}.npz")
    noisy, clean = data.load(tmp_path / "first.npz")
    assert noisy.shape == (3, 64, 64, 3)
    assert clean.shape == (3, 64, 64)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_aware_training_writes_weights(windows: Path, weights: Path, tmp_path: Path) -> None:
    train(
        *command(windows, tmp_path / "aware", steps=3), "--start-from", str(weights), "--aware", "uint8-2019"
    )
    trained = load_weights(tmp_path / "aware" / "weights.npz")
    graph = tomogan(32, 32, "bilinear", trained)
    assert {name for name in trained if not name.endswith("/range")} == set(load_weights(weights))
    assert quantize_learnt(graph, learnt_ranges(trained), PRESETS["uint8-2019"]).inputs
    # Ranges that come with the weights are gone on with, not observed anew.
    more = ("--start-from", str(tmp_path / "aware" / "weights.npz"), "--learning-rate", "0")
    train(*command(windows, tmp_path / "more", steps=1), *more, "--aware", "uint8-2019", "--squared", "10")
    again = load_weights(tmp_path / "more" / "weights.npz")
    for name, ends in learnt_ranges(trained).items():
        assert learnt_ranges(again)[name] == pytest.approx(ends, rel=1e-6)


def test_a_teacher_gives_the_target(windows: Path, weights: Path, tmp_path: Path) -> None:
    """From its own weights, unrounded, there is nothing to learn; rounding leaves something."""
    start = str(weights)
    taught_by = ("--start-from", start, "--teacher", start, "--adversarial", "0", "--learning-rate", "0")
    train(*command(windows, tmp_path / "rounded", steps=1), *taught_by, "--aware", "int8")
    train(*command(windows, tmp_path / "ranged", steps=1), *taught_by, "--aware", "int8",
          "--ranges", str(tmp_path / "rounded" / "weights.npz"))  # fmt: skip
    train(*command(windows, tmp_path / "plain", steps=1), *taught_by)
    plain, rounded = (losses(tmp_path / name)[0]["loss"] for name in ("plain", "rounded"))
    assert plain < 0.02  # bfloat16 in the student, none in the teacher
    assert rounded > 0
    first, second = (load_weights(tmp_path / name / "weights.npz") for name in ("rounded", "ranged"))
    for name, ends in learnt_ranges(first).items():
        assert learnt_ranges(second)[name] == pytest.approx(ends, rel=1e-6)


@pytest.mark.usefixtures("simulated_once")
def test_fine_tune_learns_from_the_oracle(windows: Path, weights: Path, tmp_path: Path) -> None:
    train(
        "fine-tune", "--data", str(windows), "--tomogan", str(weights),
        "--folder", str(tmp_path / "repair"), "--steps", "3", "--patch", "32", "--batch", "2", "--halo", "8",
    )  # fmt: skip
    assert len(losses(tmp_path / "repair")) == 3
    train(
        "fine-tune", "--data", str(windows), str(windows), "--folder", str(tmp_path / "blended"),
        "--tomogan", str(weights), "--tile", "16", "--blend", "7",
        "--steps", "3", "--batch", "2", "--aware", "int8",
    )  # fmt: skip
    assert len(losses(tmp_path / "blended")) == 3
    options = argparse.Namespace(
        tomogan=weights, upsampling="bilinear", scheme="int8", tile=16, blend=7,
        teacher=None, batch=2, seed=0, calibrated=False,
    )  # fmt: skip
    model, batches, _ = repair_lesson(options, *data.load(windows))
    assert model.stride == 9
    given, target = next(batches)
    assert model(given).shape == target.shape == (2, 1, 16, 16)


@pytest.mark.usefixtures("simulated_once")
def test_fine_tune_can_pass_over_learnt_ranges(windows: Path, tmp_path: Path) -> None:
    """With ``--calibrated``, TomoGAN's output has the calibrated range, although its weights learnt one."""
    weights = trained_weights("tomogan", aware=True)
    np.savez(tmp_path / "w.npz", **weights)
    learnt = learnt_ranges(weights)["output"]
    for calibrated in (False, True):
        options = argparse.Namespace(
            tomogan=tmp_path / "w.npz", upsampling="bilinear", scheme="int8", tile=32, blend=0, halo=0,
            patch=32, teacher=None, batch=2, seed=0, calibrated=calibrated,
        )  # fmt: skip
        _, _, fixed = repair_lesson(options, *data.load(windows))
        assert (fixed["input"] == pytest.approx(learnt, abs=0.02)) is not calibrated


def test_fine_tune_reads_what_tomogan_gives(windows: Path, weights: Path, tmp_path: Path) -> None:
    """Its input's range is TomoGAN's output's, so that nothing is rounded twice between the two."""
    start = str(weights)
    train(*command(windows, tmp_path / "aware", steps=2), "--start-from", start, "--aware", "int8")
    first = load_weights(tmp_path / "aware" / "weights.npz")
    train(
        "fine-tune", "--data", str(windows), "--tomogan", str(tmp_path / "aware" / "weights.npz"),
        "--folder", str(tmp_path / "repair"), "--steps", "2", "--patch", "32", "--batch", "2",
        "--aware", "int8",
    )  # fmt: skip
    second = load_weights(tmp_path / "repair" / "weights.npz")
    one = quantize_learnt(tomogan(32, 32, "bilinear", first), learnt_ranges(first))
    two = quantize_learnt(fine_tune(32, 32, second), learnt_ranges(second))
    assert one.tensors[one.outputs[0]].quantization == two.tensors[two.inputs[0]].quantization


def test_patches_keep_their_grey_where_they_must() -> None:
    noisy = np.random.default_rng(1).random((1, 16, 16, 3), dtype=np.float32)
    kept, changed = (next(patches(noisy, noisy[..., 1], 16, 1, 0, vary)) for vary in (False, True))
    assert sorted(kept[1].flatten().tolist()) == sorted(noisy[..., 1].flatten().tolist())
    assert sorted(changed[1].flatten().tolist()) != sorted(noisy[..., 1].flatten().tolist())


def test_published_layout_is_training_data(tmp_path: Path) -> None:
    """Two samples of five slices: three windows each, none across samples."""
    stacks = [simulate_stack("foam", 64, seed, slices=5) for seed in (0, 1)]
    write_dataset(tmp_path / "own.h5", stacks, stacks[:1])
    noisy, clean = data.load(tmp_path / "own.h5")
    assert noisy.shape == (6, 64, 64, 3)
    assert clean.shape == (6, 64, 64)


def test_several_files_are_joined(windows: Path, tmp_path: Path) -> None:
    (noisy, clean), (one_noisy, one_clean) = data.load_all([windows, windows]), data.load(windows)
    assert np.array_equal(noisy, np.concatenate([one_noisy, one_noisy]))
    assert np.array_equal(clean, np.concatenate([one_clean, one_clean]))
    other = tmp_path / "other.npz"
    np.savez(other, noisy=np.zeros((1, 8, 8, 3), np.float16), clean=np.zeros((1, 8, 8), np.float16))
    with pytest.raises(UsageError, match=r"different sizes, \[\(8, 8\), \(64, 64\)\]"):
        data.load_all([windows, other])


def test_bad_data_is_one_clear_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    with pytest.raises(UsageError, match="no training data"):
        data.load(bad)
    bad.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UsageError, match="no training data"):
        data.load(bad)
    np.savez(bad, noisy=np.zeros((2, 8, 8, 3)), clean=np.zeros((2, 8, 9)))
    with pytest.raises(UsageError, match="shape"):
        data.load(bad)
    np.savez(bad, noisy=np.full((2, 8, 8, 3), np.nan), clean=np.zeros((2, 8, 8)))
    with pytest.raises(UsageError, match="NaN"):
        data.load(bad)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    with pytest.raises(FeedError, match="not a whole HDF5 file"):
        data.load(cut)
    for wrong in ((), ("--every", "0"), ("--ranges", "w.npz")):
        message = train("tomogan", "--data", str(cut), "--folder", str(tmp_path / "x"), *wrong, code=2)
        assert message.count("\n") == 1
        assert not wrong or wrong[0] in message


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--response", "0.1"], "--response needs --twins"),
        (["--twins", "1"], "need planting"),
        (["--twins", "2", "--plant", "8"], "a batch of at least 4"),
        (["--plant", "1"], "give 2 to 64"),
        (["--magnitude", "0.1", "--aware", "int8"], "--magnitude is for float networks"),
        (["--narrow", "0"], "--narrow is 0.0"),
        (["--margin", "4"], "--margin needs --teacher"),
        (["--margin", "-4", "--teacher", "w.npz"], "--margin is -4; 0 to 15"),
        (["--margin", "16", "--teacher", "w.npz"], "--margin is 16; 0 to 15"),
        (["--tiles", "0"], "--tiles is 0"),
        (["--tiles", "12"], "--tiles is 12; patches of 32 pixels"),
        (["--tiles", "8", "--twins", "1"], "give one of them"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(
    flags: list[str], said: str, windows: Path, tmp_path: Path
) -> None:
    message = train(*command(windows, tmp_path, steps=1), *flags, code=2)
    assert said in message
    assert message.count("\n") == 1


def test_narrow_ranges_are_a_share_of_the_observed_ones(windows: Path, weights: Path, tmp_path: Path) -> None:
    """Nothing is learnt in a step of rate 0, so that the file holds the ranges that training began with."""
    found = []
    for share in ("1", "0.5"):
        start = ("--start-from", str(weights), "--aware", "int8", "--narrow", share, "--learning-rate", "0")
        train(*command(windows, tmp_path / share, steps=1), *start)
        found.append(learnt_ranges(load_weights(tmp_path / share / "weights.npz")))
    for name, (low, high) in found[0].items():
        assert found[1][name] == pytest.approx((0.5 * low, 0.5 * high), rel=1e-5)
