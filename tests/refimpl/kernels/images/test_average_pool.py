"""Kernels of the quantized average pools against their specs.

Every way windows are cut, counted, spread and shared out; sums that end in ties, or leave the range.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from karat24.export.onnx import read_onnx
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph
from karat24.refimpl.kernels import KERNELS
from tests.cases.onnx_models import node, onnx_model
from tests.cases.quantized import seeded, some_values

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")

WINDOWS: tuple[dict[str, Any], ...] = (
    {"kernel_shape": [1, 1]},
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "pads": [2, 1, 1, 0], "strides": [2, 1]},
    {"kernel_shape": [3, 3], "pads": [1, 2, 2, 1], "dilations": [2, 3]},
    {"kernel_shape": [2, 3], "dilations": [3, 1], "strides": [1, 3], "ceil_mode": 1},
    {"kernel_shape": [5, 4], "strides": [3, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [4, 5], "strides": [3, 3], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [7, 9], "strides": [2, 2], "auto_pad": "VALID"},
)

GLOBAL = ((1, 1, 1, 1), (2, 5, 1, 7), (1, 3, 9, 11), (2, 70, 16), (1, 2, 3, 4, 5), (1, 2, 400, 300))
"""The last one has sums that float32 does not hold exactly."""


def pool(dtype: str, scales: tuple[float, float], attributes: dict[str, Any]) -> tuple[Graph, Any]:
    low = int(np.iinfo(dtype).min)
    x = some_values(seeded(f"{dtype} {scales}"), dtype, (2, 3, 9, 11))
    constants = {
        "sx": np.float32(scales[0]), "zx": np.array(low + 101, dtype),
        "sy": np.float32(scales[1]), "zy": np.array(low + 57, dtype),
    }  # fmt: skip
    nodes = [node("com.microsoft:QLinearAveragePool", ["x", "sx", "zx", "sy", "zy"], **attributes)]
    constants = {name: np.asarray(value) for name, value in constants.items()}
    return read_onnx(onnx_model(nodes, {"x": x}, {"y": dtype}, constants)), x


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("attributes", WINDOWS, ids=str)
def test_kernel_equals_spec(dtype: str, attributes: dict[str, Any]) -> None:
    """Ties, both saturations; on one thread and shared out.

    ONNX Runtime refuses dilations: windows with them are computed under a profile that is silent on the op.
    """
    seen, profile = set[int](), "tensorrt" if "dilations" in attributes else "ort-1.31"
    for scales, padding in itertools.product(((0.037, 0.021), (0.5, 0.125), (0.1, 0.9)), (0, 1)):
        graph, x = pool(dtype, scales, {**attributes, "count_include_pad": padding})
        (expected,) = compile_graph(graph, profile, 1, "spec").run([x]).outputs
        for threads in (1, 2):
            (found,) = compile_graph(graph, profile, threads).run([x]).outputs
            np.testing.assert_array_equal(found, expected)
        seen |= {int(expected.min()), int(expected.max())}
    assert graph.layers[0].op in KERNELS
    if attributes == WINDOWS[0]:  # means of many values stay away from the ends
        assert {np.iinfo(dtype).min, np.iinfo(dtype).max} <= seen


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("shape", GLOBAL, ids=str)
def test_global_kernel_equals_spec(dtype: str, shape: tuple[int, ...]) -> None:
    """Ties, both saturations, images of one to three spatial axes; on one thread and shared out."""
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    x = some_values(seeded(f"{dtype} {shape}"), dtype, shape)
    planes = x.reshape(-1, int(np.prod(shape[2:])))
    planes[::3] = low
    planes[1::3] = high
    for scales in ((0.037, 0.021), (0.5, 0.125), (0.5, 1.0), (0.1, 0.9), (3.0, 1e-3)):
        constants = {
            "sx": np.float32(scales[0]), "zx": np.array(low + 101, dtype),
            "sy": np.float32(scales[1]), "zy": np.array(low + 57, dtype),
        }  # fmt: skip
        nodes = [node("com.microsoft:QLinearGlobalAveragePool", ["x", "sx", "zx", "sy", "zy"])]
        constants = {name: np.asarray(value) for name, value in constants.items()}
        graph = read_onnx(onnx_model(nodes, {"x": x}, {"y": dtype}, constants))
        assert graph.layers[0].op in KERNELS
        (expected,) = compile_graph(graph, "ort-1.31", 1, "spec").run([x]).outputs
        for threads in (1, 2):
            (found,) = compile_graph(graph, "ort-1.31", threads).run([x]).outputs
            np.testing.assert_array_equal(found, expected)
