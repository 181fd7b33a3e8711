"""Checking: what is equal passes, what differs is placed and measured, nothing else is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24.export import read_model, write_model
from karat24.feeds import random_feeds
from karat24.golden.goldens import GoldenCheck, changes, check_recorded, write_golden
from karat24.golden.goldens import check as check_of
from karat24.golden.goldens.guard import require_machine
from karat24.golden.goldens.manifest import Golden, Producer
from karat24.golden_places import golden_path, state_of
from karat24.goldens import accept_golden, check_golden, propose_again, record_golden
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import CannotCompare, DamagedGolden, UsageError
from karat24.refimpl.graph import Array
from tests.support.small_golden import SmallGolden, quartering_graph, small_golden


@pytest.fixture
def small(tmp_path: Path) -> SmallGolden:
    return small_golden(tmp_path)


def run_of(small: SmallGolden, profile: str = "litert-2.3-ref") -> dict[int, Array]:
    """Every tensor of a run of the small model, to be changed."""
    graph = read_model(small.model)
    trace = compile_graph(graph, profile).run(random_feeds(graph, 0), trace=True).trace
    assert trace is not None
    return {index: values.copy() for index, values in trace.tensors.items()}


def recorded(small: SmallGolden, found: dict[int, Array]) -> GoldenCheck:
    graph = read_model(small.model)
    return check_recorded(small.path, small.golden, small.model, graph, random_feeds(graph, 0), found)


def test_unchanged_passes(small: SmallGolden) -> None:
    found = check_golden(small.path)
    assert found.passed
    assert [layer.verdict for layer in found.report.layers] == ["bit_exact"] * 4
    assert [output.verdict for output in found.report.outputs] == ["bit_exact"]
    assert "BIT_EXACT" in found._repr_html_()
    assert "CONV_2D" in small.golden._repr_html_()


def test_one_value_off_is_placed_and_measured(small: SmallGolden) -> None:
    """Layer 1 is off by 3 at one place: introduced there; what follows computes on, so it inherits."""
    values = run_of(small)
    graph = read_model(small.model)
    program = compile_graph(graph, "litert-2.3-ref")
    changed = values[graph.layers[1].outputs[0]]
    place = np.unravel_index(int(np.argmin(changed)), changed.shape)
    changed[place] += 90
    for layer in graph.layers[2:]:
        inputs = [values[index] for index in layer.inputs]
        values[layer.outputs[0]] = program.run_layer(layer.index, inputs).outputs[0]
    report = recorded(small, values).report
    assert [layer.verdict for layer in report.layers] == ["bit_exact", "mismatch", "mismatch", "mismatch"]
    assert [layer.origin for layer in report.layers] == ["", "introduced", "inherited", "inherited"]
    diff = report.layers[1].diff
    assert diff is not None
    assert (diff.mismatch_count, dict(diff.histogram)) == (1, {0: changed.size - 1, 90: 1})
    assert report.exit_code() == 1


def test_another_profile_explains_its_own_values(tmp_path: Path) -> None:
    """A recording of a runtime that rounds ties otherwise: a mismatch, and named."""
    small = small_golden(tmp_path, quartering_graph())
    found = recorded(small, run_of(small, "litert-2.3-xnnpack"))
    first = found.report.first_divergence
    assert first is not None
    assert first.verdict == "explained"
    assert first.reason.endswith("ruy, float64 multiplier")
    assert first.tie_distance == 0.25, "-7 / 4 is rounded twice, by way of -3.5: not a tie"
    assert found.exit_code() == 1


def test_what_a_recording_lacks_is_not_compared(small: SmallGolden) -> None:
    values = run_of(small)
    del values[small.golden.tensors[1].tensor]
    report = recorded(small, values).report
    assert [layer.verdict for layer in report.layers].count("not_compared") == 1
    assert report.exit_code() == 3


@pytest.mark.parametrize("change", [{"shape": (5, 8, 8, 1)}, {"dtype": "uint8"}])
def test_another_shape_or_type_differs(small: SmallGolden, change: dict[str, Any]) -> None:
    """The bytes are equal, so the hash is: the check must not stop there."""
    first, *others = small.golden.tensors
    golden = replace(small.golden, tensors=(replace(first, **change), *others))
    graph = read_model(small.model)
    report = check_of(small.path, golden, small.model, graph, random_feeds(graph, 0)).report
    assert [layer.verdict for layer in report.layers] == ["mismatch", *["bit_exact"] * 3]
    assert "the golden has" in report.layers[0].reason
    assert report.exit_code() == 1


def test_a_recording_of_another_form_is_read_and_said(small: SmallGolden) -> None:
    """int8 seen as uint8 and rows of values are no differences; values of another size are not compared."""
    values = run_of(small)
    first, second, third, _ = (tensor.tensor for tensor in small.golden.tensors)
    values[first] = values[first].view(np.uint8)
    values[second] = values[second].reshape(-1)
    values[third] = values[third].reshape(values[third].shape[::-1])
    report = recorded(small, values).report
    assert [layer.verdict for layer in report.layers] == [
        "bit_exact",
        "bit_exact",
        "not_compared",
        "bit_exact",
    ]
    assert report.notes == (
        f"assumed of tensor {first}: int8 seen as uint8",
        f"assumed of tensor {second}: one row of values in the model's order",
    )
    assert report.exit_code() == 3


def test_a_mishap_is_a_mismatch_with_a_name(small: SmallGolden) -> None:
    """Values that the file itself says are int8 are taken at its word, and the layers behind them are not
    blamed."""
    values = run_of(small)
    first = small.golden.tensors[0].tensor
    values[first] = (values[first].view(np.uint8) ^ 128).view(np.int8)
    report = recorded(small, values).report
    assert [layer.verdict for layer in report.layers] == ["mismatch", *["bit_exact"] * 3]
    assert "off by 128 (the sign bit flipped)" in report.layers[0].reason
    assert report.layers[0].diff is not None
    assert report.layers[0].diff.max_abs_diff_lsb == 128
    assert report.exit_code() == 1


def test_a_mistake_is_named(small: SmallGolden) -> None:
    """As in ``verify --recorded``: one cause gives every value, the layers behind inherit."""
    graph = read_model(small.model)
    layer = graph.view(0)
    bias = layer.input(2).data
    assert bias is not None
    wrong = graph.tensors[layer.input(2).index]
    tensors = [replace(t, data=np.zeros_like(bias)) if t is wrong else t for t in graph.tensors]
    trace = (
        compile_graph(replace(graph, tensors=tuple(tensors))).run(random_feeds(graph, 0), trace=True).trace
    )
    assert trace is not None
    report = recorded(small, dict(trace.tensors)).report
    assert report.layers[0].attribution is not None
    assert "bias missing" in report.layers[0].reason
    assert [found.origin for found in report.layers[1:] if found.verdict == "mismatch"].count(
        "introduced"
    ) == 0


def test_a_recording_of_another_input_or_model_is_refused(small: SmallGolden) -> None:
    values = run_of(small)
    graph = read_model(small.model)
    fed = {**values, graph.inputs[0]: values[graph.inputs[0]] ^ 1}
    with pytest.raises(CannotCompare, match="another input"):
        recorded(small, fed)
    constant = next(tensor for tensor in graph.tensors if tensor.data is not None)
    assert constant.data is not None
    with pytest.raises(CannotCompare, match="another model"):
        recorded(small, {**values, constant.index: constant.data ^ 1})


def edited(small: SmallGolden, **changed: object) -> Golden:
    """The golden on disk, with fields replaced."""
    return write_golden(small.path, replace(small.golden, **changed))  # type: ignore[arg-type]


def test_another_model_is_not_compared(small: SmallGolden) -> None:
    graph = read_model(small.model)
    small.model.write_bytes(write_model(replace(graph, name="renamed")) + b"\0")
    with pytest.raises(CannotCompare, match="stale"):
        check_golden(small.path)
    assert state_of(small.path)[0] == "stale"


def test_a_model_that_is_gone_is_not_compared(small: SmallGolden) -> None:
    small.model.unlink()
    with pytest.raises(CannotCompare, match="does not exist"):
        check_golden(small.path)
    assert state_of(small.path)[0] == "orphan"


def test_another_input_is_not_compared(small: SmallGolden) -> None:
    edited(small, input=replace(small.golden.input, seed=1))
    with pytest.raises(CannotCompare, match="input values"):
        check_golden(small.path)


def test_another_profile_is_not_compared(small: SmallGolden) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    with pytest.raises(CannotCompare, match=r"litert-2\.3-xnnpack"):
        check_golden(small.path, delegate="litert-xnnpack")


def test_another_version_of_the_runtime_is_not_compared(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    small = small_golden(tmp_path, delegate="litert-ref")
    assert small.golden.producer.runtime.startswith("ai-edge-litert 2.")
    assert small.golden.arrays, "what a runtime gave is kept"
    assert check_golden(small.path).passed
    assert check_golden(small.path, delegate="oracle").passed, "the oracle follows the profile, too"
    edited(small, producer=replace(small.golden.producer, runtime="ai-edge-litert 1.0"))
    with pytest.raises(CannotCompare, match=r"ai-edge-litert 1\.0"):
        check_golden(small.path)
    assert check_golden(small.path, delegate="oracle").passed


def test_loose_bits_are_compared_on_their_machine_only(small: SmallGolden) -> None:
    """A golden whose last layer no document fixes, recorded here and elsewhere."""
    tensors = (*small.golden.tensors[:-1], replace(small.golden.tensors[-1], fixed=False))
    graph = read_model(small.model)
    here = small.golden.producer
    assert here.machine == {}
    elsewhere = replace(small.golden, tensors=tensors, producer=replace(here, machine={"cpu": "another"}))
    found = check_of(small.path, elsewhere, small.model, graph, random_feeds(graph, 0)).report
    assert [layer.verdict for layer in found.layers] == ["bit_exact"] * 3 + ["not_compared"]
    assert found.outputs[0].verdict == "not_compared"
    assert "another" in found.outputs[0].reason
    assert found.exit_code() == 3
    runtime = Producer("ort", "onnxruntime 1.31.1")
    assert "only oracle on the recording machine" in require_machine(elsewhere, runtime)


def test_without_a_profile_only_the_producer_is_compared(small: SmallGolden) -> None:
    edited(small, profile="", producer=replace(small.golden.producer, name="npu"))
    with pytest.raises(CannotCompare, match="no profile"):
        check_golden(small.path, delegate="oracle")


def test_a_layer_the_golden_does_not_know_is_not_compared(small: SmallGolden) -> None:
    edited(small, tensors=small.golden.tensors[:-1])
    report = check_golden(small.path).report
    assert report.layers[-1].verdict == "not_compared"
    assert report.exit_code() == 3
    assert report.notes[-1].startswith(
        "every output of the model is equal; its layers are not all comparable"
    )
    assert report.notes[-1].endswith("0 of 3 recorded tensors are missing; see what `karat24 golden accept` "
                                     "would change")  # fmt: skip


def test_what_is_equal_is_said_where_a_runtime_runs_other_layers(tmp_path: Path) -> None:
    """ONNX Runtime makes int8 activations uint8: no tensor of its layers is the oracle's, and outputs are."""
    pytest.importorskip("onnxruntime")
    from tests.cases.qdq_kinds import signed_activations

    model = tmp_path / "signed.onnx"
    model.write_bytes(signed_activations())
    record_golden(model)
    report = check_golden(golden_path(model), delegate="ort").report
    assert report.exit_code() == 3
    assert [output.verdict for output in report.outputs] == ["bit_exact"]
    note = report.notes[-1]
    assert note.startswith(
        "every output of the model is equal; its layers are not all comparable, because ort"
    )
    assert note.endswith("`karat24 golden record signed.onnx --delegate ort --name ort`")
    of_ort = golden_path(model, name="ort")
    record_golden(model, of_ort, delegate="ort")
    assert check_golden(of_ort, delegate="ort").passed


def test_a_changed_oracle_is_said_to_have_changed(small: SmallGolden) -> None:
    """No values are kept and none can be computed: the hash decides alone."""
    tensors = (replace(small.golden.tensors[0], sha256="0" * 64), *small.golden.tensors[1:])
    edited(small, tensors=tensors)
    report = check_golden(small.path).report
    assert report.layers[0].verdict == "mismatch"
    assert "no longer computes" in report.layers[0].reason
    assert report.exit_code() == 1


def test_kept_values_measure_what_cannot_be_computed(tmp_path: Path) -> None:
    """Values beside the golden are those of a run that no profile gives."""
    small = small_golden(tmp_path, keep="all")
    values = run_of(small)
    index = small.golden.tensors[0].tensor
    values[index][0, 0, 0, 0] ^= 1
    report = recorded(small, values).report
    assert report.layers[0].diff is not None
    assert report.layers[0].diff.mismatch_count == 1
    source = small.path.with_name(small.golden.arrays)
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(DamagedGolden, match="arrays"):
        recorded(small, values)


def test_arrays_elsewhere_are_damage(small: SmallGolden) -> None:
    values = run_of(small)
    values[small.golden.tensors[0].tensor] ^= 1
    golden = replace(small.golden, arrays="../secret.npz")
    graph = read_model(small.model)
    with pytest.raises(DamagedGolden, match="not beside"):
        check_recorded(small.path, golden, small.model, graph, random_feeds(graph, 0), values)


def test_recording_again_changes_nothing(small: SmallGolden) -> None:
    before = small.path.read_bytes()
    assert propose_again(small.path).changes == []
    assert record_golden(small.model) == small.golden
    assert small.path.read_bytes() == before


def test_another_golden_is_not_overwritten(small: SmallGolden) -> None:
    before = small.path.read_bytes()
    with pytest.raises(UsageError, match="a golden lies there"):
        record_golden(small.model, seed=1)
    assert small.path.read_bytes() == before


def test_accepting_says_what_changed(small: SmallGolden) -> None:
    tensors = (replace(small.golden.tensors[0], sha256="0" * 64, ties=99), *small.golden.tensors[1:])
    edited(small, tensors=tensors)
    changed = accept_golden(small.path)
    assert len(changed) == 1
    assert changed[0].startswith("layer 0 (CONV_2D) 'first': sha256 0000000000000000 ->")
    assert "ties 99 -> 0" in changed[0]
    assert check_golden(small.path).passed
    assert changes(small.golden, small.golden) == []


def test_given_values_must_be_given_again(tmp_path: Path) -> None:
    small = small_golden(tmp_path, feeds=[np.full((1, 8, 8, 3), 7, np.int8)])
    with pytest.raises(CannotCompare, match="give them again"):
        check_golden(small.path)
    assert check_golden(small.path, feeds=[np.full((1, 8, 8, 3), 7, np.int8)]).passed


def test_files_are_found_from_the_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tmp_path / "inputs" / "x.npy"
    inputs.parent.mkdir()
    np.save(inputs, np.full((1, 8, 8, 3), 7, np.int8))
    small = small_golden(tmp_path, files=[inputs])
    assert small.golden.input.files == ("inputs/x.npy",)
    monkeypatch.chdir(inputs.parent)
    assert check_golden(small.path).passed
    np.save(inputs, np.full((1, 8, 8, 3), 8, np.int8))
    with pytest.raises(CannotCompare, match="input values"):
        check_golden(small.path)
