"""FULLY_CONNECTED layers of two taps, so that all accumulators within reach can be tried."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, LayerView, Quantization


def graph_of(view: LayerView) -> Graph:
    """The layer's tensors, in the order of their indices, as a graph."""
    tensors = {t.index: t for t in (*view.inputs, *view.outputs) if t is not None}
    fed = tuple(i for i, t in tensors.items() if not t.is_constant and t not in view.outputs)
    return Graph(tuple(tensors[i] for i in sorted(tensors)), (view.layer,), fed, view.layer.outputs)


def fully_connected(seed: int, dtype: str, filters: int = 5) -> LayerView:
    """Few taps, so that all accumulators within reach can be tried; scales of the usual size."""
    rng = np.random.default_rng(seed)
    per_channel = dtype == "int8" and seed % 2 == 0
    scales = rng.uniform(0.001, 0.01, filters if per_channel else 1).astype(np.float32)
    builder = GraphBuilder()
    zero = 0 if dtype == "int8" else 101
    data = builder.input("data", (1, 2), dtype, Quantization.per_tensor(0.05, 3))
    weights = rng.integers(-128, 128, (filters, 2)) + (0 if dtype == "int8" else 128)
    filter_ = builder.constant(
        "filter", weights.astype(dtype), Quantization(tuple(map(float, scales)), (zero,) * len(scales), 0)
    )
    bias = builder.constant("bias", rng.integers(-9000, 9000, filters).astype(np.int32))
    output = builder.tensor("y", (1, filters), dtype, Quantization.per_tensor(0.02, 5))
    builder.layer("FULLY_CONNECTED", [data, filter_, bias], [output], fused_activation_function="NONE")
    return builder.build([output]).view(0)
