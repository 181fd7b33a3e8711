"""Files built after public reports on int8 ops give what was found to be right, on every lane of LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.export.tflite import read_tflite
from karat24.feeds import random_feeds
from karat24.golden.verify import verify
from karat24.refimpl.engine import compile_graph
from tests.shared_models import require_case
from tests.support.runtimes import Runtimes

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")

EXACT = (
    "edgetpu818_conv_gelu_int8",
    "fuzz_greater_int8_scale_above_1",
    "litert4079_reduce_sum_int8_1x128",
    "muriscvnn108_batch_matmul_int8_adjy0",
    "op_abs_int8",
    "op_exp_int8",
    "op_log_softmax_int8",
    "tflm515_layernorm_squared_difference_rsqrt_int8",
    "tflm960_fc_computed_filter",
    "tflm960_fc_filter_zero_point_minus1",
)


@pytest.mark.parametrize("lane", LANES)
def test_reported_models_are_exact(lane: str, runtimes: Runtimes) -> None:
    wrong = []
    for name in EXACT:
        path = require_case(f"tflite/{name}.tflite")
        graph = read_tflite(path)
        report = verify(path, graph, runtimes(lane), [random_feeds(graph, 7)])
        if report.verdict != "bit_exact":
            wrong.append(f"{name}: {report.summary()}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("profile", "total"),
    [("litert-2.3-ref", -1), ("litert-2.3-builtin", 127), ("litert-2.3-xnnpack", 127)],
)
def test_the_reference_kernel_sums_bytes(profile: str, total: int) -> None:
    """LiteRT#4079: the sum of 128 large values is -1 in the reference kernel, which stores uint8 255."""
    graph = read_tflite(require_case("tflite/litert4079_reduce_sum_int8_1x128.tflite"))
    feeds = [np.full(graph.tensors[index].shape, 127, np.int8) for index in graph.inputs]
    assert compile_graph(graph, profile).run(feeds).outputs[0].reshape(-1).tolist() == [total]
