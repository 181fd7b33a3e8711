"""The Edge TPU's parameter layouts and derived numbers, against values written out or read off files."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.golden.edgetpu import arithmetic
from karat24.golden.edgetpu.layout import (
    Weights,
    block_fields,
    encoded,
    forms,
    layer_weights,
    tiles,
    windowed,
)
from karat24.golden.edgetpu.placing import Blob, closest, differences, place_bytes, place_weights
from karat24.golden.edgetpu.records import factor_records, softmax_records, summand_records
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, Quantization, Tensor


def tensor(scale: float, zero_point: int, dtype: str = "uint8") -> Tensor:
    return Tensor(0, "t", (1, 4), dtype, Quantization.per_tensor(scale, zero_point))


def test_clamps_are_rounded_as_the_compiler_does() -> None:
    """Read off public files: 6 times a rounded reciprocal is not 255, nor is a zero point a whole number."""
    relu6 = arithmetic.clamps(tensor(0.02352946251630783, 0), "RELU6")
    assert [arithmetic.from_bits(bits) for bits in relu6] == [0.0, np.float32(254.99945068359375)]
    none = arithmetic.clamps(tensor(0.13083283603191376, 96), "NONE")
    assert [arithmetic.from_bits(bits) for bits in none] == [np.float32(-95.99999237060547), 159.0]
    assert arithmetic.clamps(tensor(1.0, -128, "int8"), "NONE") == arithmetic.clamps(tensor(1.0, 0), "RELU")


@pytest.mark.parametrize(
    ("first", "second", "output", "factors", "multiplier"),
    [
        (0.5746461749076843, 0.35531607270240784, 0.5082216858863831, (17575, 10867), 6.433569797081873e-05),
        (0.1374264657497406, 0.17704160511493683, 0.1823827624320984, (22129, 28508), 3.4050604881485924e-05),
        (0.25, 0.25, 0.5, (1, 1), 0.5),
    ],
)
def test_an_addition_is_scaled_by_the_best_pair_of_integers(
    first: float, second: float, output: float, factors: tuple[int, int], multiplier: float
) -> None:
    operands = tensor(first, 0), tensor(second, 0)
    assert arithmetic.addition_factors(*operands) == factors
    for operand, factor in zip(operands, factors, strict=True):
        assert arithmetic.addition_multiplier(operand, factor, tensor(output, 0)) == np.float32(multiplier)


def weights(filter_: Array, zero_point: int = 9, bias: Array | None = None) -> Weights:
    count = filter_.shape[0]
    biases = np.zeros(count, "<i4") if bias is None else bias.astype("<i4")
    empty = np.empty(0, "<i4")
    return Weights(filter_, zero_point, biases, np.empty(0, "<f4"), empty, False)


def test_a_block_fills_up_channels_and_groups() -> None:
    """2 outputs of 5 inputs: 16 outputs of 8, of which 4 hold the zero point where they hold no weight."""
    filter_ = np.arange(10, dtype=np.uint8).reshape(2, 1, 1, 5) + 50
    (form, *_) = forms(weights(filter_, bias=np.array([7, -1])))
    content = encoded(block_fields(weights(filter_, bias=np.array([7, -1])), form, 0, 2))
    assert content[:64] == np.array([7, -1] + [0] * 14, "<i4").tobytes()
    first, second = (
        np.frombuffer(content[64 + 64 * g : 128 + 64 * g], np.uint8).reshape(16, 4) for g in (0, 1)
    )
    assert first[:5].tolist() == [[50, 51, 52, 53], [55, 56, 57, 58], [9] * 4, [9] * 4, [0] * 4]
    assert second[:5].tolist() == [[54, 9, 9, 9], [59, 9, 9, 9], [9] * 4, [9] * 4, [0] * 4]


def test_blocks_of_one_layer_may_be_tiled_differently() -> None:
    rng = np.random.default_rng(1)
    two = weights(rng.integers(0, 256, (128, 3, 1, 16)).astype(np.uint8), bias=rng.integers(1, 99, 128))
    form = next(forms(two))
    assert tiles(two) == [4, 2, 1]
    content = b"".join(encoded(block_fields(two, form, start, tile)) for start, tile in ((0, 1), (64, 4)))
    blob = Blob(0, "", bytes(64) + content)
    place = place_weights([blob], two)
    assert place is not None
    assert (place.start, place.stop) == (64, 64 + len(content))


def test_biases_of_zero_may_be_left_out() -> None:
    one = weights(np.random.default_rng(2).integers(0, 256, (8, 1, 1, 4)).astype(np.uint8))
    assert {form.bias for form in forms(one)} == {True, False}
    without = next(form for form in forms(one) if not form.bias)
    blob = Blob(0, "", encoded(block_fields(one, without, 0, 1)))
    assert place_weights([blob], one) is not None


def test_a_changed_weight_is_named_by_its_place() -> None:
    rng = np.random.default_rng(3)
    one = weights(rng.integers(0, 256, (20, 2, 2, 6)).astype(np.uint8), bias=rng.integers(1, 99, 20))
    content = bytearray(encoded(block_fields(one, next(forms(one)), 0, 2)))
    position = content.index(one.filter[17, 1, 0, 4:6].tobytes() + b"\t\t")
    content[position] ^= 0x40
    found = differences([Blob(0, "", bytes(content))], one)
    assert found is not None
    (difference,) = found[1]
    assert (difference.field, difference.channel, difference.byte) == ("filter", 17, position)
    assert np.unravel_index(difference.position, one.filter.shape) == (17, 1, 0, 4)
    assert difference.source == one.filter[17, 1, 0, 4]
    assert difference.compiled == one.filter[17, 1, 0, 4] ^ 0x40


def test_nothing_alike_is_nothing_found() -> None:
    one = weights(np.random.default_rng(4).integers(0, 256, (20, 2, 2, 6)).astype(np.uint8))
    assert differences([Blob(0, "", b"\xaa" * 4096)], one) is None
    assert differences([], one) is None


def test_claimed_bytes_are_not_found_again() -> None:
    blob = Blob(0, "", b"ab" * 64)
    assert place_bytes([blob], b"ab" * 32) is not None
    place = place_bytes([blob], b"ab" * 32)
    assert place is not None
    assert place.start == 64
    assert place_bytes([blob], b"ab" * 32) is None


def test_every_place_of_some_bytes_is_found() -> None:
    """Bytes of few values, so that places differ in one byte or in none; the naive search is the judge."""
    rng = np.random.default_rng(6)
    for density in (0.0, 0.001, 0.02, 0.5):
        content = bytes((rng.random(64 * 90) < density).astype(np.uint8))
        blob = Blob(0, "", content)
        for size in (1, 7, 64, 200):
            pattern = content[64 * 40 : 64 * 40 + size]
            places = range(0, len(content) - size + 1, 64)
            assert set(blob.occurrences(pattern)) == {at for at in places if content.startswith(pattern, at)}
    assert list(Blob(0, "", b"ab").occurrences(b"abc")) == []


def test_the_place_most_like_a_layer_is_found_among_many_that_are_somewhat() -> None:
    """Records that are mostly 0, in a blob of such: one value of sixteen differs where the record lies."""
    rng = np.random.default_rng(7)
    records = np.zeros((400, 16), "<i4")
    records[:, :4] = rng.integers(-500, 500, (400, 4))
    wanted = records[300:304].copy()
    records[302, 1] += 1
    found = closest([Blob(0, "", records.tobytes())], wanted.tobytes())
    assert found is not None
    assert found[1] == 64 * 300


def layer_graph(op: str, filter_: Array, image: tuple[int, ...], output: tuple[int, ...]) -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", image, "uint8", Quantization.per_tensor(0.5, 3))
    w = builder.constant("w", filter_, Quantization.per_tensor(0.25, 4))
    y = builder.tensor("y", output, "uint8", Quantization.per_tensor(0.5, 5))
    return builder.build((builder.layer(op, (x, w, -1), (y,)),))


def test_a_depthwise_filter_over_one_channel_is_an_ordinary_one() -> None:
    filter_ = np.arange(18, dtype=np.uint8).reshape(1, 3, 3, 2)
    found = layer_weights(layer_graph("DEPTHWISE_CONV_2D", filter_, (1, 5, 5, 1), (1, 3, 3, 2)).view(0))
    assert not found.depthwise
    assert found.filter.shape == (2, 3, 3, 1)
    assert found.filter[1, :, :, 0].tolist() == filter_[0, :, :, 1].tolist()


def test_a_fully_connected_layer_over_an_image_is_a_convolution() -> None:
    filter_ = np.arange(60, dtype=np.uint8).reshape(2, 30)
    found = layer_weights(layer_graph("FULLY_CONNECTED", filter_, (1, 30), (1, 2)).view(0))
    convolution = windowed(found, (1, 2, 3, 5))
    assert convolution is not None
    assert convolution.filter.shape == (2, 2, 3, 5)
    assert convolution.filter[1, 1, 2].tolist() == filter_[1, 25:].tolist()
    assert windowed(found, (1, 30)) is None
    assert windowed(found, (1, 2, 3, 4)) is None


def test_softmax_records_of_five_classes() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 5), "uint8", Quantization.per_tensor(0.5, 3))
    y = builder.tensor("y", (1, 5), "uint8", Quantization.per_tensor(1 / 256))
    view = builder.build((builder.layer("SOFTMAX", (x,), (y,), beta=1.0),)).view(0)
    records = np.frombuffer(softmax_records(view), "<f4").reshape(-1, 16)
    assert len(records) == 7
    assert not records[:, 4:].any()
    assert np.signbit(records[1, :4]).tolist() == [False, True, True, True]
    assert records[4, :4].tolist() == [0.5] * 4
    assert records[5, :4].tolist() == [0.5] + [float(np.float32(0.5) * np.finfo(np.float32).max)] * 3
    assert records[6, :4].tolist() == [1, 0, 0, 0]


def test_constants_per_channel_have_a_record_per_four() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 2, 2, 5), "uint8", Quantization.per_tensor(0.5, 3))
    c = builder.constant("c", np.array([4, 5, 6, 7, 10], np.uint8), Quantization.per_tensor(0.25, 4))
    y = builder.tensor("y", (1, 2, 2, 5), "uint8", Quantization.per_tensor(0.125))
    graph = builder.build((builder.layer("MUL", (x, c), (y,), fused_activation_function="NONE"),))
    constant, operand = graph.tensors[c], graph.tensors[x]
    factors = np.frombuffer(factor_records(graph.view(0), constant, operand), "<f4").reshape(2, 16)
    assert factors[:, :4].reshape(-1).tolist() == [0, 1, 2, 3, 6, 0, 0, 0]
    for sign in (1, -1):
        summands = np.frombuffer(summand_records(constant, operand, sign), "<i4").reshape(2, 16)
        assert summands[:, :4].reshape(-1).tolist() == [0, 0, sign, sign * 2, sign * 3, 0, 0, 0]
