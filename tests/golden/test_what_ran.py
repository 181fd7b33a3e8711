"""The layers judged are those ONNX Runtime ran, and its whole-model outputs are compared in every mode."""

from __future__ import annotations

import numpy as np
import pytest

import karat24
from karat24.delegates import Delegate, delegate_named
from karat24.export.onnx import read_onnx
from karat24.export.onnx.lowering import fusions
from karat24.golden.report import Mode, Report
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from tests.cases.qdq_kinds import KINDS, image
from tests.shared_models import CASES, require_case
from tests.support.runtimes import Runtimes

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def ort(runtimes: Runtimes) -> Delegate:
    return runtimes("ort")


def feeds_for(content: bytes, seed: int = 1) -> dict[str, Array]:
    graph = read_onnx(content)
    found = {}
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if tensor.dtype == "float32":
            found[tensor.name] = image(tensor.shape, seed)
        else:
            info = np.iinfo(tensor.dtype)
            random = np.random.default_rng(seed)
            found[tensor.name] = random.integers(info.min, info.max + 1, tensor.shape).astype(tensor.dtype)
    return found


def default_session(content: bytes, feeds: dict[str, Array]) -> list[Array]:
    """What a user gets: no options at all, and nothing of this project between."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, feeds)
    return outputs


def judged(content: bytes, delegate: Delegate, mode: Mode = "isolated") -> Report:
    return verify(content, read_onnx(content), delegate, [feeds_for(content)], mode=mode, threads=1)


RAN = {
    "bias_of_the_right_scale": {"QLinearConv": 1, "Conv": 0},
    "bias_of_another_scale": {"QLinearConv": 0, "Conv": 1},
    "shared_bias": {"QLinearConv": 1, "Conv": 1},
    "signed_activations": {"QLinearConv": 2, "Conv": 0},
    "sum_of_two": {"com.microsoft:QLinearAdd": 1, "Add": 0},
    "two_pairs_in_a_row": {"com.microsoft:QLinearAveragePool": 1, "QuantizeLinear": 1},
    "relu_above_the_zero_point": {"QLinearConv": 0},
    "sine_between_layers": {"QLinearConv": 2, "Sin": 1},
    "wide_float_convolution": {"QLinearConv": 1, "Conv": 1},
}
"""How often some ops run."""


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_those_that_ran_and_outputs_are_exact(kind: str, mode: Mode, ort: Delegate) -> None:
    content = KINDS[kind]()
    report = judged(content, ort, mode)
    ops = [layer.op for layer in report.layers]
    assert {op: ops.count(op) for op in RAN[kind]} == RAN[kind]
    assert {layer.verdict for layer in report.layers} <= {"bit_exact", "not_compared", "within_bound"}
    assert [output.verdict for output in report.outputs] == ["bit_exact"]
    assert report.exit_code() == (3 if report.verdict == "not_compared" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_behind_an_uncomparable_layer_is_judged(kind: str, ort: Delegate) -> None:
    """Only the float layer, or the one the oracle lacks, is left out; its reason is given."""
    report = judged(KINDS[kind](), ort)
    for layer in report.layers:
        if layer.verdict == "not_compared":
            assert layer.op.removeprefix("com.microsoft:") in ("Conv", "FusedConv", "Sin")
            assert layer.reason


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_on_those_layers_gives_what_a_user_gets(kind: str, ort: Delegate) -> None:
    """Independent of `verify`: the layers, the runtime's own float values, and the plain session."""
    content = KINDS[kind]()
    feeds = feeds_for(content)
    graph = ort.executed_graph(content, read_onnx(content)).graph
    program = compile_graph(graph, ort.profile, 1, missing="given")
    run = ort.run(content, feeds)
    assert not run.capture_changed
    given = {
        index: run.trace.tensors[index]
        for step in program.steps
        if step.missing or step.rule.method == "unspecified"
        for index in step.view.layer.outputs
    }
    for found, expected in zip(
        program.run(feeds, given=given).outputs, default_session(content, feeds), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_prediction_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note names the layers; where nothing differs there is none."""
    content = KINDS["bias_of_another_scale"]()
    with delegate_named("ort", time_limit=60.0) as delegate:
        assert not any("predict" in note for note in judged(content, delegate).notes)
    monkeypatch.setattr(fusions, "bias_fits", lambda *_: True)
    with delegate_named("ort", time_limit=60.0) as delegate:
        (note,) = (note for note in judged(content, delegate).notes if "predict" in note)
    assert "instead of QLinearConv 'c_q'" in note


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
def test_two_lanes_that_run_other_layers_differ_in_their_outputs(
    mode: Mode, ort: Delegate, runtimes: Runtimes
) -> None:
    """Each layer of the first is computed alike by the second, which runs other layers of the file."""
    from karat24.golden.against import compare_runtimes

    content = KINDS["sum_of_two"]()
    graph, feeds = read_onnx(content), feeds_for(content)
    other = runtimes("ort-disable-all")
    report = compare_runtimes(content, graph, ort, other, [feeds], mode=mode, threads=1)
    assert report.exit_code() == 1
    (output,) = report.outputs
    assert output.verdict == "explained"
    assert "each runtime computes what its own profile says" in output.reason
    if mode == "isolated":
        assert {layer.verdict for layer in report.layers} == {"bit_exact"}


@pytest.mark.parametrize("kind", ["bias_of_the_right_scale", "sum_of_two"])
def test_every_door_computes_what_the_runtime_does(kind: str, ort: Delegate) -> None:
    """The library's `compile_graph` lowers like `karat24 run` and the oracle as a delegate."""
    content = KINDS[kind]()
    feeds = feeds_for(content)
    (expected,) = default_session(content, feeds)
    graph = read_onnx(content)
    program = karat24.compile_graph(graph, ort.profile, 1)
    np.testing.assert_array_equal(program.run(feeds).outputs[0], expected)
    with delegate_named("oracle", profile=ort.profile) as oracle:
        np.testing.assert_array_equal(oracle.run(content, feeds).outputs[0], expected)
        assert oracle.executed_graph(content, graph).graph.layers == program.graph.layers


REPORTED = {
    "aimet4105_linear_transpose_after_dq": "com.microsoft:QGemm",
    "modelopt869_fp32_qdq_conv_clip": "com.microsoft:FusedConv",
    "ort10111_dynamic_matmul_s8": "com.microsoft:DynamicQuantizeMatMul",
    "ort12558_dynamic_conv_s8": "ConvInteger",
    "ort16105_qgemm_u8s8_zp128": "com.microsoft:QGemm",
    "ort18811_a16w8_opset21": "Conv",
    "ort24711_constw_bias_match": "QLinearConv",
    "ort24711_constw_bias_mismatch": "Conv",
    "ort28030_double_qdq_avgpool": "com.microsoft:QLinearAveragePool",
    "ort32132_qlinearadd_vs_float": "com.microsoft:QLinearAdd",
    "ort7982_shared_bias_quantize_static_u8s8": "Conv",
    "perchannel_square_axis_missing": "QLinearConv",
    "q_conv1d_s8s8": "QLinearConv",
    "qat_floatw_q_dq_conv_pertensor": "QLinearConv",
    "trt1706_pytorchquant_floatw_q_dq_floatbias": "com.microsoft:FusedConv",
}
"""Files people reported, and an op that a default session runs for each."""


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("name", REPORTED)
def test_reported_files_are_judged_by_what_ran(name: str, mode: Mode, ort: Delegate) -> None:
    """A pass is held against the plain session; no layer and no output differs."""
    content = require_case(f"onnx/{name}.onnx").read_bytes()
    report = judged(content, ort, mode)
    assert REPORTED[name] in {layer.op for layer in report.layers}
    verdicts = {found.verdict for found in report.judged}
    assert verdicts <= {"bit_exact", "not_compared", "within_bound"}
    assert report.exit_code() == (3 if "not_compared" in verdicts else 0)


def test_all_reported_files_are_listed() -> None:
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is absent; set KARAT24_CASES to the folder of reported files")
    assert {path.stem for path in CASES.glob("onnx/*.onnx")} == set(REPORTED)
