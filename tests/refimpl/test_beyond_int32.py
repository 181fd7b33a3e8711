"""Layers that leave what C defines of int32 are refused by name, and their neighbours are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Graph, Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES
from karat24.refimpl.profiles.tflite.beyond_int32 import WEIGHTED
from tests.cases import unary
from tests.cases.filter_layer import Shape, channel_axis, filter_layer, filter_shape

FILTERED = sorted(WEIGHTED - {"BATCH_MATMUL"})
ALMOST_4 = 4.0 * (1 - 2.0**-24)
"""The float32 below 4: as a Q0.31 multiplier, 128 short of the next power of two."""


def layer(
    op: str, bias: int, zero_point: int, multiplier: float = 4.0, weights: tuple[int, ...] = ()
) -> Graph:
    """A layer of int8, input scale 1 and zero point 0; its last output channel has these weights and bias."""
    shape = Shape((1, 4) if op == "FULLY_CONNECTED" else (1, 2, 2, 2), 2, (1, 2))
    filter_ = np.zeros(filter_shape(op, shape), np.int8)
    last = filter_[..., -1] if op == "DEPTHWISE_CONV_2D" else filter_[-1]
    last.reshape(-1)[: len(weights)] = weights
    of_filter = Quantization((multiplier,), (0,), channel_axis(op))
    parameters = Quantization.per_tensor(1.0), of_filter, Quantization.per_tensor(1.0, zero_point)
    feed = np.zeros(shape.input, np.int8)
    return filter_layer(op, "layer", "", shape, feed, filter_, np.array([0, bias]), parameters).graph


@pytest.mark.parametrize("op", FILTERED)
@pytest.mark.parametrize(
    ("bias", "weights", "zero_point", "known"),
    [
        (-(2**29), (), -1, False),
        (-(2**29), (), 0, True),
        (2**29, (), -1, True),
        (-(2**29) + 16, (), -1, False),  # float32 rounds it to -2^29: a tie, to even
        (-(2**29) + 17, (), -1, True),
        (-(2**29) + 16 + 128 + 254, (1, -2), -1, False),  # the input's -128 and 127 reach the border
        (-(2**29) + 17 + 128 + 254, (1, -2), -1, True),
        (-(2**31) + 128 + 254, (1, -2), 0, True),
    ],
)
def test_what_xnnpack_computes_by_processor_is_not_known(
    op: str, bias: int, weights: tuple[int, ...], zero_point: int, known: bool
) -> None:
    view = layer(op, bias, zero_point, weights=weights).view(0)
    OPS[op].check(view)
    assert PROFILES["litert-2.3-ref"].rule(view)
    assert PROFILES["litert-2.3-xnnpack-arm64"].rule(view)
    if known:
        assert PROFILES["litert-2.3-xnnpack"].rule(view)
        return
    with pytest.raises(UnsupportedOp, match=r"depends on the processor below -2\^31.*AVX512"):
        PROFILES["litert-2.3-xnnpack"].rule(view)


@pytest.mark.parametrize("op", FILTERED)
def test_a_zero_point_that_may_carry_across_int32_is_refused(op: str) -> None:
    near = 2**29 - 1
    for bias, multiplier, refused in (
        (near, ALMOST_4, True),
        (-near, ALMOST_4, True),
        (near, 4.0, False),
        (near, 4.0 * (1 - 2.0**-21), False),
        (near - 2**9, ALMOST_4, False),
    ):
        view = layer(op, bias, 5, multiplier).view(0)
        if refused:
            with pytest.raises(UnsupportedOp, match=r"carries it beyond int32.*check the scales"):
                OPS[op].check(view)
        else:
            OPS[op].check(view)


def test_a_root_that_is_shifted_by_more_than_31_is_refused() -> None:
    (case,) = [case for case in unary.cases() if case.name == "rsqrt_int8_shifted_by_31"]
    view = case.graph.view(0)
    OPS["RSQRT"].check(view)
    further = replace(view.output(), quantization=Quantization.per_tensor(16.0, 60))
    with pytest.raises(UnsupportedOp, match="right shift of 32 bits, and C defines 31 at most"):
        OPS["RSQRT"].check(replace(view, outputs=(further,)))
