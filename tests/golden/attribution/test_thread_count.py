"""An optimised MEAN that several threads computed: the number is named, as LiteRT itself shows it."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.export.tflite import write_tflite
from karat24.golden.attribution.threads import whole_blocks
from karat24.golden.recordings.judge import verify_recorded
from karat24.golden.report import Report
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, Quantization
from tests.support.mistakes import causes

CHANNELS = 200
PROFILE = "litert-2.3-builtin"


def mean_graph() -> Graph:
    """The mean of four pixels: ties below zero, which blocks and what lies behind them round differently."""
    builder = GraphBuilder("mean")
    image = builder.input("image", (1, 2, 2, CHANNELS), "int8", Quantization.per_tensor(1.0, 0))
    axes = builder.constant("axes", np.array([1, 2], np.int32))
    output = builder.tensor("mean", (1, 1, 1, CHANNELS), "int8", Quantization.per_tensor(1.0, 0))
    return builder.build([builder.layer("MEAN", [image, axes], [output], keep_dims=True)])


def image() -> Array:
    """Every sum is twice an odd number, and negative: half of two."""
    values = np.random.default_rng(3).integers(-100, -2, CHANNELS, np.int8)
    return np.stack([values, values, values, values + np.int8(2)]).reshape(1, 2, 2, CHANNELS)


def run(threads: int) -> Array:
    """What LiteRT's builtin kernels give on so many threads."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    resolver = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    model = interpreter.Interpreter(
        model_content=write_tflite(mean_graph()), num_threads=threads, experimental_op_resolver_type=resolver
    )
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], image())
    model.invoke()
    return np.array(model.get_tensor(model.get_output_details()[0]["index"]))


def judged(found: Array) -> Report:
    graph = mean_graph()
    dump = {graph.outputs[0]: found}
    return verify_recorded(
        write_tflite(graph), graph, dump, {graph.inputs[0]: image()}, profile=PROFILE, threads=1
    )


def test_one_thread_is_the_profile() -> None:
    assert judged(run(1)).exit_code() == 0


@pytest.mark.parametrize("threads", [2, 3, 5, 7])
def test_the_number_of_threads_is_named(threads: int) -> None:
    (verdict,) = judged(run(threads)).layers
    found = causes(verdict)
    assert list(found) == ["other thread count"], verdict.reason
    assert f"{threads} threads in place of one" in found["other thread count"]


def test_another_difference_is_no_thread_count() -> None:
    found = run(3)
    found[0, 0, 0, 5] += 1
    (verdict,) = judged(found).layers
    assert not causes(verdict)
    assert "other thread count" in verdict.reason, "it was tried"


def test_slices_are_as_even_as_can_be() -> None:
    """40 channels: slices of 13, 13 and 14 hold no whole block of 16; two of 20 hold one each."""
    assert not whole_blocks(40, 3, 16).any()
    assert np.flatnonzero(whole_blocks(40, 2, 16)).tolist() == [*range(16), *range(20, 36)]
    assert whole_blocks(40, 1, 16).sum() == 32
