"""A device that nothing here can start: asked and judged through a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from karat24.cli.main import main
from karat24.delegates.folder import FolderDelegate
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import DelegateError, UsageError
from karat24.refimpl.graph import Array, Graph
from tests.cases.weighted_layer import WeightedShape, weighted_layer
from tests.support.few_taps import graph_of
from tests.support.folder_device import run_device


@pytest.fixture
def graph() -> Graph:
    """One FULLY_CONNECTED layer."""
    view, _ = weighted_layer(WeightedShape("FULLY_CONNECTED", channels=5, filters=5), 0)
    return graph_of(view)


def test_a_device_certifies_a_layer_in_two_runs(
    graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First everything waits, nothing is judged; then all cases are there. One wrong value is found."""
    model, folder = tmp_path / "m.tflite", tmp_path / "device"
    model.write_bytes(write_tflite(graph))
    command = ["verify", str(model), "--certify", "--delegate-folder", str(folder)]
    assert main([*command, "--profile", "litert-2.3-ref"]) == 3
    said = capsys.readouterr()
    assert "NOT_COMPARED" in said.out
    assert "models wait in" in said.err
    asked = run_device(folder, "litert-2.3-ref")
    assert asked > 10
    assert main([*command, "--profile", "litert-2.3-ref"]) == 0
    said = capsys.readouterr()
    assert "1 certified" in said.out
    assert "wait" not in said.err
    assert run_device(folder, "litert-2.3-ref") == 0, "nothing new is asked"

    output = next(path for path in sorted(folder.glob("*/outputs/output_0.npy")))
    value = np.load(output)
    value.reshape(-1)[0] ^= 1
    np.save(output, value)
    assert main([*command, "--profile", "litert-2.3-ref"]) == 1


def test_a_wrong_rounding_of_the_device_is_found(graph: Graph, tmp_path: Path) -> None:
    """A device of single-rounding kernels held to double rounding."""
    model, folder = tmp_path / "m.tflite", tmp_path / "device"
    model.write_bytes(write_tflite(graph))
    command = ["verify", str(model), "--certify", "--delegate-folder", str(folder)]
    assert main([*command, "--profile", "litert-2.3-ref"]) == 3
    run_device(folder, "litert-2.3-xnnpack")
    assert main([*command, "--profile", "litert-2.3-ref"]) == 1


def feed_of(graph: Graph, value: int) -> Array:
    return np.full(graph.tensors[graph.inputs[0]].shape, value, np.int8)


def test_outputs_are_never_taken_for_those_of_other_inputs(graph: Graph, tmp_path: Path) -> None:
    """Other inputs, or another model, wait in a folder of their own."""
    device = FolderDelegate(tmp_path / "device", "tflite", "litert-2.3-ref")
    with pytest.raises(DelegateError, match="waits for the device's outputs"):
        device.run(write_tflite(graph), [feed_of(graph, 1)])
    run_device(tmp_path / "device", "litert-2.3-ref")
    assert device.run(write_tflite(graph), [feed_of(graph, 1)]).outputs
    with pytest.raises(DelegateError, match="waits"):
        device.run(write_tflite(graph), [feed_of(graph, 2)])
    assert len(device.waiting) == 2


def test_an_output_of_another_shape_is_refused(graph: Graph, tmp_path: Path) -> None:
    device = FolderDelegate(tmp_path / "device", "tflite")
    with pytest.raises(DelegateError):
        device.run(write_tflite(graph), [feed_of(graph, 1)])
    (place,) = (tmp_path / "device").iterdir()
    np.save(place / "outputs" / "output_0.npy", np.zeros((3, 3), np.int8))
    with pytest.raises(DelegateError, match=r"output_0\.npy: holds 9 values"):
        device.run(write_tflite(graph), [feed_of(graph, 1)])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        FolderDelegate(tmp_path / "file", "tflite")


def test_a_dump_is_not_certified(graph: Graph, tmp_path: Path) -> None:
    """--certify was silently ignored beside --recorded."""
    model = tmp_path / "m.tflite"
    model.write_bytes(write_tflite(graph))
    command = ["verify", str(model), "--certify", "--recorded", str(tmp_path), "--profile", "tflm"]
    assert main(command) == 2
