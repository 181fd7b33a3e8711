"""The onnx package's own node tests of quantized ops, as models with one input."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

OPS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger",
)  # fmt: skip


def node_tests() -> dict[str, Any]:
    """The package's tests, by name, whose only node is one of :data:`OPS`. ImportError without onnx.

    Only these ops' modules are imported: ``collect_testcases`` would compute the expected values of all ops.
    """
    cases = "onnx.backend.test.case.node"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some tests overflow on purpose
        for op in OPS:
            importlib.import_module(f"{cases}.{op.lower()}")
    return {
        test.name: test
        for test in importlib.import_module(cases)._NodeTestCases
        if test.model is not None and [node.op_type in OPS for node in test.model.graph.node] == [True]
    }


def as_model(test: Any) -> tuple[bytes, list[Any], list[Any]]:
    """The test as a file that stores all inputs but the first, in a supported operator set.

    Returns the file, the value to feed and the values expected.
    """
    import onnx

    (inputs, outputs) = test.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    names = [value.name for value in model.graph.input]
    for name, value in zip(names[1:], inputs[1:], strict=True):
        if not isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(value)
        model.graph.initializer[-1].name = name
    del model.graph.input[1:]
    model.ir_version, model.opset_import[0].version = 10, 21
    return model.SerializeToString(), inputs[:1], outputs
