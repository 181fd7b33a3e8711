"""``karat24 demo`` on small slices and one runtime: everything said and written is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from karat24.cli import main
from karat24.export.tflite import read_tflite
from karat24.refimpl.networks import learnt_ranges, trained_weights
from karat24.tomography import demo


@pytest.fixture(autouse=True)
def _one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "JUDGED_LANES", ("litert-xnnpack",))


def test_demo_restores_judges_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights trained to be rounded, blended tiles; of more tiles than are judged it says so."""
    monkeypatch.setattr(demo, "MOST_JUDGED", 3)
    assert main(["demo", "--size", "128", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("BIT_EXACT") == 4
    for network in ("tomogan", "fine-tune"):
        assert f"{network}, 3 of 16 tiles: 0 of 12288 values differ" in said
    assert "int8 + Fine-Tune 0." in said
    names = {path.name for path in tmp_path.iterdir()}
    assert {"restoration.png", "noisy.png", "tomogan.tflite", "fine-tune.tflite"} <= names
    graph = read_tflite((tmp_path / "tomogan.tflite").read_bytes())
    output = graph.tensors[graph.outputs[0]].quantization
    low, high = learnt_ranges(trained_weights("tomogan", aware=True))["output"]
    assert output is not None
    assert output.scale[0] == pytest.approx((high - low) / 255, rel=1e-6)


def test_demo_calibrates_networks_without_aware_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transposed upsampling; Fine-Tune reads TomoGAN's output in the same parameters."""
    options = ["--upsampling", "transposed", "--size", "64", "--halo", "0"]
    assert main(["demo", *options, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for network in ("tomogan", "fine-tune"):
        assert f"{network}: 0 of 4096 values differ" in said
    first, second = (
        read_tflite((tmp_path / f"{name}.tflite").read_bytes()) for name in ("tomogan", "fine-tune")
    )
    one, two = first.tensors[first.outputs[0]].quantization, second.tensors[second.inputs[0]].quantization
    assert one == two


def test_demo_wants_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert "name a folder" in capsys.readouterr().err


def test_tiles_overlap_in_one_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both overlaps, and one as wide as a tile."""
    with pytest.raises(SystemExit):
        main(["demo", "--halo", "8", "--blend", "8", "--output", str(tmp_path)])
    assert "not allowed with" in capsys.readouterr().err
    assert main(["demo", "--size", "128", "--blend", "64", "--output", str(tmp_path)]) == 2
    assert "a blend of 64 leaves nothing of tiles of 64" in capsys.readouterr().err
