"""Ranges that are not calibrated: learnt in training, or those of the network before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.export.quantize import (
    PRESETS,
    Range,
    output_range,
    quantize_graph,
    quantize_learnt,
    quantize_model,
)
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Graph, Tensor
from karat24.refimpl.networks import chain, fine_tune, tomogan
from tests.support.smooth_samples import smooth_samples

LEARNT = {"input": (-0.25, 1.5), "repair": (0.0, 2.0), "output": (-0.1, 1.2)}


def by_name(graph: Graph) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in graph.tensors}


@pytest.mark.parametrize("scheme", ["int8", "uint8-2019"])
def test_learnt_ranges_are_the_tensors(scheme: str) -> None:
    """Nothing is calibrated or corrected: what the preset would do to filters and biases is left out."""
    graph = fine_tune(16, 16)
    quantized = quantize_learnt(graph, LEARNT, PRESETS[scheme])
    tensors = by_name(quantized)
    for name, (low, high) in LEARNT.items():
        (scale,) = tensors[name].quantization.scale
        assert scale == np.float32((high - low) / 255)
    plain = {t.index: Range(*LEARNT[t.name]) for t in graph.tensors if t.name in LEARNT}
    bare = replace(PRESETS[scheme], filter_ranges="minmax", equalize=False, correct_bias=False)
    assert quantize_graph(graph, plain, bare) == quantized


def test_one_named_tensor_speaks_for_its_group() -> None:
    """A concatenation, both its inputs, and what a resize before it reads: one is named, all have it."""
    graph = tomogan(16, 16)
    named = ["input", "mix", "box1/conv1", "box2/conv1", "box3/conv1", "up3/conv1", "up2/conv1", "up1/conv1"]
    named += ["up1/conv2", "head", "output", "up1/concat", "up2/concat", "up3/concat"]
    ranges = {name: (-1.0, 2.0 + number) for number, name in enumerate(named)}
    tensors = by_name(quantize_learnt(graph, ranges))
    for group in (("box1/conv2", "up2/conv2", "up1/upsample", "box1/pool"), ("bottom/conv", "box3/conv2")):
        lead = "up1/concat" if "box1/pool" in group else "up3/concat"
        assert {tensors[name].quantization for name in group} == {tensors[lead].quantization}
        assert tensors[lead].quantization.scale == (np.float32((ranges[lead][1] + 1.0) / 255),)


def test_two_named_tensors_of_a_group_give_their_hull() -> None:
    graph = tomogan(16, 16)
    ranges = {t.name: (0.0, 1.0) for t in graph.tensors if not t.is_constant}
    ranges |= {"box1/conv2": (-3.0, 1.0), "up1/upsample": (0.0, 4.0)}
    tensors = by_name(quantize_learnt(graph, ranges))
    assert tensors["up1/concat"].quantization.scale == (np.float32(7 / 255),)


def test_what_cannot_be_meant_is_refused() -> None:
    graph = fine_tune(16, 16)
    with pytest.raises(ModelError, match="no activation 'reapir'"):
        quantize_learnt(graph, LEARNT | {"reapir": (0.0, 1.0)})
    with pytest.raises(ModelError, match=r"no range for .*'repair'"):
        quantize_learnt(graph, {name: LEARNT[name] for name in ("input", "output")})
    with pytest.raises(ModelError, match="must be finite in float32"):
        quantize_learnt(graph, LEARNT | {"repair": (0.0, float("inf"))})
    with pytest.raises(ModelError, match="no activation 'x'"):
        quantize_model(graph, smooth_samples(graph, 1), given={"x": Range(0, 1)})
    with pytest.raises(ModelError, match="is not quantized"):
        output_range(graph)


@pytest.mark.parametrize("scheme", ["int8", "uint8-2019"])
def test_a_following_network_takes_the_output_parameters(scheme: str) -> None:
    """The same parameters on both sides: a chained graph needs no QUANTIZE between them."""
    first, second = tomogan(16, 16, seed=1), fine_tune(16, 16, seed=2)
    one = quantize_model(first, smooth_samples(first, 2), PRESETS[scheme])
    given = {"input": output_range(one)}
    two = quantize_model(second, smooth_samples(second, 2), PRESETS[scheme], given)
    apart = quantize_model(second, smooth_samples(second, 2), PRESETS[scheme])
    inner = [layer.op for layer in chain(one, two).layers][1:-1]
    assert "QUANTIZE" not in inner
    assert [layer.op for layer in chain(one, apart).layers][1:-1].count("QUANTIZE") == 1
