"""Dumps of a real run of TensorFlow Lite Micro are judged, in each form a user may have them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from karat24.export import read_model
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.report import EXIT_MATCH, EXIT_MISMATCH
from karat24.refimpl.graph import Array, Graph
from tests.shared_models import require
from tests.support.int8_networks import mobile, residual

runtime = pytest.importorskip(
    "tflite_micro.python.tflite_micro.runtime",
    reason="tflite-micro is not installed; it has wheels for CPython 3.11 on x86-64 Linux",
)

RESNET = "mlperf_tiny/pretrainedResnet_quant.tflite"


def run(model: Path, graph: Graph, feeds: dict[int, Array]) -> dict[int, Array]:
    """Every tensor that a layer writes, as TFLM's interpreter shows it."""
    interpreter = runtime.Interpreter.from_file(
        str(model),
        arena_size=4 << 20,
        intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,  # the keyword is spelt so
    )
    for place, index in enumerate(graph.inputs):
        interpreter.set_input(feeds[index], place)
    interpreter.invoke()
    written = [index for layer in graph.layers for index in layer.outputs]
    return {index: np.array(interpreter.GetTensor(index, 0)["tensor_data"]) for index in written}


@cache
def recorded(folder: Path, name: str) -> tuple[Path, Graph, dict[int, Array], dict[int, Array]]:
    if name == RESNET:
        model = require(RESNET)
    else:
        model = folder / f"{name}.tflite"
        model.write_bytes(write_tflite({"residual": residual, "mobile": mobile}[name]()))
    graph = read_model(model)
    feeds = random_feeds(graph, 12)
    return model, graph, feeds, run(model, graph, feeds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tflm")


NAMES = ("residual", "mobile", RESNET)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_by_index_in_an_archive(folder: Path, tmp_path: Path, name: str) -> None:
    model, graph, feeds, tensors = recorded(folder, name)
    dump = tmp_path / "dump.npz"
    np.savez(dump, **{str(index): value for index, value in tensors.items()})
    report = verify_recorded(model, graph, dump, feeds, profile="tflm", threads=1)
    assert report.exit_code() == EXIT_MATCH
    assert {layer.verdict for layer in report.layers} == {"bit_exact"}


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_in_a_folder_of_batchless_nchw_arrays(folder: Path, tmp_path: Path, name: str) -> None:
    model, graph, feeds, tensors = recorded(folder, name)
    for index, value in tensors.items():
        np.save(tmp_path / f"{index}.npy", value[0].transpose(2, 0, 1) if value.ndim == 4 else value)
    report = verify_recorded(model, graph, tmp_path, feeds, profile="tflm", threads=1)
    assert report.exit_code() == EXIT_MATCH
    assert any("in NCHW layout and without the batch dimension" in note for note in report.notes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".bin", ".cc"])
def test_the_output_as_bytes_and_as_printed(folder: Path, tmp_path: Path, name: str, suffix: str) -> None:
    model, graph, feeds, tensors = recorded(folder, name)
    values = tensors[graph.outputs[0]]
    dump = tmp_path / f"printed{suffix}"
    if suffix == ".bin":
        dump.write_bytes(values.tobytes())
    else:
        dump.write_text(f"const uint8_t g_output[] = {{{', '.join(map(str, values.view(np.uint8).flat))}}};")
    report = verify_recorded(model, graph, dump, feeds, profile="tflm", only_recorded=True, threads=1)
    assert report.exit_code() == EXIT_MATCH
    assert len(report.layers) == 1
    assert ("int8 seen as uint8" in report.layers[0].reason) == (suffix == ".cc")


def test_another_input_than_the_one_said_does_not_pass(folder: Path, tmp_path: Path) -> None:
    model, graph, _, tensors = recorded(folder, "residual")
    values = tensors[graph.outputs[0]]
    other = random_feeds(graph, 13)
    report = verify_recorded(model, graph, {"out7": values}, other, profile="tflm", threads=1)
    assert report.exit_code() == EXIT_MISMATCH
