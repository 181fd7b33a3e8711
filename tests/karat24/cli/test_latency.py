"""The restoration's latency, split: what is timed computes the plain tiled restoration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from karat24.cli import main
from karat24.delegates import delegate_named
from karat24.delegates.edgetpu import EDGETPU_LIBRARY
from karat24.export.tflite import write_tflite
from karat24.latency import Split, load_stage, measure, median
from karat24.refimpl.errors import FeedError, UsageError
from karat24.tomography.restoration import dequantize_values, quantize_values
from karat24.tomography.tiles import TileGrid
from tests.support.edgetpu_fake import build, image, model
from tests.support.flagships import quantized
from tests.support.small_network import small_graph


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    paths = folder / "tomogan.tflite", folder / "fine-tune.tflite"
    for path, title in zip(paths, ("tomogan bilinear", "fine-tune"), strict=True):
        path.write_bytes(write_tflite(quantized(title, 64, "uint8-2019")))
    return paths


def test_the_parts_are_timed_and_the_image_is_the_restored_one(networks: tuple[Path, Path]) -> None:
    tomogan, fine_tune = map(load_stage, networks)
    noisy = np.random.default_rng(1).random((96, 70, 3), np.float32)
    with delegate_named("litert-ref") as delegate:
        split = measure(delegate, tomogan, fine_tune, noisy)
        grid = TileGrid(96, 70)
        values = quantize_values(noisy, tomogan.image)
        stitched = grid.map(lambda tile: delegate.run(tomogan.model, [tile]).outputs[0], values)
        real = dequantize_values(stitched, tomogan.output)
        second = TileGrid(96, 70, halo=2)
        values = quantize_values(real, fine_tune.image)
        repaired = second.map(lambda tile: delegate.run(fine_tune.model, [tile]).outputs[0], values)
    assert np.array_equal(split.restored, dequantize_values(repaired, fine_tune.output))
    assert min(split.tomogan, split.stitching, split.fine_tune) > 0
    assert split.total == split.tomogan + split.stitching + split.fine_tune


def test_medians_are_of_each_part() -> None:
    picture = np.zeros((1, 1, 1))
    rounds = [Split(1, 9, 2, picture), Split(5, 1, 0, picture), Split(3, 2, 7, picture)]
    found = median(rounds)
    assert (found.tomogan, found.stitching, found.fine_tune, found.total) == (3, 2, 2, 7)


def test_tiles_run_on_the_stand_in_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EDGETPU_LIBRARY, str(build(tmp_path)))
    tiles = np.concatenate([image(), image() + np.int8(1)])
    with delegate_named("edgetpu") as delegate:
        results, seconds = delegate.run_tiles(model(), tiles)
        assert results.tolist() == [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]
        assert seconds > 0
        with pytest.raises(FeedError, match="the model needs int8"):
            delegate.run_tiles(model(), tiles[:, :3])


def test_the_command_stands_beside_the_paper(
    networks: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "latency",
        *map(str, networks),
        "--delegate",
        "litert-xnnpack",
        "--size",
        "128",
        "--rounds",
        "1",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "litert-xnnpack, 128×128" in out
    assert "Edge TPU, USB accelerator (2019)      0.4350      0.0490      0.0700      0.5540" in out
    assert main([*arguments, "--json"]) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    assert seconds["total"] == pytest.approx(seconds["tomogan"] + seconds["stitching"] + seconds["fine_tune"])


def test_what_is_no_restoration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_graph()))
    with pytest.raises(UsageError, match="its ends are"):
        load_stage(path)
    assert main(["latency", str(path), "--delegate", "ort"]) == 2
