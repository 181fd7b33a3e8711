"""ONNX Runtime and the reference behind the protocol: what is shown, what is refused, no fallback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates import Delegate, delegate_named
from karat24.delegates.onnx_lanes import ONNX_LANES, OnnxLane
from karat24.delegates.onnxruntime import ONNX_PYTHON, OnnxDelegate
from karat24.export.onnx import lower_qdq, read_onnx
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import DelegateError, DelegateUnavailable, FeedError, ModelError, UsageError
from tests.cases.onnx_models import qdq_pair, quantized_relu_chain
from tests.cases.qdq_kinds import bias_of_another_scale
from tests.support.runtimes import Runtimes

CPU_LANES = (
    "ort", "ort-qdqisint8allowed", "ort-x64quantprecision", "ort-disable-all", "onnx-reference"
)  # fmt: skip


@pytest.fixture(scope="module", params=CPU_LANES)
def delegate(request: pytest.FixtureRequest) -> Iterator[Delegate]:
    pytest.importorskip("onnxruntime")
    with delegate_named(request.param, time_limit=60.0) as found:
        yield found


def image(shape: tuple[int, ...] = (1, 3, 6, 6)) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_the_probe_names_library_and_version(delegate: Delegate) -> None:
    probe = delegate.probe()
    assert probe.available
    assert probe.library in ("onnxruntime", "onnxruntime-gpu", "onnx")
    assert probe.version
    assert delegate.versions()[probe.library] == probe.version


@pytest.mark.parametrize("as_path", [False, True])
def test_runs_bytes_and_paths_alike(delegate: Delegate, as_path: bool, tmp_path: Path) -> None:
    content = qdq_pair()
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    run = delegate.run(path if as_path else content, {"x": image()})
    stored = np.clip(np.rint(image() / np.float32(0.02)) + 128, 0, 255)
    expected = (stored - 128).astype(np.float32) * np.float32(0.02)
    assert np.array_equal(run.outputs[0], expected)


def test_integer_edges_are_shown_under_the_graphs_own_indices(delegate: Delegate) -> None:
    content = quantized_relu_chain()
    graph = read_onnx(content)
    run = delegate.run(content, [image()])
    integers = {i for layer in graph.layers for i in layer.outputs if graph.tensors[i].dtype == "uint8"}
    assert integers <= set(run.trace.tensors)
    for index in integers:
        assert run.trace.tensors[index].dtype == np.uint8
        assert run.trace.tensors[index].shape == graph.tensors[index].shape
    assert run.capture_changed == ()


def test_edges_inside_fused_layers_are_unreadable_and_say_why() -> None:
    content = quantized_relu_chain()
    graph = read_onnx(content)
    with delegate_named("ort") as delegate:
        run = delegate.run(content, [image()])
    fused = {
        layer.outputs[0] for layer in graph.layers if layer.op in ("Conv", "DequantizeLinear", "MaxPool")
    } - set(graph.outputs)
    assert fused
    assert fused <= set(run.unreadable)
    assert not set(run.unreadable) & set(run.trace.tensors)
    assert "the inside of another layer" in run.unreadable[min(fused)]


def test_float_edges_that_ran_are_shown() -> None:
    """A float convolution's result is an edge of the runtime's own graph: showing it undoes nothing."""
    content = bias_of_another_scale()
    graph = read_onnx(content)
    (conv,) = (layer for layer in graph.layers if layer.op == "Conv")
    with delegate_named("ort") as delegate:
        run = delegate.run(content, [image((1, 4, 8, 8))])
    assert run.trace.tensors[conv.outputs[0]].dtype == np.float32
    assert run.capture_changed == ()


def test_outputs_only(delegate: Delegate) -> None:
    graph = read_onnx(quantized_relu_chain())
    run = delegate.run(quantized_relu_chain(), [image()], tensors="outputs")
    assert set(run.trace.tensors) == {*graph.inputs, *graph.outputs}


def test_a_feed_that_does_not_fit_is_named(delegate: Delegate) -> None:
    with pytest.raises(FeedError, match=r"input 'x'.*got shape \(1, 3, 5, 6\)"):
        delegate.run(qdq_pair(), [image()[:, :, 1:]])
    with pytest.raises(FeedError, match="no input 'other'"):
        delegate.run(qdq_pair(), {"other": image()})


def test_a_broken_file_is_a_model_error(delegate: Delegate) -> None:
    with pytest.raises(ModelError, match="not an ONNX file"):
        delegate.run(b"\x0a\xff\xff\xff\xff\xff", [image()])
    with pytest.raises(UsageError, match=r"absent\.onnx: No such file"):
        delegate.run(Path("absent.onnx"), [image()])
    with pytest.raises(UsageError, match="0 threads"):
        delegate.run(qdq_pair(), [image()], threads=0)


@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt"])
def test_a_missing_provider_is_said_and_never_replaced(name: str) -> None:
    """Where the provider is there it must run; where it is not, neither probe nor run may fall back."""
    with delegate_named(name, time_limit=120.0) as delegate:
        probe = delegate.probe()
        if probe.available:
            assert probe.devices
            return
        assert "ExecutionProvider" in probe.reason
        assert "onnxruntime-gpu" in probe.remedy
        with pytest.raises(DelegateUnavailable, match="onnxruntime-gpu"):
            delegate.run(qdq_pair(), [image()])
        with pytest.raises(DelegateUnavailable, match="onnxruntime-gpu"):
            verify(qdq_pair(), read_onnx(qdq_pair()), delegate, [[image()]])


def test_an_unknown_optimization_level_is_an_error() -> None:
    lane = OnnxLane("odd", "ort-1.31", "CPUExecutionProvider", level="ORT_ENABLE_NOTHING")
    with OnnxDelegate(lane) as delegate, pytest.raises(DelegateError):
        delegate.versions()


def test_another_interpreter_is_asked_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONNX_PYTHON, "/no/such/python")
    with delegate_named("ort") as delegate:
        assert delegate.probe().reason == "cannot start /no/such/python: No such file or directory"


def by_the_oracle(content: bytes, profile: str) -> np.ndarray:
    (output,) = compile_graph(lower_qdq(read_onnx(content)), profile, 1).run([image()]).outputs
    return output


def test_precise_sums_change_nothing_without_saturation() -> None:
    """With VNNI both lanes fit one profile; without it precise sums are those that VNNI gives."""
    content = quantized_relu_chain()
    with delegate_named("ort") as plain, delegate_named("ort-x64quantprecision") as precise:
        left, right = (d.run(content, [image()]).outputs[0] for d in (plain, precise))
        assert np.array_equal(left, by_the_oracle(content, plain.profile))
        assert np.array_equal(right, by_the_oracle(content, "ort-1.31"))
        assert np.array_equal(left, right) or plain.profile == "ort-1.31-avx2"


def test_precise_sums_do_not_saturate_without_vnni(emulated_runtimes: Runtimes) -> None:
    content = quantized_relu_chain()
    plain, precise = (emulated_runtimes(lane) for lane in ("ort", "ort-x64quantprecision"))
    assert np.array_equal(plain.run(content, [image()]).outputs[0], by_the_oracle(content, plain.profile))
    exact = by_the_oracle(content, "ort-1.31")
    assert np.array_equal(precise.run(content, [image()]).outputs[0], exact)
    assert not np.array_equal(exact, by_the_oracle(content, "ort-1.31-avx2")), "the model must saturate"


def test_a_lane_is_named_after_the_option_in_which_it_differs() -> None:
    """The plain name has no options at all; the old name of a lane still finds it."""
    for lane in ONNX_LANES:
        for option in lane.entries:
            if lane.provider == "CPUExecutionProvider":
                assert lane.name == f"ort-{option.removeprefix('session.')}"
    (default,) = (lane for lane in ONNX_LANES if lane.name == "ort")
    assert not default.entries
    assert default.level == "ORT_ENABLE_ALL"
    with delegate_named("ort-exact") as old:
        assert old.name == "ort-disable-all"


def test_every_lane_has_a_profile_of_its_format_or_none() -> None:
    from karat24.refimpl.profiles import PROFILES

    for lane in ONNX_LANES:
        assert not lane.profile or PROFILES[lane.profile].format == "onnx"
