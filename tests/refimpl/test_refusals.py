"""A layer the runtime refuses and one that karat24 lacks are told apart; both say which profiles run it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import RefusedByRuntime, UnsupportedOp
from karat24.refimpl.graph import Graph, LayerView, Quantization
from karat24.refimpl.profiles import PROFILES
from tests.support.small_network import small_graph

LITERT = [
    "litert-2.3-ref",
    "litert-2.3-builtin",
    "litert-2.3-xnnpack",
    "tflite-2.14-ref",
    "tflite-2.14-builtin",
]


def logistic(scale: float, zero_point: int = -128) -> Graph:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4), "int8", Quantization.per_tensor(0.05, 3))
    output = builder.tensor("y", (1, 4), "int8", Quantization.per_tensor(scale, zero_point))
    builder.layer("LOGISTIC", [given], [output])
    return builder.build([output])


def greater(scale: float) -> Graph:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4), "int8", Quantization.per_tensor(scale))
    other = builder.input("y", (1, 4), "int8", Quantization.per_tensor(0.5))
    output = builder.tensor("z", (1, 4), "bool")
    builder.layer("GREATER", [given, other], [output])
    return builder.build([output])


def max_pool(scale: float) -> Graph:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4, 4, 1), "uint8", Quantization.per_tensor(0.5, 10))
    output = builder.tensor("y", (1, 2, 2, 1), "uint8", Quantization.per_tensor(scale, 10))
    builder.layer(
        "MAX_POOL_2D", [given], [output], padding="VALID", stride_w=2, stride_h=2, filter_width=2,
        filter_height=2, fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([output])


def convolution(output_scale: float = 0.25, bias_axis: int = 0) -> Graph:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4, 4, 1), "int8", Quantization.per_tensor(1.0))
    filter_ = builder.constant(
        "w", np.ones((2, 1, 1, 1), np.int8), Quantization((0.5, 0.25), (0, 0), 0)
    )  # fmt: skip
    bias = builder.constant("b", np.array([3, -3], np.int32), Quantization((0.5, 0.25), (0, 0), bias_axis))
    output = builder.tensor("y", (1, 4, 4, 2), "int8", Quantization.per_tensor(output_scale))
    builder.layer(
        "CONV_2D", [given, filter_, bias], [output], padding="VALID", stride_w=1, stride_h=1,
        dilation_w_factor=1, dilation_h_factor=1, fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([output])


def only_layer(graph: Graph) -> LayerView:
    (view,) = graph.views()
    return view


@pytest.mark.parametrize(
    ("build", "refusing", "said"),
    [
        # XNNPACK takes it and rescales; the kernels of LiteRT and tflite-runtime insist on 1/256.
        (lambda: logistic(0.00382813), ["litert-2.3-ref", "litert-2.3-builtin", "tflite-2.14-ref"], "1/256"),
        (lambda: logistic(1 / 256, -127), ["litert-2.3-ref", "tflite-2.14-builtin"], "1/256"),
        (lambda: logistic(1 / 256), [], ""),
        (lambda: greater(1.0), LITERT, "exactly 1"),
        (lambda: greater(1.0), ["tflm"], "1 or more"),
        (lambda: greater(1.5), ["tflm"], "1 or more"),
        (lambda: greater(0.75), [], ""),
        (lambda: max_pool(0.25), ["litert-2.3-xnnpack"], "without XNNPACK"),
        (lambda: max_pool(0.5), [], ""),
        # s_in * s_filter / s_out of channel 0 is 256, and half of one step less.
        (lambda: convolution(2.0**-9), ["litert-2.3-xnnpack"], "256 or more"),
        (lambda: convolution(0.00196), [], ""),
        (lambda: convolution(bias_axis=3), LITERT, "quantized_dimension to 0"),
    ],
)
def test_exactly_the_runtimes_that_refuse_a_layer_are_said_to(
    build: Callable[[], Graph], refusing: list[str], said: str
) -> None:
    view = only_layer(build())
    for name in refusing:
        with pytest.raises(RefusedByRuntime, match=said) as refused:
            PROFILES[name].rule(view)
        assert PROFILES[name].runtime in str(refused.value)
        assert "refimpl" not in str(refused.value)
    if not refusing:
        assert all(not profile.refusal(view) for profile in PROFILES.values() if profile.format == "tflite")


def test_a_refusal_names_the_profiles_that_run_the_layer() -> None:
    with pytest.raises(RefusedByRuntime) as refused:
        compile_graph(logistic(0.00382813), "litert-2.3-ref")
    assert str(refused.value).endswith("profiles that run it: litert-2.3-xnnpack")


def test_what_karat_lacks_is_not_called_a_refusal() -> None:
    with pytest.raises(UnsupportedOp, match="karat24 lacks it") as lacking:
        PROFILES["tflm"].rule(only_layer(logistic(0.00382813)))
    assert not isinstance(lacking.value, RefusedByRuntime)
    assert str(lacking.value).endswith("profiles that run it: litert-2.3-xnnpack")


def test_tflm_runs_a_bias_whose_axis_does_not_exist_as_one_with_axis_0() -> None:
    feed = np.arange(-8, 8, dtype=np.int8).reshape(1, 4, 4, 1)
    odd, sound = (
        compile_graph(convolution(bias_axis=axis), "tflm").run([feed]).outputs[0] for axis in (3, 0)
    )
    np.testing.assert_array_equal(odd, sound)
    # (x + 3) * 0.5 / 0.25 and (x - 3) * 0.25 / 0.25, by hand.
    np.testing.assert_array_equal(odd[0, 0, 0], [-10, -11])


def test_no_layer_of_an_ordinary_network_is_refused() -> None:
    for view in small_graph().views():
        assert not any(profile.refusal(view) for profile in PROFILES.values())
