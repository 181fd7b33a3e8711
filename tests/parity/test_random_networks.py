"""Random networks: a verdict that a model matches is true of the outputs a user gets.

The other side is not the project's own: ``onnxruntime.InferenceSession(model).run`` as anybody calls it,
beside what ``karat24 run`` computes. 300 networks, a third of them by ONNX Runtime's own quantizer (both
forms, u8s8, s8s8, u8u8, per tensor and per channel, shared biases, residual, concatenation, attention,
resizing) and the rest as training tools and exporters write them (``tests/cases/qdq_networks.py``: filters in
float, odd and shared biases, pairs in a row, zero points left out).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.export import graph_under
from karat24.export.onnx import read_onnx
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array
from karat24.refimpl.profiles import profile_named

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime

from tests.cases import float_networks, qdq_networks
from tests.support.runtimes import Runtimes

Build = Callable[[int], bytes]

SETS: dict[str, tuple[Build, tuple[int, ...], range]] = {
    "written by hand": (qdq_networks.qdq_network, qdq_networks.IMAGE, range(200)),
    "by the quantizer": (float_networks.quantized_network, float_networks.IMAGE, range(100)),
}

MOST_REFUSED = 0.05
"""Share of networks the runtime itself refuses: its optimizer makes invalid ones of a few."""

LEAST_MATCHING = 0.5
"""Share of networks that get exit code 0, so that the test says something."""

MOST_WITHIN_A_BOUND = 0.1
"""Share of networks with equal layers within a bound whose outputs still differ, where float sums may."""


@pytest.fixture(scope="module")
def runtime(runtimes: Runtimes) -> Delegate:
    return runtimes("ort")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The quantizer advises about each model."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def outputs_a_user_gets(content: bytes, x: Array) -> list[Array] | None:
    """A default session's; None where it refuses the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - its exceptions have no common base
        return None
    return list(session.run(None, {"x": x}))


def outputs_of_karat_run(content: bytes, x: Array, profile: str) -> list[Array] | None:
    """As the command computes them; None where it refuses the model."""
    named = profile_named(profile)
    try:
        program = compile_graph(graph_under(read_onnx(content), named), named, 1)
    except UnsupportedOp:
        return None
    return list(program.run({"x": x}).outputs)


def same(left: list[Array], right: list[Array]) -> bool:
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SETS])
def test_no_match_where_outputs_differ(runtime: Delegate, name: str) -> None:
    build, shape, seeds = SETS[name]
    found: Counter[str] = Counter()
    untrue = []
    for seed in seeds:
        content = build(seed)
        x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        expected = outputs_a_user_gets(content, x)
        if expected is None:
            found["refused by the runtime"] += 1
            continue
        report = verify(content, read_onnx(content), runtime, [{"x": x}], implementation="kernels")
        code, verdict = report.exit_code(), str(report.verdict)
        own = outputs_of_karat_run(content, x, report.profile)
        equal = own is not None and same(own, expected)
        found[f"exit {code}, {verdict}, outputs {'equal' if equal else 'differ'}"] += 1
        if code == 0 and not equal and verdict != "within_bound":
            untrue.append(f"seed {seed}: {verdict}, but the outputs differ; {report.notes}")
    assert not untrue, "\n".join(untrue)
    matching = sum(count for key, count in found.items() if key.startswith("exit 0"))
    assert matching >= LEAST_MATCHING * len(seeds), dict(found)
    assert found["refused by the runtime"] <= MOST_REFUSED * len(seeds), dict(found)
    assert found["exit 0, within_bound, outputs differ"] <= MOST_WITHIN_A_BOUND * len(seeds), dict(found)
