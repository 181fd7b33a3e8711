"""Where no mistake was made none is named: sound runs, other rounding, noise."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.golden.recordings.judge import verify_recorded
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph, LayerView
from tests.support.int8_networks import NETWORKS
from tests.support.mistakes import PROFILE, assert_sound_runs_have_no_cause, causes, judged, sound


@pytest.mark.parametrize("name", NETWORKS)
def test_noise_has_no_cause(name: str) -> None:
    """One in ten values one step off, at random: whatever gave them, it was none of the mistakes known."""
    random = np.random.default_rng(8)

    def noisy(graph: Graph, view: LayerView, inputs: list[Array]) -> Array:
        out = sound(name).tensors[view.output().index].astype(np.int64)
        off = random.integers(-1, 2, out.shape) * (random.random(out.shape) < 0.1)
        return np.clip(out + off, -128, 127).astype(np.int8)

    for layer in range(len(sound(name).graph.layers)):
        (wrong,) = (v for v in judged(name, layer, noisy).layers if v.verdict == "mismatch")
        assert not causes(wrong), wrong.reason


@pytest.mark.parametrize("name", NETWORKS)
def test_sound_runs_have_no_cause(name: str) -> None:
    """34 sound runs of each network, on inputs of their own, all values recorded: 102 in all."""
    assert_sound_runs_have_no_cause(sound(name), PROFILE, range(100, 134))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("other", ["litert-2.3-builtin", "litert-2.3-xnnpack"])
def test_another_rounding_is_no_mistake(name: str, other: str) -> None:
    """Runs under another profile differ by it and are explained by it, and no mistake is named."""
    run = sound(name)
    program = compile_graph(run.graph, other, 1)
    explained = 0
    for seed in range(4):
        feeds = random_feeds(run.graph, seed)
        trace = program.run(feeds, trace=True).trace
        assert trace is not None
        report = verify_recorded(run.model, run.graph, dict(trace.tensors), feeds, profile=PROFILE, threads=1)
        assert report.verdict in ("bit_exact", "explained")
        assert all(verdict.attribution is None for verdict in report.layers)
        explained += report.verdict == "explained"
    assert explained
