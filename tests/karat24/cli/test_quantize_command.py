"""``karat24 quantize``: which steps it takes, and the table of what each gains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.quantize.measure import STEPS
from karat24.export.tflite import read_tflite
from karat24.refimpl.networks import fine_tune, learnt_ranges, trained_weights

SIZE = ["--height", "32", "--width", "32"]


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Eight tiles of smooth grey, of which two are held out."""
    y, x = np.mgrid[0:64, 0:64] / 64.0
    images = np.stack([np.sin(5 * x + phase) * np.cos(3 * y) for phase in (0.0, 1.0)])
    path = tmp_path / "slices.npy"
    np.save(path, images.astype(np.float32))
    return path


def quantize(slices: Path, *more: str) -> int:
    return main(["quantize", "fine-tune", *SIZE, "--calibration", str(slices), *more])


def test_the_gains_as_a_table_and_as_json(slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step in both, in order, with the same figures; nothing is written."""
    assert quantize(slices, "--report-gains") == 0
    table = capsys.readouterr().out.splitlines()
    assert quantize(slices, "--report-gains", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == list(STEPS)
    for line, row in zip(table[2:], rows, strict=True):
        assert line.startswith(row["step"])
        assert f"{row['deviation']['snr_db']:.2f} dB" in line
        assert line.endswith("dropped") != row["kept"]
    assert rows[-1]["scheme"]["filter_ranges"] == "mse"


def test_steps_change_what_is_written(slices: Path, tmp_path: Path) -> None:
    """Each switch against the preset's own choice: another file, of the same layers."""
    files = {}
    for name, switches in {
        "preset": [],
        "again": [],
        "ranges": ["--ranges", "percentile"],
        "equalized": ["--equalize"],
        "uncorrected": ["--no-correct-bias"],
    }.items():
        path = tmp_path / f"{name}.tflite"
        assert quantize(slices, "--output", str(path), *switches) == 0
        files[name] = path.read_bytes()
    assert files.pop("again") == files["preset"]
    assert len(set(files.values())) == 4
    assert len({tuple(layer.op for layer in read_tflite(file).layers) for file in files.values()}) == 1


def test_filter_ranges_change_filters_of_many_weights(tmp_path: Path) -> None:
    """1152 weights to a channel have tails worth clipping; the nine of Fine-Tune have none, and filters that
    were trained to be rounded to int8 (the bilinear TomoGAN) are so already."""
    path = tmp_path / "noise.npy"
    np.save(path, np.random.default_rng(0).random((1, 16, 16, 3), np.float32))
    graphs = []
    for choice in ("minmax", "mse"):
        output = tmp_path / f"{choice}.tflite"
        arguments = ["quantize", "tomogan", "--height", "16", "--width", "16", "--calibration", str(path)]
        arguments += ["--upsampling", "transposed"]
        assert main([*arguments, "--filter-ranges", choice, "--output", str(output)]) == 0
        graphs.append(read_tflite(output.read_bytes()))
    plain, clipped = (
        [t.quantization.scale for t in graph.tensors if t.name.endswith("/filter")] for graph in graphs
    )
    assert any(
        a > b for one, other in zip(plain, clipped, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_best_writes_what_the_report_found(slices: Path, tmp_path: Path) -> None:
    best, plain = tmp_path / "best.tflite", tmp_path / "plain.tflite"
    assert quantize(slices, "--best", "--output", str(best)) == 0
    assert quantize(slices, "--no-correct-bias", "--filter-ranges", "minmax", "--output", str(plain)) == 0
    assert best.read_bytes() != plain.read_bytes()


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ([], "nothing to do"),
        (["--json", "--output", "x.tflite"], "--json prints the gains"),
        (["--report-gains", "--json", "--output", "x.tflite"], "--json prints the gains"),
        (["--best", "--ranges", "mse", "--output", "x.tflite"], "--best chooses"),
        (["--best", "--no-equalize", "--output", "x.tflite"], "--best chooses"),
        (["--report-gains", "--output", "x.onnx"], "written as .tflite"),
        (["--report-gains", "--height", "64", "--width", "64"], "takes at least 4"),
    ],
)
def test_wrong_use_is_one_line(
    switches: list[str], said: str, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tiles of 64×64 leave none to hold out."""
    assert quantize(slices, *switches) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.usefixtures("simulated_once")
def test_aware_weights_are_quantized_in_the_ranges_they_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a file, and the shipped ones by name; there is no step left to choose."""
    weights = {t.name: t.data for t in fine_tune(32, 32).tensors if t.data is not None}
    ranges = {"input": (-0.25, 1.5), "repair": (0.0, 2.0), "output": (-0.1, 1.2)}
    np.savez(tmp_path / "w.npz", **weights, **{f"{k}/range": np.float32(v) for k, v in ranges.items()})
    command = ["quantize", "fine-tune", *SIZE, "--weights", str(tmp_path / "w.npz")]
    path = tmp_path / "x.tflite"
    assert main([*command, "--output", str(path)]) == 0
    graph = read_tflite(path.read_bytes())
    scales = {t.name: t.quantization.scale for t in graph.tensors if t.name in ranges and t.quantization}
    assert scales == {k: (np.float32((high - low) / 255),) for k, (low, high) in ranges.items()}
    capsys.readouterr()
    for more in (
        ["--report-gains"],
        ["--output", str(path), "--equalize"],
        ["--output", str(path), "--aware"],
    ):
        assert main([*command, *more]) == 2
        assert "learnt" in capsys.readouterr().err or "--aware" in more


@pytest.mark.usefixtures("simulated_once")
@pytest.mark.parametrize("scheme", ["int8", "int8-mobile", "uint8-2019"])
@pytest.mark.parametrize("network", ["tomogan", "fine-tune"])
def test_shipped_weights_trained_to_be_quantized(network: str, scheme: str, tmp_path: Path) -> None:
    """The file's output has the range the weights learnt."""
    path = tmp_path / "x.tflite"
    assert main(["quantize", network, *SIZE, "--aware", "--scheme", scheme, "--output", str(path)]) == 0
    graph = read_tflite(path.read_bytes())
    learnt = learnt_ranges(trained_weights(network, scheme=scheme, aware=True))
    quantization = graph.tensors[graph.outputs[0]].quantization
    assert quantization is not None
    low, high = learnt["output"]
    assert quantization.scale == (np.float32((high - low) / 255),)


def test_a_scheme_nothing_was_trained_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "x.tflite")
    for more in (["--scheme", "int8-symmetric"], ["--upsampling", "transposed"]):
        assert main(["quantize", "tomogan", "--aware", "--output", path, *more]) == 2
        assert "no weights ship for tomogan" in capsys.readouterr().err


def test_int16_activations_are_exact_on_both_lanes(
    slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layer by layer; ranges of least error are for 8 bits only, and refused."""
    path = tmp_path / "wide.tflite"
    assert quantize(slices, "--scheme", "int16x8", "--output", str(path)) == 0
    for lane in ("litert-ref", "litert-builtin"):
        assert main(["verify", str(path), "--delegate", lane]) == 0
        assert "BIT_EXACT" in capsys.readouterr().out
    assert quantize(slices, "--scheme", "int16x8", "--ranges", "mse", "--output", str(path)) == 2
    assert "use minmax" in capsys.readouterr().err
