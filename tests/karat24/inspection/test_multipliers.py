"""Multipliers and shifts as ``inspect --layer`` shows them: by hand, and by recomputing what layers give."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from karat24.inspection import describe_layer
from karat24.inspection.multipliers import Product, pair_forms
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.spec.shared.primitives import multiply_gemmlowp

SCALES = tuple(float(np.float32(scale)) for scale in (0.0137, 0.5, 0.0000021, 1.75, 0.003))


def convolution(dtype: str = "int8", scales: tuple[float, ...] = SCALES) -> Graph:
    """1×1 convolution of 2 to 5 channels with bias, input scale 0.1, output scale 0.3."""
    generator = np.random.default_rng(3)
    builder = GraphBuilder()
    given = builder.input("x", (1, 6, 7, 2), dtype, Quantization.per_tensor(0.1, 3))
    low, high = (-127, 128) if dtype == "int8" else (0, 256)
    filter_ = builder.constant(
        "w",
        generator.integers(low, high, (5, 1, 1, 2)).astype(dtype),
        Quantization(scales, (0,) * len(scales), 0),
    )
    products = tuple(float(np.float32(0.1) * np.float32(scale)) for scale in scales)
    bias = builder.constant(
        "b", generator.integers(-90, 90, 5).astype(np.int32), Quantization(products, (0,) * len(scales))
    )
    output = builder.tensor("y", (1, 6, 7, 5), dtype, Quantization.per_tensor(0.3, 7))
    builder.layer(
        "CONV_2D", [given, filter_, bias], [output], padding="VALID", stride_w=1, stride_h=1,
        dilation_w_factor=1, dilation_h_factor=1, fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([output])


def fed(graph: Graph) -> np.ndarray:
    tensor = graph.tensors[0]
    return np.random.default_rng(5).integers(0, 127, tensor.shape).astype(tensor.dtype)


@pytest.mark.parametrize(
    ("scales", "multiplier", "shift"),
    [
        ((0.5, 0.25, 0.25), 2**30, 0),  # 1/2 = 2^30 / 2^31
        ((1.5, 1.0, 1.0), 3 * 2**29, 1),  # 3/2 = 0.75 · 2
        ((1.0, 1.0, 1024.0), 2**30, -9),  # 2^-10 = 1/2 · 2^-9
        ((3.0, 4.0, 1.0), 3 * 2**29, 4),  # 12 = 0.75 · 2^4
    ],
)
def test_multiplier_and_shift_by_hand(
    scales: tuple[float, float, float], multiplier: int, shift: int
) -> None:
    forms = Product(*scales).forms()
    assert forms["real"] == scales[0] * scales[1] / scales[2]
    assert forms["q31"] == {"multiplier": multiplier, "shift": shift}
    assert forms["ruy"] == {"multiplier_fixedpoint": multiplier, "multiplier_exponent": shift}
    assert forms["gemmlowp"] == {"result_fixedpoint_multiplier": multiplier, "result_shift": -shift}
    assert forms["cmsis_nn"] == {
        "multiplier": multiplier,
        "shift": shift,
        "left_shift": max(shift, 0),
        "right_shift": max(-shift, 0),
    }
    assert "q31_of_float32" not in forms  # powers of two and 3 round alike in every evaluation


@pytest.mark.parametrize("channel", range(5))
def test_a_channels_forms_are_those_of_exact_fractions(channel: int) -> None:
    """Independently of the spec: the pair from exact fractions, the float32 from two roundings of them."""
    (entry,) = describe_layer(convolution(), 0, channel)["channels"]
    scale_in, scale_out = Fraction(float(np.float32(0.1))), Fraction(float(np.float32(0.3)))
    real = scale_in * Fraction(SCALES[channel]) / scale_out
    pair = entry["q31"]
    assert 2**30 <= pair["multiplier"] < 2**31
    assert abs(Fraction(pair["multiplier"]) * Fraction(2) ** (pair["shift"] - 31) / real - 1) <= Fraction(
        1, 2**31
    )
    product = struct.unpack("f", struct.pack("f", float(scale_in * Fraction(SCALES[channel]))))[0]
    quotient = struct.unpack("f", struct.pack("f", float(Fraction(product) / scale_out)))[0]
    assert entry["float32"] == quotient
    assert entry["float32_bits"] == f"0x{struct.unpack('I', struct.pack('f', quotient))[0]:08x}"
    assert entry["edgetpu_float32"] == struct.unpack("f", struct.pack("f", float(real)))[0]
    assert (entry["channel"], entry["filter_scale"]) == (channel, SCALES[channel])


def test_the_pair_gives_what_the_reference_kernels_give() -> None:
    graph = convolution()
    result = compile_graph(graph, "litert-2.3-ref").run([fed(graph)], accumulators=True)
    assert result.trace is not None
    accumulator = result.trace.accumulators[0].astype(np.int64)
    for entry in describe_layer(graph, 0)["channels"]:
        channel = entry["channel"]
        scaled = multiply_gemmlowp(
            accumulator[..., channel], entry["q31"]["multiplier"], entry["q31"]["shift"]
        )
        np.testing.assert_array_equal((scaled + 7).clip(-128, 127), result.outputs[0][..., channel])


def test_the_float32_gives_what_xnnpack_gives() -> None:
    graph = convolution()
    program = compile_graph(graph, "litert-2.3-xnnpack")
    assert "float32" in str(program.steps[0].rule)
    result = program.run([fed(graph)], accumulators=True)
    assert result.trace is not None
    accumulator = result.trace.accumulators[0]
    for entry in describe_layer(graph, 0)["channels"]:
        channel = entry["channel"]
        scaled = np.rint(accumulator[..., channel].astype(np.float32) * np.float32(entry["float32"]))
        np.testing.assert_array_equal((scaled + 7).clip(-128, 127), result.outputs[0][..., channel])


def test_uint8_layers_round_their_product_first_and_the_pair_of_that_is_shown_where_it_differs() -> None:
    seen = set()
    for scale in np.float32(0.01) + np.arange(40, dtype=np.float32) / 4096:
        graph = convolution("uint8", (float(scale),))
        (entry,) = describe_layer(graph, 0)["channels"]
        assert entry["channel"] is None
        pair = entry.get("q31_of_float32_product", entry["q31"])
        seen.add("q31_of_float32_product" in entry)
        result = compile_graph(graph, "litert-2.3-ref").run([fed(graph)], accumulators=True)
        assert result.trace is not None
        scaled = multiply_gemmlowp(
            result.trace.accumulators[0].astype(np.int64), pair["multiplier"], pair["shift"]
        )
        np.testing.assert_array_equal((scaled + 7).clip(0, 255), result.outputs[0])
    assert True in seen


def test_int16_activations_show_the_multiplier_cmsis_nn_shortens() -> None:
    """REDUCE_MULTIPLIER: (m + 2^15) >> 16, at most 0x7FFF."""
    assert pair_forms(2**30, 0, wide=True)["cmsis_nn"]["reduced_multiplier"] == 0x4000
    assert pair_forms(2**31 - 1, 0, wide=True)["cmsis_nn"]["reduced_multiplier"] == 0x7FFF
    assert pair_forms(1610645504, 0, wide=True)["cmsis_nn"]["reduced_multiplier"] == 24577
    assert "reduced_multiplier" not in pair_forms(2**30, 0)["cmsis_nn"]


def binary(op: str) -> Graph:
    builder = GraphBuilder()
    left = builder.input("a", (1, 64), "int8", Quantization.per_tensor(0.11, 4))
    right = builder.input("b", (1, 64), "int8", Quantization.per_tensor(0.07, -9))
    output = builder.tensor("c", (1, 64), "int8", Quantization.per_tensor(0.2, 1))
    builder.layer(op, [left, right], [output], fused_activation_function="NONE")
    return builder.build([output])


@pytest.mark.parametrize(("op", "sign"), [("ADD", 1), ("SUB", -1)])
def test_a_sums_three_pairs_give_what_the_reference_kernels_give(op: str, sign: int) -> None:
    graph = binary(op)
    generator = np.random.default_rng(1)
    left, right = (generator.integers(-128, 128, (1, 64)).astype(np.int8) for _ in range(2))
    pairs = [
        (entry["q31"]["multiplier"], entry["q31"]["shift"])
        for entry in describe_layer(graph, 0)["operands"][:3]
    ]
    first = multiply_gemmlowp((left.astype(np.int64) - 4) << 20, *pairs[0])
    second = multiply_gemmlowp((right.astype(np.int64) + 9) << 20, *pairs[1])
    expected = (multiply_gemmlowp(first + sign * second, *pairs[2]) + 1).clip(-128, 127)
    np.testing.assert_array_equal(compile_graph(graph).run([left, right]).outputs[0], expected)


def test_a_products_pair_is_that_of_the_float32_quotient() -> None:
    graph = binary("MUL")
    generator = np.random.default_rng(2)
    left, right = (generator.integers(-128, 128, (1, 64)).astype(np.int8) for _ in range(2))
    (entry,) = describe_layer(graph, 0)["operands"]
    pair = entry.get("q31_of_float32", entry["q31"])
    product = (left.astype(np.int64) - 4) * (right.astype(np.int64) + 9)
    expected = (multiply_gemmlowp(product, pair["multiplier"], pair["shift"]) + 1).clip(-128, 127)
    np.testing.assert_array_equal(compile_graph(graph).run([left, right]).outputs[0], expected)


def test_leaky_relu_shows_both_slopes() -> None:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4), "int8", Quantization.per_tensor(0.5))
    output = builder.tensor("y", (1, 4), "int8", Quantization.per_tensor(0.25))
    builder.layer("LEAKY_RELU", [given], [output], alpha=0.25)
    positive, negative = describe_layer(builder.build([output]), 0)["operands"]
    assert (positive["real"], negative["real"]) == (2.0, 0.5)
    assert positive["q31"] == {"multiplier": 2**30, "shift": 2}
    assert negative["q31"] == {"multiplier": 2**30, "shift": 0}


def test_an_absent_layer_or_channel_is_named() -> None:
    graph = convolution()
    with pytest.raises(UsageError, match="layers 0 to 0"):
        describe_layer(graph, 1)
    for channel in (-1, 5):
        with pytest.raises(UsageError, match="channels 0 to 4"):
            describe_layer(graph, 0, channel)
    with pytest.raises(UsageError, match="no multiplier per channel"):
        describe_layer(binary("ADD"), 0, 0)
    # One scale for all channels is every channel's.
    assert describe_layer(convolution("uint8", (0.5,)), 0, 4)["channels"][0]["channel"] is None
