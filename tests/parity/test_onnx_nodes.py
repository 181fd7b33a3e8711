"""The onnx package's own node tests for quantized ops, bit for bit under ``onnx-spec``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.onnx_node_tests import OPS, as_model, node_tests
from karat24.export.onnx import read_onnx
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UnsupportedOp

onnx = pytest.importorskip("onnx")

OUT_OF_SCOPE = {
    **dict.fromkeys(("uint2", "int2"), r"is of element type u?int2, which"),
    **dict.fromkeys(("_quantizelinear_uint4", "_quantizelinear_int4"), r"is of element type u?int4, which"),
    **dict.fromkeys(("dequantizelinear_uint4", "dequantizelinear_int4"), r"of u?int4 must be a constant"),
    **dict.fromkeys(("e4m3fn", "e5m2", "float4e2m1"), r"is of element type float[48]_e\dm\d(fn)?, which"),
}
"""2-bit integers, 4-bit ones that are computed, 8- and 4-bit floats: each refused with its reason."""


TESTS = node_tests()


def out_of_scope(name: str) -> str | None:
    """The reason a test is left out for, as a pattern."""
    return next((reason for word, reason in OUT_OF_SCOPE.items() if word in name), None)


@pytest.mark.parametrize("implementation", ["spec", "kernels"])
@pytest.mark.parametrize("name", [name for name in TESTS if not out_of_scope(name)])
def test_node(name: str, implementation: Any) -> None:
    content, inputs, outputs = as_model(TESTS[name])
    found = compile_graph(read_onnx(content), "onnx-spec", 1, implementation).run(inputs).outputs
    for left, right in zip(found, outputs, strict=True):
        if isinstance(right, onnx.TensorProto):
            right = onnx.numpy_helper.to_array(right)
        assert left.dtype == right.dtype
        assert left.tobytes() == np.asarray(right).tobytes()


@pytest.mark.parametrize("name", [name for name in TESTS if out_of_scope(name)])
def test_what_is_out_of_scope_is_refused(name: str) -> None:
    content, _, _ = as_model(TESTS[name])
    with pytest.raises(UnsupportedOp, match=out_of_scope(name)):
        compile_graph(read_onnx(content), "onnx-spec", 1)


def test_every_op_has_tests_that_run() -> None:
    """What runs is not the small rest: of QLinearConv, QLinearMatMul and the integer ops it is all."""
    left_out = {name for name in TESTS if out_of_scope(name)}
    assert {TESTS[name].model.graph.node[0].op_type for name in left_out} == set(OPS[:2])
    assert len(TESTS) - len(left_out) >= 20
