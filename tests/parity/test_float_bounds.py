"""What real runtimes compute in float32 lies inside the bounds; one unit beyond them does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from karat24.refimpl.bounds import BOUNDS, Interval, bound_for
from karat24.refimpl.bounds.interval import Either
from karat24.refimpl.graph import Array
from tests.cases.float_layers import VALUES, FloatLayer, float_layers

SEEDS = ("one", "two", "three")
LAYERS = [layer for seed in SEEDS for layer in float_layers(seed)]


NOT_IN_REF = ("ELU",)
"""Ops without a reference kernel in LiteRT 2.3."""


def run_onnx(layer: FloatLayer) -> Iterator[Array]:
    """ONNX Runtime with and without its optimizer."""
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(layer.content, options, providers=["CPUExecutionProvider"])
        yield session.run(None, {"x": layer.feed})[0]


def run_tflite(layer: FloatLayer) -> Iterator[Array]:
    """LiteRT's reference and optimised kernels, and XNNPACK."""
    lanes = ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "AUTO", "BUILTIN_REF")
    for resolver in lanes[: 2 if layer.graph.layers[0].op in NOT_IN_REF else 3]:
        interpreter = Interpreter(
            model_content=layer.content,
            experimental_op_resolver_type=getattr(OpResolverType, resolver),
            num_threads=1,
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], layer.feed)
        interpreter.invoke()
        yield np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


RUNTIMES: dict[str, Callable[[FloatLayer], Iterator[Array]]] = {"onnx": run_onnx, "tflite": run_tflite}


def interval_for(layer: FloatLayer) -> Interval:
    (view,) = layer.graph.views()
    values = [layer.feed if t is not None and t.data is None else t and t.data for t in view.inputs]
    return bound_for(view)(values)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_runtimes_lie_inside_and_one_unit_beyond_does_not(layer: FloatLayer) -> None:
    interval = interval_for(layer)
    for found in RUNTIMES[layer.graph.format](layer):
        use = interval.use(found)
        assert use.outside == 0, use
        assert use.largest <= 1
    for form in interval.forms if isinstance(interval, Either) else [interval]:
        for end, way in ((form.low, -np.inf), (form.high, np.inf)):
            moved = end.copy()
            assert interval.use(moved).outside == 0
            last = np.unravel_index(moved.size - 1, moved.shape)
            moved[last] = np.nextafter(moved[last], np.float32(way))
            use = form.use(moved)
            assert use.outside == 1
            assert use.largest > 1 - 1e-6


def test_every_bound_is_tried_with_every_kind_of_values() -> None:
    tried = {(layer.graph.layers[0].op, layer.name.rpartition("-")[2]) for layer in LAYERS}
    assert tried == {(op, kind) for op in BOUNDS for kind in VALUES}
