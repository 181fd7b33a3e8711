"""Shapes are those the layers compute, and values that follow from them are known before a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.delegates import delegate_named
from karat24.export.tflite import read_tflite, with_lowest_versions, write_tflite
from karat24.golden.verify import verify
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import FeedError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.settling import resized, settled
from tests.cases.quantized import parameters, seeded, some_values
from tests.shared_models import require_case

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")


def _upsampling() -> Graph:
    """The transposed convolution that Keras writes: its output shape is made of the input's by layers."""
    rng = seeded("upsampling")
    builder = GraphBuilder()
    image = builder.input("image", (1, 3, 4, 2), "int8", parameters(0.05, 3))

    def stored(name: str, values: object) -> int:
        return builder.constant(name, np.asarray(values, np.int32))

    sizes = builder.layer("SHAPE", (image,), (builder.tensor("sizes", (4,), "int32"),), out_type="int32")
    batch = builder.layer(
        "STRIDED_SLICE",
        (sizes, stored("begin", [0]), stored("end", [1]), stored("step", [1])),
        (builder.tensor("batch", (), "int32"),),
        shrink_axis_mask=1,
    )
    packed = (batch, stored("height", 6), stored("width", 8), stored("channels", 3))
    wanted = builder.layer("PACK", packed, (builder.tensor("wanted", (4,), "int32"),), values_count=4, axis=0)
    filters = builder.constant("filters", some_values(rng, "int8", (3, 3, 3, 2)), parameters(0.02))
    output = builder.layer(
        "TRANSPOSE_CONV",
        (wanted, filters, image),
        (builder.tensor("output", (1, 6, 8, 3), "int8", parameters(0.11, -5)),),
        stride_w=2,
        stride_h=2,
        padding="SAME",
    )
    graph = with_lowest_versions(builder.build((output,)))
    tensors = tuple(
        replace(tensor, shape_signature=(-1, *tensor.shape[1:])) if tensor.index == image else tensor
        for tensor in graph.tensors
    )
    return replace(graph, tensors=tensors)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_output_shape_of_layers_is_folded_and_judged(lane: str, batch: int) -> None:
    """SHAPE, STRIDED_SLICE and PACK give the shape; every tensor equals the runtime's, for any batch."""
    with pytest.raises(UnsupportedOp, match="computed by the graph"):
        compile_graph(_upsampling())
    graph = resized(read_tflite(write_tflite(_upsampling())), {0: (batch, 3, 4, 2)})
    assert graph.tensors[graph.outputs[0]].shape == (batch, 6, 8, 3)
    feeds = {0: some_values(seeded(lane), "int8", (batch, 3, 4, 2))}
    with delegate_named(lane) as delegate:
        report = verify(write_tflite(graph), graph, delegate, [feeds])
    assert report.exit_code() == 0
    assert len(report.layers) == 4


def test_a_stale_shape_is_corrected() -> None:
    """What lies behind a wrong declaration has the shape it is computed to, as runtimes allocate it."""
    graph = read_tflite(write_tflite(_upsampling()))
    stale = replace(
        graph,
        tensors=tuple(
            replace(t, shape=(1, 1, 1, 3)) if t.index in graph.outputs else t for t in graph.tensors
        ),
    )
    read = read_tflite(write_tflite(stale))
    assert read.tensors[read.outputs[0]].shape == (1, 6, 8, 3)
    values = some_values(seeded("stale"), "int8", (1, 3, 4, 2))
    with delegate_named("litert-ref") as delegate:
        (theirs,) = delegate.run(write_tflite(stale), [values]).outputs
    np.testing.assert_array_equal(compile_graph(read).run([values]).outputs[0], theirs)


def test_what_is_right_is_left_alone() -> None:
    graph = read_tflite(write_tflite(_upsampling()))
    assert settled(graph) is not graph  # folded values are made anew
    assert settled(graph) == graph
    assert graph.tensors[graph.layers[2].outputs[0]].folded is not None


def test_sizes_that_the_file_fixes_stay() -> None:
    graph = read_tflite(write_tflite(_upsampling()))
    with pytest.raises(UsageError, match=r"cannot have shape \(1, 4, 4, 2\).*\(-1, 3, 4, 2\)"):
        resized(graph, {0: (1, 4, 4, 2)})
    with pytest.raises(FeedError, match=r"karat24.resized .*\(-1, 3, 4, 2\)"):
        compile_graph(graph).run([np.zeros((2, 3, 4, 2), np.int8)])


@pytest.mark.parametrize("lane", LANES)
def test_a_reported_model_takes_any_batch(lane: str) -> None:
    """tensorflow#49183: RESHAPE to [-1, 128] behind an input whose batch the file leaves open."""
    graph = resized(
        read_tflite(require_case("tflite/tf49183_dynamic_batch_reshape_fc.tflite")), {0: (4, 4, 4, 8)}
    )
    feeds = {graph.inputs[0]: some_values(seeded("batch"), "int8", (4, 4, 4, 8))}
    with delegate_named(lane) as delegate:
        assert verify(write_tflite(graph), graph, delegate, [feeds]).exit_code() == 0
