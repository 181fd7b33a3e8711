"""A sound run is recognised in every form a dump can have, and what was assumed of it is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.report import EXIT_CANNOT_COMPARE, EXIT_MATCH, EXIT_MISMATCH, Report
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import CannotCompare, FeedError, UsageError
from karat24.refimpl.graph import Array, Graph
from tests.cases import detections
from tests.support.int8_networks import residual

PROFILE = "litert-2.3-ref"


@cache
def sound() -> tuple[Graph, bytes, dict[int, Array], dict[int, Array]]:
    """A network, its file, its input, and every tensor of a run."""
    graph = residual()
    feeds = random_feeds(graph, 3)
    trace = compile_graph(graph, PROFILE, 1).run(feeds, trace=True).trace
    assert trace is not None
    return graph, write_tflite(graph), feeds, dict(trace.tensors)


def judged(dump: object, tensor: str | None = None, only_recorded: bool = False) -> Report:
    graph, model, feeds, _ = sound()
    return verify_recorded(
        model, graph, dump, feeds, profile=PROFILE, tensor=tensor, only_recorded=only_recorded, threads=1  # type: ignore[arg-type]
    )  # fmt: skip


def output() -> tuple[int, Array]:
    graph, _, _, tensors = sound()
    return graph.outputs[0], tensors[graph.outputs[0]]


def test_npz_by_index_and_by_name(tmp_path: Path) -> None:
    graph, _, _, tensors = sound()
    by_index, by_name = tmp_path / "index.npz", tmp_path / "name.npz"
    np.savez(by_index, **{str(index): value for index, value in tensors.items()})
    np.savez(by_name, **{graph.tensors[index].name: value for index, value in tensors.items()})
    for path in (by_index, by_name):
        report = judged(path)
        assert report.verdict == "bit_exact"
        assert report.exit_code() == EXIT_MATCH
        assert report.mode == "recorded"
        assert not report.notes
        assert all(layer.diff is not None and layer.diff.elements for layer in report.layers)


@pytest.mark.parametrize(("place", "exit_code"), [(-1, EXIT_MATCH), (0, EXIT_MISMATCH)])
def test_places_that_no_detection_fills_hold_anything(place: int, exit_code: int) -> None:
    (case,) = (case for case in detections.cases() if case.edge == "overlap at the threshold")
    graph, feeds = case.graph, dict(zip(case.graph.inputs, case.feeds, strict=True))
    outputs = compile_graph(graph, PROFILE, 1).run(feeds).outputs
    dump = dict(zip((graph.tensors[index].name for index in graph.outputs), outputs, strict=True))
    scores = dump["out2"] = dump["out2"].copy()
    scores[0, place] = 7.0
    report = verify_recorded(write_tflite(graph), graph, dump, feeds, profile=PROFILE, threads=1)
    assert report.exit_code() == exit_code, report.table()


def test_the_traces_that_run_writes_are_recordings(tmp_path: Path) -> None:
    """``karat24 run --trace --accumulators`` adds ``acc_N``, which are no tensors."""
    path = tmp_path / "trace.npz"
    np.savez(path, **{str(i): v for i, v in sound()[3].items()}, acc_0=np.zeros(3, np.int32))
    assert judged(path).verdict == "bit_exact"


def test_a_folder_with_one_file_per_tensor(tmp_path: Path) -> None:
    graph, _, _, tensors = sound()
    for index, value in tensors.items():
        stem = f"tensor_{index}" if index % 2 else graph.tensors[index].name
        np.save(tmp_path / f"{stem}.npy", value)
    assert judged(tmp_path).verdict == "bit_exact"


def c_text(values: Array) -> str:
    numbers = ", ".join(f"{v}" if v % 3 else f"{v:#x}" for v in values.reshape(-1).tolist())
    return (
        "#include <stdint.h>\n/* 7 layers */\n// 1, 2\n"
        "const int8_t output[864] __attribute__((aligned(16))) = {\n"
        f"{numbers},\n}};\n"
    )


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".npy", lambda path, values: np.save(path, values)),
        (".bin", lambda path, values: path.write_bytes(values.tobytes())),
        (".h", lambda path, values: path.write_text(c_text(values))),
        (".txt", lambda path, values: path.write_text("\n".join(map(str, values.reshape(-1).tolist())))),
    ],
)
def test_one_tensor_in_a_file(tmp_path: Path, suffix: str, write: Callable[[Path, Array], object]) -> None:
    """The only output where nothing names another one; the other layers are not compared."""
    index, values = output()
    path = tmp_path / f"printed{suffix}"
    write(path, values)
    report = judged(path)
    assert [v.verdict for v in report.outputs] == ["bit_exact"]
    verdicts = {layer.tensor: layer.verdict for layer in report.layers}
    assert verdicts.pop(index) == "bit_exact"
    assert set(verdicts.values()) == {"not_compared"}
    assert report.exit_code() == EXIT_CANNOT_COMPARE
    assert judged(path, only_recorded=True).exit_code() == EXIT_MATCH


def test_a_file_of_an_inner_tensor(tmp_path: Path) -> None:
    """By its name, or by what it is said to hold; without the output nothing passes."""
    graph, _, _, tensors = sound()
    index = graph.layers[2].outputs[0]
    named, other = tmp_path / f"{graph.tensors[index].name}.npy", tmp_path / "x.npy"
    np.save(named, tensors[index])
    np.save(other, tensors[index])
    for report in (judged(named), judged(other, tensor=str(index))):
        assert [v.layer for v in report.layers if v.verdict == "bit_exact"] == [2]
        assert report.exit_code() == EXIT_CANNOT_COMPARE
    assert judged(named, only_recorded=True).exit_code() == EXIT_CANNOT_COMPARE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.view(np.uint8), "int8 seen as uint8"),
        (lambda v: (v.astype(np.int16) + 128).astype(np.uint8), "uint8: int8 with 128 added or taken off"),
        (lambda v: v.astype(np.int16) + 128, "uint8: int8 with 128 added or taken off"),
        (lambda v: v.transpose(0, 3, 1, 2), "in NCHW layout"),
        (lambda v: v[0], "without the batch dimension"),
        (lambda v: v[0].transpose(2, 0, 1), "in NCHW layout and without the batch dimension"),
        (lambda v: v.reshape(-1), "one row of values in the model's order"),
        (lambda v: v.transpose(0, 3, 1, 2).reshape(-1), "one row of values and in NCHW layout"),
        (lambda v: v.astype(np.int32), "int8 held in int32"),
        (lambda v: v.astype(np.int32).byteswap(), "in the other byte order and int8 held in int32"),
        (lambda v: v.astype(np.float32), "int8 held in float32"),
        (lambda v: v.view(np.uint8).transpose(0, 3, 1, 2), "in NCHW layout and int8 seen as uint8"),
    ],
)  # fmt: skip
def test_a_form_that_does_not_fit_is_read_and_said(change: Callable[[Array], Array], said: str) -> None:
    index, values = output()
    report = judged({str(index): change(values)}, only_recorded=True)
    assert report.exit_code() == EXIT_MATCH
    (layer,) = report.layers
    assert layer.reason == f"assumed: {said}"
    assert f"assumed of tensor {index}: {said}" in report.notes


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_dequantized_values(precision: type) -> None:
    graph, _, _, _ = sound()
    index, values = output()
    tensor = graph.tensors[index]
    reals = ((values.astype(np.float64) - tensor.zero_point) * tensor.scale).astype(precision)
    report = judged({str(index): reals}, only_recorded=True)
    assert report.verdict == "bit_exact"
    assert "assumed: dequantized with scale" in report.layers[0].reason


def test_a_wrong_value_stays_wrong_after_every_mishap() -> None:
    """What is assumed of a form never makes up for a value."""
    index, values = output()
    wrong = values.copy()
    wrong[0, 5, 5, 3] += 1
    for change in (
        lambda v: v.view(np.uint8),
        lambda v: (v.astype(np.int16) + 128).astype(np.uint8),
        lambda v: v.transpose(0, 3, 1, 2),
        lambda v: v.reshape(-1).astype(np.float32),
    ):
        report = judged({str(index): change(wrong)}, only_recorded=True)
        assert report.exit_code() == EXIT_MISMATCH
        assert report.layers[0].diff is not None
        assert report.layers[0].diff.mismatch_count == 1
        assert report.layers[0].diff.first_divergence is not None
        assert report.layers[0].diff.first_divergence.index == (0, 5, 5, 3)


def test_a_form_that_fits_is_taken_at_its_word() -> None:
    """A flipped sign bit in int8 data of the right shape explains the values; it does not make them right."""
    index, values = output()
    report = judged({str(index): values ^ np.int8(-128)}, only_recorded=True)
    assert report.layers[0].verdict == "explained"
    assert "off by 128 (the sign bit flipped)" in report.layers[0].reason
    assert report.exit_code() == EXIT_MISMATCH
    assert report.exit_code(accept_explained=True) == EXIT_MATCH


def test_real_values_of_another_scale_are_not_compared() -> None:
    index, values = output()
    report = judged({str(index): values.astype(np.float32) * np.float32(0.0123)})
    assert report.exit_code() == EXIT_CANNOT_COMPARE
    assert "neither its integers nor their real values" in report.layers[-1].reason


def test_layers_run_on_recorded_inputs_and_the_oracle_fills_gaps() -> None:
    """A wrong tensor in the middle: its own layer alone is to blame, what follows inherits it, and a layer
    between recordings is judged on what the oracle makes of them."""
    graph, _, feeds, tensors = sound()
    program = compile_graph(graph, PROFILE, 1)
    index = graph.layers[1].outputs[0]
    wrong = tensors[index].copy()
    wrong[0, 2:5, 2:5] = 90
    trace = program.run(feeds, trace=True, given={index: wrong}).trace
    assert trace is not None
    dump = {i: v for i, v in trace.tensors.items() if i != graph.layers[4].outputs[0]}
    report = judged(dump)
    found = {layer.layer: (layer.verdict, layer.origin) for layer in report.layers}
    assert found[0] == ("bit_exact", "")
    assert found[1] == ("mismatch", "introduced")
    assert found[2] == ("explained", "inherited")
    assert found[4] == ("not_compared", "")
    assert found[5] == ("explained", "inherited")
    assert report.outputs[0].verdict == "mismatch"
    assert report.exit_code() == EXIT_MISMATCH


def test_inputs_are_those_of_the_dump_or_those_given() -> None:
    graph, model, _, tensors = sound()
    by_index = dict(tensors)
    assert verify_recorded(model, graph, by_index, profile=PROFILE, threads=1).verdict == "bit_exact"
    unsigned = {**by_index, 0: tensors[0].view(np.uint8)}
    noted = verify_recorded(model, graph, unsigned, profile=PROFILE, threads=1)
    assert noted.notes[0].startswith("assumed of input tensor 0"), "nobody says what was fed: a guess is told"
    with pytest.raises(UsageError, match="holds no values of input tensor 0"):
        verify_recorded(model, graph, dict([output()]), profile=PROFILE, threads=1)
    other = {0: tensors[0].copy()}
    other[0][0, 0, 0, 0] ^= 1
    with pytest.raises(CannotCompare, match=r"1 of 864 values of input .* another input was recorded"):
        verify_recorded(model, graph, by_index, other, profile=PROFILE, threads=1)


def test_a_dump_of_another_model_cannot_be_compared() -> None:
    graph, _, _, tensors = sound()
    position = graph.layers[0].inputs[1]
    data = graph.tensors[position].data
    assert data is not None
    assert judged({**tensors, position: data}).verdict == "bit_exact"
    with pytest.raises(CannotCompare, match=r"constant tensor 1 .*'filter1'.* of another model"):
        judged({**tensors, position: data ^ np.int8(1)})


def test_names_that_mean_nothing_are_refused() -> None:
    _, values = output()
    with pytest.raises(FeedError, match=r"'out77' is not a tensor of the model.*closest name is 'out7'"):
        judged({"out77": values})
    with pytest.raises(FeedError, match="both mean"):
        judged({"out7": values, str(output()[0]): values})
    with pytest.raises(FeedError, match="no array of a tensor"):
        judged({})
