"""A source whose numbers contradict each other: what no compiled file could show is found in itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.golden.edgetpu.consistency import contradictions
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization, Tensor


def conv(bias_scales: tuple[float, ...], bias_zero: int = 0, filter_zero: int = 0) -> Graph:
    """Two channels; input scale 0.5, filter scales 0.25 and 0.125."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 1, 1, 1), "int8", Quantization.per_tensor(0.5))
    filters = np.ones((2, 1, 1, 1), np.int8)
    w = builder.constant("w", filters, Quantization((0.25, 0.125), (0, filter_zero)))
    zeros = (0,) * (len(bias_scales) - 1) + (bias_zero,)
    b = builder.constant("b", np.ones(2, np.int32), Quantization(bias_scales, zeros))
    y = builder.tensor("y", (1, 1, 1, 2), "int8", Quantization.per_tensor(0.5))
    return builder.build((builder.layer("CONV_2D", (x, w, b), (y,)),))


def found(graph: Graph) -> list[tuple[str, object, object]]:
    return [(item.field, item.source, item.compiled) for item in contradictions(graph.view(0))]


def test_a_consistent_layer_has_no_contradiction() -> None:
    assert found(conv((0.125, 0.0625))) == []


def test_a_neighbouring_bias_scale_is_rounding_and_the_next_is_not() -> None:
    one = float(np.nextafter(np.float32(0.0625), np.float32(1)))
    two = float(np.nextafter(np.float32(one), np.float32(1)))
    assert found(conv((0.125, one))) == []
    assert found(conv((0.125, two))) == [("bias scale", two, 0.0625)]


def test_other_numbers_of_a_bias_and_filter_are_named() -> None:
    assert found(conv((0.125, 0.0625), bias_zero=3)) == [("bias zero point", 3, 0)]
    assert found(conv((0.125, 0.0625), filter_zero=-7)) == [("filter zero point", -7, 0)]


def ends(op: str, given: Quantization, made: Quantization, dtype: str = "uint8") -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", (1, 2, 2, 1), dtype, given)
    y = builder.tensor("y", (1, 2, 2, 1), dtype, made)
    return builder.build((builder.layer(op, (x,), (y,)),))


@pytest.mark.parametrize("op", ["PAD", "RESHAPE", "MAX_POOL_2D", "RESIZE_BILINEAR"])
def test_ops_that_change_no_number_have_equal_ends(op: str) -> None:
    half = Quantization.per_tensor(0.5, 3)
    assert found(ends(op, half, half)) == []
    assert found(ends(op, half, Quantization.per_tensor(0.25, 4))) == [
        ("output scale", 0.25, 0.5),
        ("output zero point", 4, 3),
    ]


def test_softmax_has_the_scale_that_is_prescribed() -> None:
    given = Quantization.per_tensor(0.5, 3)
    assert found(ends("SOFTMAX", given, Quantization.per_tensor(1 / 256))) == []
    assert found(ends("SOFTMAX", given, Quantization.per_tensor(1 / 256, -128), "int8")) == []
    assert found(ends("SOFTMAX", given, Quantization.per_tensor(1 / 128))) == [
        ("output scale", 1 / 128, 1 / 256)
    ]


def test_a_tensor_without_numbers_contradicts_nothing() -> None:
    graph = ends("PAD", Quantization.per_tensor(0.5), Quantization.per_tensor(0.25))
    bare: tuple[Tensor, ...] = tuple(replace(t, quantization=None) for t in graph.tensors)
    assert found(replace(graph, tensors=bare)) == []
