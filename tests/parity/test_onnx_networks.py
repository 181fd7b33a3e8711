"""Whole networks, quantized by ONNX Runtime's own tool, judged layer by layer in its integer lane."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest

from delegates import Delegate, delegate_named
from export.onnx import read_onnx, write_float_onnx
from golden.verify import verify
from refimpl.networks import network
from tests.cases.onnx_models import ARCHITECTURES, float_network, images, on_the_grid, photograph, quantized

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FORMS = [(form, activations) for form in ("QDQ", "QOperator") for activations in ("QUInt8", "QInt8")]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Delegate]:
    with delegate_named("ort", time_limit=60.0) as delegate:
        yield delegate


def verdicts(
    content: bytes,
    delegate: Delegate,
    samples: list[dict[str, np.ndarray]],
    mode: Literal["isolated", "cumulative"],
) -> dict[str, list[str]]:
    report = verify(content, read_onnx(content), delegate, samples, mode=mode, threads=1)
    found: dict[str, list[str]] = {}
    for layer in report.layers:
        found.setdefault(layer.verdict, []).append(f"{layer.op} {layer.name}: {layer.reason}")
    return found


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize(("form", "activations"), FORMS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_of_an_architecture_is_exact(
    runtime: Delegate, name: str, form: str, activations: str, mode: Literal["isolated", "cumulative"]
) -> None:
    """Random values, a photograph, and halves of the input's own scale, which tie when quantized."""
    content = quantized(float_network(name), form, activations, [{"x": images(i)} for i in range(3)])
    graph = read_onnx(content)
    scale = next(
        graph.view(i).output().scale for i, layer in enumerate(graph.layers) if layer.op == "QuantizeLinear"
    )
    samples = [{"x": images(9)}, {"x": photograph()}, {"x": on_the_grid(scale)}]
    assert set(verdicts(content, runtime, samples, mode)) == {"bit_exact"}


@pytest.mark.parametrize(("form", "activations"), FORMS)
@pytest.mark.parametrize("name", ["fine-tune", "tomogan"])
def test_every_integer_layer_of_the_restorers_is_exact(
    runtime: Delegate, name: str, form: str, activations: str
) -> None:
    """TomoGAN's bilinear Resize runs in float32 in QDQ form, on stored values in QOperator form."""
    content = write_float_onnx(network(name, 16, 24, "bilinear", None, 0))
    model = onnx.load_from_string(content)
    (image,) = model.graph.input
    shape = [size.dim_value for size in image.type.tensor_type.shape.dim]
    feeds = [{image.name: np.random.default_rng(i).random(shape, np.float32)} for i in range(3)]
    stored = quantized(model, form, activations, feeds[:2])
    assert set(verdicts(stored, runtime, feeds[2:], "isolated")) == {"bit_exact"}
    found = verdicts(stored, runtime, feeds[2:], "cumulative")
    assert set(found) <= {"bit_exact", "not_compared"}
    hidden = found.get("not_compared", [])
    assert all("would undo the fusion" in reason for reason in hidden)
    assert len(hidden) < len(found["bit_exact"]) / 4


def test_a_transposed_convolution_in_float_is_not_compared_and_what_follows_is(runtime: Delegate) -> None:
    """Its sums have no documented order; layers behind it are judged on the oracle's own inputs."""
    content = write_float_onnx(network("tomogan", 16, 16, "transposed", None, 0))
    model = onnx.load_from_string(content)
    (image,) = model.graph.input
    shape = [size.dim_value for size in image.type.tensor_type.shape.dim]
    feeds = [{image.name: np.random.default_rng(i).random(shape, np.float32)} for i in range(2)]
    found = verdicts(quantized(model, "QDQ", "QUInt8", feeds), runtime, feeds[:1], "isolated")
    assert set(found) == {"bit_exact", "not_compared"}
    assert len(found["not_compared"]) == 3
    assert all(
        line.startswith("ConvTranspose") and "never compared" in line for line in found["not_compared"]
    )


def test_another_profile_is_found_out_and_explained(runtime: Delegate) -> None:
    """Held to onnx-spec, ONNX Runtime differs on ties with an odd zero point, and ort-1.31 explains it."""
    from tests.cases.onnx_ops import ties

    case = next(case for case in ties() if case.name == "ties_uint8_3")
    graph = read_onnx(case.model)
    report = verify(case.model, graph, runtime, [case.feeds], profile="onnx-spec", threads=1)
    (layer,) = report.layers
    assert layer.verdict == "explained"
    assert "ort-1.31" in layer.reason
    assert layer.tie_distance == 0
    assert layer.diff is not None
    assert layer.diff.max_abs_diff_lsb == 1
