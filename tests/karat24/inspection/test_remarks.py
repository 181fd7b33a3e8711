"""Remarks: what surprises people in a sound model, each on a model that has it and on one beside it."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.export.onnx import lower_qdq
from karat24.inspection import describe_graph
from karat24.inspection.remarks import overflowing_pairs, remarks
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization
from tests.support.qdq_convolution import qdq_convolution
from tests.support.small_network import small_graph


def kinds(graph: Graph) -> list[tuple[int, str]]:
    return [(remark.layer, remark.kind) for remark in remarks(graph)]


def text(graph: Graph, kind: str) -> str:
    (found,) = [remark.text for remark in remarks(graph) if remark.kind == kind]
    return found


def one_layer(
    op: str, given: Quantization, written: Quantization, dtype: str = "uint8", **attributes: object
) -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, 2), dtype, given)
    size = (1, 2, 2, 2) if "POOL" in op else (1, 4, 4, 2)
    y = builder.tensor("y", size, dtype, written)
    builder.layer(op, [x], [y], **attributes)
    return builder.build([y])


POOL = {
    "padding": "VALID", "stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2,
    "fused_activation_function": "NONE",
}  # fmt: skip


@pytest.mark.parametrize("op", ["MAX_POOL_2D", "AVERAGE_POOL_2D"])
def test_a_pool_that_ignores_scales(op: str) -> None:
    graph = one_layer(op, Quantization.per_tensor(0.5, 10), Quantization.per_tensor(0.75, 12), **POOL)
    assert "times 1.5, moved by -2 steps" in text(graph, "scales ignored")
    same = one_layer(op, Quantization.per_tensor(0.5, 10), Quantization.per_tensor(0.5, 10), **POOL)
    assert kinds(same) == []


@pytest.mark.parametrize(
    ("written", "said"),
    # 255 steps of 1/256 on steps of 1.13 are less than one; on steps of 1/32, 31.9; on steps of 1/33, 32.9.
    [(1.13, "falls on 1 of the 256 steps"), (1 / 32, "falls on 32 of"), (1 / 33, "")],
)
def test_a_requantization_that_leaves_few_steps(written: float, said: str) -> None:
    graph = one_layer("QUANTIZE", Quantization.per_tensor(1 / 256), Quantization.per_tensor(written))
    assert ((0, "range crushed") in kinds(graph)) == bool(said)
    if said:
        assert said in text(graph, "range crushed")


@pytest.mark.parametrize(
    ("scale", "zero_point", "clipped"),
    # The input holds 0 to 127.5: 4 % and 3 % of it are lost, and 6 % and 7 %.
    [(0.48, -128, False), (0.5, -120, False), (0.47, -128, True), (0.5, -110, True)],
)
def test_a_requantization_that_clips(scale: float, zero_point: int, clipped: bool) -> None:
    given, written = Quantization.per_tensor(0.5, -128), Quantization.per_tensor(scale, zero_point)
    graph = one_layer("QUANTIZE", given, written, "int8")
    assert ((0, "range clipped") in kinds(graph)) == clipped
    if clipped:
        assert "holds 0 to 127.5" in text(graph, "range clipped")


def convolution(bias_scale: float, bias_axis: int = 0) -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, 1), "int8", Quantization.per_tensor(0.5))
    w = builder.constant("w", np.ones((2, 1, 1, 1), np.int8), Quantization((0.5, 0.25), (0, 0), 0))
    scales = Quantization((0.25, bias_scale), (0, 0), bias_axis)
    b = builder.constant("b", np.array([4, -4], np.int32), scales)
    y = builder.tensor("y", (1, 4, 4, 2), "int8", Quantization.per_tensor(1.0))
    builder.layer(
        "CONV_2D", [x, w, b], [y], padding="VALID", stride_w=1, stride_h=1, dilation_w_factor=1,
        dilation_h_factor=1, fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([y])


def test_a_bias_of_another_scale() -> None:
    assert kinds(convolution(0.125)) == []
    # A float32 step beside the product is rounding, not another scale.
    assert kinds(convolution(float(np.nextafter(np.float32(0.125), np.float32(1))))) == []
    said = text(convolution(0.5), "bias scale")
    assert "scale 0.5 in channel 1, 4 times s_in * s_filter = 0.125" in said


def test_what_runtimes_refuse_is_said_with_their_profiles() -> None:
    said = text(convolution(0.125, bias_axis=3), "refused by runtimes")
    assert (
        "litert-2.3-ref, litert-2.3-builtin, litert-2.3-xnnpack, tflite-2.14-ref, tflite-2.14-builtin" in said
    )
    assert "tflm" not in said


def test_an_axis_left_to_the_default() -> None:
    assert kinds(qdq_convolution(axis=0)) == []
    said = text(qdq_convolution(axis=None), "axis left out")
    assert "belong to axis 1" in said
    assert "axis 0 would fit as well" in said


def test_a_bias_of_another_scale_in_a_qdq_model() -> None:
    assert "ONNX Runtime runs the layer in float" in text(qdq_convolution(bias_scale=0.5), "bias scale")


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_pairs_of_weights_that_saturate(activations: str) -> None:
    """255 · (64 + 64) = 32640 fits int16; 255 · (65 + 65) = 33150 does not."""
    assert kinds(qdq_convolution(64, activations=activations)) == []
    said = text(qdq_convolution(65, activations=activations), "saturating pairs")
    assert said.startswith("layer 4 (Conv, 'c'): 2 pairs of weights")
    assert ("turns int8 activations into uint8" in said) == (activations == "int8")


def test_depthwise_layers_add_no_pairs() -> None:
    assert (4, "saturating pairs") not in kinds(qdq_convolution(127, groups=2))


def test_the_integer_layer_a_runtime_makes_is_remarked_like_the_files() -> None:
    lowered = lower_qdq(qdq_convolution(65))
    assert [kind for _, kind in kinds(lowered)] == ["saturating pairs"]


@pytest.mark.parametrize(
    ("taps", "count"),
    [
        ([[64, 64, 64, 64]], 0),
        ([[64, 65]], 1),  # 255 * 129 = 32895
        ([[-64, -65], [-64, -64]], 1),  # -32895 and -32640
        ([[127, -127]], 0),  # of two signs: either alone is 32385 at most
        ([[127]], 0),  # the odd last tap has no neighbour
        ([[0, 127, 127, 0]], 0),  # neighbours, but of two pairs
        ([[127, 127, 127, 127]], 2),
    ],
)
def test_only_neighbours_of_one_pair_overflow(taps: list[list[int]], count: int) -> None:
    assert overflowing_pairs(np.array(taps, np.int8)) == count


def test_an_ordinary_network_has_no_remarks() -> None:
    graph = small_graph()
    assert remarks(graph) == ()
    assert describe_graph(graph)["remarks"] == []
