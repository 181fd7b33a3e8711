"""A float32 ONNX model in half precision, for runtimes that compute in the data types a file names."""

from __future__ import annotations

from typing import Any

import numpy as np

from karat24.export.onnx.package import import_onnx
from karat24.refimpl.errors import ModelError

STAYS_FLOAT = {"Resize": (1, 2)}
"""Op type to the inputs that are float32 in the ONNX specification: regions and scales."""

LARGEST = float(np.finfo(np.float16).max)


def half_precision(content: bytes) -> bytes:
    """The float32 model with float16 weights and activations; its inputs and outputs stay float32.

    A Cast stands at each float input and output. Weights are rounded to the nearest float16. Raises
    ModelError for a model that is quantized, holds graphs or functions, or has a weight beyond the range of
    float16; UsageError when the onnx package is missing.
    """
    onnx = import_onnx()
    model = onnx.load_from_string(content)
    graph = model.graph
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) holds a graph, which half precision does not support"
            )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant", "Cast"):
            raise ModelError(
                f"node {node.name!r} is a {node.op_type}: half precision is for float networks as they are "
                "exported here"
            )
    if model.functions:
        raise ModelError("the model has functions of its own, which half precision does not support")
    kept = {
        node.input[i] for node in graph.node for i in STAYS_FLOAT.get(node.op_type, ()) if i < len(node.input)
    }
    for weight in graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and weight.name not in kept:
            weight.CopyFrom(_halved(onnx, weight))
    inputs = {value.name for value in graph.input if _is_float(onnx, value)}
    outputs = {value.name for value in graph.output if _is_float(onnx, value)}
    del graph.value_info[:]  # they say float32
    halves = {name: f"{name}/half" for name in inputs | outputs}
    for node in graph.node:
        node.input[:] = [halves.get(name, name) for name in node.input]
        node.output[:] = [halves.get(name, name) for name in node.output]
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    make = onnx.helper.make_node
    first = [make("Cast", [name], [halves[name]], halves[name], to=half) for name in sorted(inputs)]
    last = [make("Cast", [halves[name]], [name], f"{name}/single", to=single) for name in sorted(outputs)]
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _is_float(onnx: Any, value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _halved(onnx: Any, weight: Any) -> Any:
    values = onnx.numpy_helper.to_array(weight)
    if values.size and float(np.abs(values).max()) > LARGEST:
        raise ModelError(
            f"weight {weight.name!r} reaches {np.abs(values).max():g}; float16 ends at {LARGEST:g}"
        )
    return onnx.numpy_helper.from_array(values.astype(np.float16), weight.name)
