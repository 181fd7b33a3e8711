"""TomoGAN, both variants, and Fine-Tune: every layer on every LiteRT lane, and 1024×1024 on XNNPACK."""

from __future__ import annotations

import pytest

from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.diff import diff_arrays
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from tests.support.flagships import TITLES, quantized
from tests.support.runtimes import Runtimes

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "int8-mobile", "uint8-2019"])
@pytest.mark.parametrize("title", TITLES)
def test_every_layer_is_bit_exact_at_64(title: str, scheme: str, runtimes: Runtimes) -> None:
    """The values of a whole run are those of its layers: one input shows what whole runs add."""
    graph = quantized(title, 64, scheme)
    model = write_tflite(graph)
    samples = [random_feeds(graph, seed) for seed in range(2)]
    for lane in LANES:
        for mode, given in (("isolated", samples), ("cumulative", samples[-1:])):
            report = verify(model, graph, runtimes(lane), given, mode=mode, implementation="kernels")  # type: ignore[arg-type]
            assert report.verdict == "bit_exact", f"{title} {scheme} {report.table()}"


@pytest.mark.slow
@pytest.mark.parametrize("title", ["tomogan bilinear", "tomogan transposed", "fine-tune"])
def test_end_to_end_at_1024_on_xnnpack(title: str, runtimes: Runtimes) -> None:
    graph = quantized(title, 1024)
    feeds = random_feeds(graph, 0)
    expected = compile_graph(graph, "litert-2.3-xnnpack").run(feeds).outputs
    found = runtimes("litert-xnnpack").run(write_tflite(graph), feeds, tensors="outputs").outputs
    for ours, theirs in zip(expected, found, strict=True):
        assert diff_arrays(ours, theirs).equal


@pytest.mark.parametrize("title", ["tomogan bilinear", "tomogan transposed", "fine-tune"])
def test_spec_equals_kernels_on_every_layer(title: str) -> None:
    graph = quantized(title, 64)
    feeds = random_feeds(graph, 5)
    spec = compile_graph(graph, implementation="spec").run(feeds, accumulators=True).trace
    fast = compile_graph(graph).run(feeds, accumulators=True).trace
    assert spec is not None
    assert fast is not None
    for index, value in spec.tensors.items():
        assert diff_arrays(value, fast.tensors[index]).equal, graph.label(index)
    for layer, value in spec.accumulators.items():
        assert diff_arrays(value, fast.accumulators[layer]).equal, f"accumulators of layer {layer}"
