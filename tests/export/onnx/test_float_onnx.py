"""Float graphs as ONNX: structure, and the same values as LiteRT computes for the .tflite of the graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from karat24.export.onnx.layout import from_onnx_layout, onnx_names, to_onnx_layout
from karat24.export.onnx.writing.float_graph import write_float_onnx
from karat24.export.tflite import with_lowest_versions, write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph, Quantization
from karat24.refimpl.networks import chain, fine_tune, tomogan
from tests.support.litert import run_reference
from tests.support.smooth_samples import smooth_samples


def run_onnx(graph: Graph, feed: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(write_float_onnx(graph), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {onnx_names(graph)[graph.inputs[0]]: to_onnx_layout(feed)})
    return [from_onnx_layout(values) for values in outputs]


def assert_same_values(graph: Graph, feed: Array) -> None:
    """Equal to LiteRT up to the order of float sums: 1e-5 of the greatest value."""
    (expected,) = run_reference(write_tflite(with_lowest_versions(graph)), feed)
    (found,) = run_onnx(graph, feed)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_the_networks_compute_what_litert_computes(upsampling: str) -> None:
    """Height and width differ, so that a swap of the two is seen."""
    graph = chain(tomogan(32, 48, upsampling), fine_tune(32, 48))
    assert_same_values(graph, smooth_samples(graph, 1)[0])


def one_layer(
    op: str, image: tuple[int, ...], output: tuple[int, ...], constants=(), at=0, **attributes
) -> Graph:
    """A graph of one layer x → y whose ``constants`` surround the activation, itself input ``at``."""
    builder = GraphBuilder("one")
    x = builder.input("x", image, "float32")
    inputs = [builder.constant(f"c{number}", values) for number, values in enumerate(constants)]
    inputs.insert(at, x)
    return builder.build(
        (builder.layer(op, inputs, (builder.tensor("y", output, "float32"),), **attributes),)
    )


def noise(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
def test_fused_activations(activation: str) -> None:
    graph = one_layer(
        "CONV_2D", (1, 5, 6, 3), (1, 5, 6, 4), (4 * noise(4, 1, 1, 3), noise(4)),
        padding="SAME", stride_w=1, stride_h=1, fused_activation_function=activation,
    )  # fmt: skip
    assert_same_values(graph, noise(1, 5, 6, 3))


@pytest.mark.parametrize(
    ("padding", "strides", "dilations", "groups", "output"),
    [
        ("SAME", (1, 1), (1, 1), 1, (9, 12)),
        # An odd total of padding puts the extra row behind in y but splits evenly in x.
        ("SAME", (2, 3), (1, 1), 1, (5, 4)),
        ("VALID", (2, 3), (1, 1), 1, (4, 4)),
        ("SAME", (1, 1), (2, 3), 1, (9, 12)),
        ("VALID", (1, 1), (2, 3), 1, (5, 9)),
        ("SAME", (1, 1), (1, 1), 2, (9, 12)),
    ],
)
def test_convolutions(padding, strides, dilations, groups, output) -> None:
    filter_ = noise(6, 3, 2, 4 // groups)
    graph = one_layer(
        "CONV_2D", (1, 9, 12, 4), (1, *output, 6), (filter_, noise(6)),
        padding=padding, stride_h=strides[0], stride_w=strides[1], fused_activation_function="NONE",
        dilation_h_factor=dilations[0], dilation_w_factor=dilations[1],
    )  # fmt: skip
    assert_same_values(graph, noise(1, 9, 12, 4))


@pytest.mark.parametrize(
    ("padding", "strides", "window", "output"),
    [
        ("SAME", (2, 2), (4, 4), (10, 14)),
        ("SAME", (2, 2), (3, 3), (10, 14)),
        # The same input under SAME can also mean one row and column less.
        ("SAME", (2, 2), (3, 3), (9, 13)),
        ("SAME", (1, 1), (3, 2), (5, 7)),
        ("SAME", (3, 2), (3, 5), (15, 13)),
        ("VALID", (2, 2), (3, 4), (11, 16)),
        ("VALID", (2, 3), (2, 2), (10, 20)),
    ],
)
def test_transposed_convolutions(padding, strides, window, output) -> None:
    graph = one_layer(
        "TRANSPOSE_CONV", (1, 5, 7, 3), (1, *output, 2),
        (np.array([1, *output, 2], np.int32), noise(2, *window, 3)), at=2,
        padding=padding, stride_h=strides[0], stride_w=strides[1], fused_activation_function="NONE",
    )  # fmt: skip
    assert_same_values(graph, noise(1, 5, 7, 3))


@pytest.mark.parametrize(
    ("padding", "strides", "output"),
    [("VALID", (2, 2), (2, 4)), ("SAME", (2, 2), (3, 4)), ("SAME", (1, 3), (5, 3))],
)
def test_max_pools(padding, strides, output) -> None:
    height = 3 if padding == "SAME" else 2
    graph = one_layer(
        "MAX_POOL_2D", (1, 5, 8, 3), (1, *output, 3),
        padding=padding, stride_h=strides[0], stride_w=strides[1], filter_height=height,
        filter_width=2, fused_activation_function="NONE",
    )  # fmt: skip
    # All negative: padding must count as minus infinity, not as zero.
    assert_same_values(graph, -1 - np.abs(noise(1, 5, 8, 3)))


@pytest.mark.parametrize("output", [(10, 14), (3, 4), (15, 2)])
@pytest.mark.parametrize("mode", ["half_pixel_centers", "align_corners", "neither"])
def test_bilinear_resizes(mode: str, output: tuple[int, int]) -> None:
    graph = one_layer(
        "RESIZE_BILINEAR", (1, 5, 7, 2), (1, *output, 2), (np.array(output, np.int32),),
        align_corners=mode == "align_corners", half_pixel_centers=mode == "half_pixel_centers",
    )  # fmt: skip
    assert_same_values(graph, noise(1, 5, 7, 2))


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concatenation_axes_follow_the_layout(axis: int) -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 2, 3, 4), "float32")
    relu = builder.layer("RELU", (x,), (builder.tensor("r", (1, 2, 3, 4), "float32"),))
    shape = [1, 2, 3, 4]
    shape[axis] *= 2
    y = builder.tensor("y", shape, "float32")
    builder.layer("CONCATENATION", (x, relu), (y,), axis=axis, fused_activation_function="NONE")
    assert_same_values(builder.build((y,)), noise(1, 2, 3, 4))


def test_names_layout_and_exposed_tensors_are_kept() -> None:
    graph = tomogan(16, 24)
    indices = [tensor.index for tensor in graph.tensors if tensor.name in ("box2/conv1", "up1/concat")]
    model = onnx.load_model_from_string(write_float_onnx(graph, expose=indices))
    outputs = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }
    assert outputs == {"output": [1, 1, 16, 24], "box2/conv1": [1, 64, 8, 12], "up1/concat": [1, 64, 16, 24]}
    assert [value.name for value in model.graph.input] == ["input"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"layout": "NCHW"}
    produced = {name for node in model.graph.node for name in node.output}
    for layer in graph.layers:
        assert graph.tensors[layer.outputs[0]].name in produced
    assert model.opset_import[0].version == 17


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert write_float_onnx(tomogan(16, 16, seed=2)) == write_float_onnx(tomogan(16, 16, seed=2))


def test_names_taken_twice_or_missing_are_made_unique() -> None:
    """A .tflite file may do both; ONNX may do neither."""
    builder = GraphBuilder()
    x = builder.input("same", (1, 4), "float32")
    for name in ("same", "", ""):
        x = builder.layer("RELU", (x,), (builder.tensor(name, (1, 4), "float32"),))
    graph = builder.build((x,), signature=None)
    assert onnx_names(graph) == ("same", "same#1", "tensor#2", "tensor#3")
    (values,) = run_onnx(graph, noise(1, 4))
    assert np.array_equal(values, np.maximum(noise(1, 4), 0))


def test_graphs_that_are_not_float_are_refused() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4), "int8", Quantization.per_tensor(1.0))
    quantized = builder.build((x,))
    with pytest.raises(ModelError, match="is int8, not float32"):
        write_float_onnx(quantized)
    with pytest.raises(UnsupportedOp, match=r"layer 0 \(TANH, 'y'\): no float ONNX for TANH"):
        write_float_onnx(one_layer("TANH", (1, 4), (1, 4)))
    for index in (-1, 99, 1):
        with pytest.raises(UsageError, match="cannot be exposed"):
            write_float_onnx(fine_tune(8, 8), expose=[index])
