"""TomoGAN, both variants, and Fine-Tune: every layer on every LiteRT lane, and 1024×1024 on XNNPACK."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import delegate_named
from karat24.export.quantize import PRESETS, calibrate, quantize_graph
from karat24.export.tflite import write_tflite
from karat24.feeds import random_feeds
from karat24.golden.diff import diff_arrays
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import chain, fine_tune, tomogan

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")
TITLES = ("tomogan bilinear", "tomogan transposed", "fine-tune", "chained")


def float_graph(title: str, size: int) -> Graph:
    if title == "fine-tune":
        return fine_tune(size, size)
    if title == "chained":
        return chain(tomogan(size, size), fine_tune(size, size))
    return tomogan(size, size, "transposed" if title.endswith("transposed") else "bilinear")


def smooth(shape: tuple[int, ...], seed: int) -> Array:
    """A picture-like sample: low frequencies and noise, in 0..1."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((shape[0], shape[1] // 8, shape[2] // 8, shape[3]))
    picture = coarse.repeat(8, axis=1).repeat(8, axis=2) + 0.1 * generator.standard_normal(shape)
    return np.clip(picture, 0, 1).astype(np.float32)


def quantized(title: str, size: int, scheme: str = "int8") -> Graph:
    """Ranges come from the 64×64 network: tensor indices are the same at any size."""
    small = float_graph(title, 64)
    shape = small.tensors[small.inputs[0]].shape
    ranges = calibrate(small, [smooth(shape, seed) for seed in range(2)], PRESETS[scheme].range_method)
    return quantize_graph(float_graph(title, size), ranges, PRESETS[scheme])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "int8-mobile", "uint8-2019"])
@pytest.mark.parametrize("title", TITLES)
def test_every_layer_is_bit_exact_at_64(title: str, scheme: str) -> None:
    graph = quantized(title, 64, scheme)
    model = write_tflite(graph)
    samples = [random_feeds(graph, seed) for seed in range(2)]
    for lane in LANES:
        with delegate_named(lane) as delegate:
            for mode in ("isolated", "cumulative"):
                report = verify(model, graph, delegate, samples, mode=mode, implementation="kernels")  # type: ignore[arg-type]
                assert report.verdict == "bit_exact", f"{title} {scheme} {report.table()}"


@pytest.mark.slow
@pytest.mark.parametrize("title", ["tomogan bilinear", "tomogan transposed", "fine-tune"])
def test_end_to_end_at_1024_on_xnnpack(title: str) -> None:
    graph = quantized(title, 1024)
    feeds = random_feeds(graph, 0)
    expected = compile_graph(graph, "litert-2.3-xnnpack").run(feeds).outputs
    with delegate_named("litert-xnnpack") as delegate:
        found = delegate.run(write_tflite(graph), feeds, tensors="outputs").outputs
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
