"""The selective paper's networks and the slice selector by their names on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from karat24.cli import main
from karat24.export import read_model
from karat24.refimpl.data_access import counted
from karat24.refimpl.networks import NETWORKS, network, usual_size


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("vgg16-0.75", 8_608_272), ("vgg16-0.5", 3_834_720), ("vgg16-0.25", 965_296),
        ("resnet50-0.5", 5_964_640), ("resnet50-0.25", 1_516_976), ("tiny-5", 272_568), ("tiny-3", 265_392),
        ("slice-selector", 1384),
    ],
)  # fmt: skip
def test_each_name_is_its_network(name: str, weights: int) -> None:
    """Counted weights tell networks and widths apart; biases are not among them."""
    size = usual_size(name)
    assert name in NETWORKS
    assert counted(network(name, size, size), "executed").weights == weights


@pytest.mark.usefixtures("simulated_once")
@pytest.mark.parametrize(
    ("name", "shape"), [("vgg16-0.25", (1, 32, 32, 3)), ("slice-selector", (1, 64, 64, 3))]
)
def test_quantize_takes_the_networks_own_size(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    assert main(["quantize", name, "--output", str(path)]) == 0
    graph = read_model(path)
    tensor = graph.tensors[graph.inputs[0]]
    assert (tensor.shape, tensor.dtype) == (shape, "int8")


def test_export_writes_them_in_float(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    assert main(["export", "resnet50-0.25", "--output", str(path)]) == 0
    assert counted(read_model(path), "block-input").macs == 131_041_280


def test_another_size_or_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.tflite"
    assert main(["export", "vgg16-0.25", "--height", "64", "--output", str(path)]) == 2
    assert "vgg16-0.25 reads images of 32×32, not of 64×32" in capsys.readouterr().err
    assert main(["quantize", "vgg16-0.3", "--output", str(path)]) == 2
    assert "no network 'vgg16-0.3'" in capsys.readouterr().err
    assert not path.exists()
