"""Kernels' requantization against the spec's primitives, on values placed where roundings differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView, Quantization
from karat24.refimpl.kernels.jit.callee import call_by_address
from karat24.refimpl.kernels.jit.packed_call import PackedCall
from karat24.refimpl.kernels.rounding.multipliers import (
    combined_scales,
    fixed_point_multipliers,
    output_bounds,
)
from karat24.refimpl.kernels.rounding.requantize import epilogue_for_scales, requantization
from karat24.refimpl.kernels.rounding.requantize_block import LANES
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared import primitives

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

RULES = (
    Rule("gemmlowp"),
    Rule("ruy"),
    Rule("single_rounding"),
    Rule("rndnu"),
    Rule("gemmlowp_saturating"),
    Rule("float32_half_even"),
    Rule("float64_half_away"),
    Rule("ruy", tail="gemmlowp", block=8, block_axis="channel"),
    Rule("ruy", tail="gemmlowp", block=16, block_axis="flat"),
)


def layer_writing(dtype: str, zero_point: int, shape: tuple[int, ...], scale: float = 0.5) -> LayerView:
    """A layer whose only purpose is to have this output."""
    builder = GraphBuilder()
    data = builder.input("data", (1,), dtype, Quantization.per_tensor(1.0))
    output = builder.tensor("output", shape, dtype, Quantization.per_tensor(scale, zero_point))
    builder.layer("CONV_2D", [data], [output])
    return builder.build([output]).view(0)


def boundary_scales() -> np.ndarray:
    """Powers of two and their float64 and float32 neighbours, carries of the multiplier, vanishing ones."""
    mantissas = [1.0, np.nextafter(1, 2), np.nextafter(1, 0), 1 + 2.0**-23, 1 - 2.0**-24, 0.75, 1.5]
    # Ties and near ties of the 31-bit rounding, and the carry to 2**31 that moves the exponent.
    mantissas += [
        (2**31 - 1) / 2**31,
        (2**31 - 0.5) / 2**31,
        (2**31 - 0.25) / 2**31,
        (2**30 + 0.5) / 2**30,
        (2**30 + 1.5) / 2**30,
    ]
    exponents = [-1074, -1030, -40, -33, -32, -31, -30, -20, -9, -2, -1, 0, 1, 5, 20, 29]
    return np.array([0.0, *(m * 2.0**e for m in mantissas for e in exponents)])


def boundary_accumulators(multiplier: int, shift: int) -> np.ndarray:
    """int32 values: extremes, powers of two ± 1, and around every tie the two roundings can make."""
    powers = [sign * 2**k + d for k in range(31) for sign in (1, -1) for d in (-1, 0, 1)]
    values = [0, INT32_MIN, INT32_MIN + 1, INT32_MAX, INT32_MAX - 1, *powers]
    if multiplier:
        right = max(-shift, 0)
        # Odd multiples of half a step of the second rounding, and halves of the first, solved for acc.
        targets = [sign * odd * 2**right / 2 for odd in (1, 3, 5, 127, 255, 257) for sign in (1, -1)]
        targets += [k + 0.5 for k in (-3, -2, -1, 0, 1, 2)]
        for target in targets:
            middle = round(target * 2**31 / multiplier)
            values += [middle + d for d in (-2, -1, 0, 1, 2)]
    return np.array([v for v in values if INT32_MIN <= v <= INT32_MAX], np.int64)


@njit
def _requantize_rows(rows: Any, r: Any, channels: int, result: Any, begin: int, end: int) -> None:
    call_by_address(r.function, (
        r.epilogue.ctypes.data, rows.ctypes.data, rows.shape[1], end - begin, 0, channels,
        result.ctypes.data, 0, channels, 0,
    ))  # fmt: skip


def requantized(view: LayerView, rule: Rule, scales: np.ndarray, acc: np.ndarray, low: int, high: int):
    """The kernel's result for ``acc`` [pixel, channel], through its compiled loop."""
    output = view.output()
    epilogue = epilogue_for_scales(view, rule, scales, output, (low, high))
    result = np.zeros(acc.size, np.uint8)
    rows = np.pad(acc.astype(np.int32), ((0, 0), (0, -acc.shape[1] % LANES)), constant_values=INT32_MIN)
    given = rows, requantization(epilogue), acc.shape[1], result
    PackedCall(_requantize_rows, given)(0, len(rows))
    return result.view(output.dtype).reshape(acc.shape)


def test_multiplier_equals_the_specs_on_powers_carries_ties_and_vanishing_scales() -> None:
    scales = boundary_scales()
    multiplier, shift = fixed_point_multipliers(scales, layer_writing("int8", 0, (1,)))
    expected_multiplier, expected_shift = primitives.quantize_multipliers(scales)
    np.testing.assert_array_equal(multiplier, expected_multiplier)
    np.testing.assert_array_equal(shift, expected_shift)
    assert {0, 2**30, INT32_MAX} <= set(multiplier.tolist())  # vanished, carried, and all ones


@pytest.mark.parametrize("scale", [2.0**30, 1e30, np.inf, np.nan])
def test_a_scale_that_shifts_an_int32_out_of_itself_is_refused(scale: float) -> None:
    with pytest.raises(UnsupportedOp, match=r"CONV_2D.*scale"):
        fixed_point_multipliers(np.array([scale]), layer_writing("int8", 0, (1,)))


@pytest.mark.parametrize("precision", ["float64", "float32_product", "float32"])
def test_combined_scales_round_where_the_rule_says(precision: str) -> None:
    rng = np.random.default_rng(1)
    inputs, filters, outputs = np.exp(rng.uniform(-20, 3, (3, 400))).astype(np.float32)
    ours = np.array(
        [
            combined_scales(float(i), [float(f)], float(o), precision)[0]
            for i, f, o in zip(inputs, filters, outputs, strict=True)
        ]
    )
    spec = [
        primitives.effective_multiplier(precision, i, f, o)
        for i, f, o in zip(inputs, filters, outputs, strict=True)
    ]
    np.testing.assert_array_equal(ours, np.array(spec, np.float64))
    everything_in_double = inputs.astype(float) * filters.astype(float) / outputs.astype(float)
    assert (precision == "float64") == bool((ours == everything_in_double).all())


@pytest.mark.parametrize("clamp", ["half_away", "half_even"])
@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU_N1_TO_1", "RELU6"])
def test_activation_bounds_equal_the_specs_on_ties_and_saturation(activation: str, clamp: str) -> None:
    for dtype, zero_points in (("int8", (-128, -3, 0, 1, 127)), ("uint8", (0, 1, 128, 255))):
        for zero_point in zero_points:
            # 6 / 4 and 1 / 2 are exact ties; the tiny scale overflows float32.
            for scale in (4.0, 2.0, 12.0, 0.5, 0.0235, 1e-3, 1e-38, 2.0**-140):
                view = layer_writing(dtype, zero_point, (1,), scale)
                ours = output_bounds(view.output(), activation, clamp, view)
                assert ours == primitives.activation_range(activation, scale, zero_point, dtype, clamp)


def test_the_two_clamps_part_on_an_exact_tie_with_an_odd_zero_point() -> None:
    view = layer_writing("int8", 1, (1,), 4.0)  # 6 / 4 = 1.5
    bounds = {c: output_bounds(view.output(), "RELU6", c, view) for c in ("half_away", "half_even")}
    assert bounds == {"half_away": (1, 3), "half_even": (1, 2)}


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "zero_point", "low", "high"),
    [
        ("int8", -3, -128, 127),
        ("int8", -128, -128, 127),
        ("int8", -128, -128, 126),
        ("int8", 127, -127, 127),
        ("uint8", 131, 0, 255),
        ("uint8", 0, 0, 127),
    ],
)
def test_every_rule_equals_the_spec_on_boundary_values(
    rule: Rule, dtype: str, zero_point: int, low: int, high: int
) -> None:
    """One scale at a time, its own ties, in rows of 21 channels: two blocks of 8 and a tail of 5.

    Bounds that are those of int8, on both sides or on one, and others.
    """
    compared = 0
    for scale in boundary_scales():
        multiplier, shift = primitives.quantize_multiplier(float(scale))
        values = boundary_accumulators(multiplier, shift)
        acc = np.resize(values, (-(-values.size // 21) + 1, 21))  # every value, in varying channels
        view = layer_writing(dtype, zero_point, acc.shape)
        effective = np.float32(scale) if rule.method.startswith("float32") else np.float64(scale)
        expected = primitives.requantize(acc, effective, rule, zero_point, low, high)
        result = requantized(view, rule, np.array([scale]), acc, low, high)
        np.testing.assert_array_equal(result, expected, err_msg=f"scale {float(scale).hex()}")
        compared += acc.size
    assert compared > 30_000


def accumulators_near_middles(multiplier: int, shift: int, rule: Rule) -> np.ndarray:
    """int32 values whose results float32 barely tells: 3 of its steps (2**-13) or less from a turn.

    Neighbours of each, too, since one value in ``multiplier / 2**(31 - shift)`` may be further than a step.
    """
    right = -shift
    middles = np.concatenate([np.arange(-131, 130, 9), [-128, -1, 0, 126]]) + 0.5
    nudge = 2.0 ** -(1 + right) if right else 0.0
    turns = middles - np.where((middles < 0) & (rule.method == "gemmlowp"), -nudge, nudge)
    wanted = turns[:, None] + np.arange(-3, 3.25, 0.25) * 2.0**-13
    nearest = np.rint(wanted * 2.0 ** (31 + right) / multiplier).astype(np.int64)
    values = np.unique(nearest[:, :, None] + np.arange(-1, 2))
    return values[(values >= INT32_MIN) & (values <= INT32_MAX)]


@pytest.mark.parametrize("rule", RULES[:2], ids=str)
@pytest.mark.parametrize(
    ("dtype", "zero_point", "bounds"), [("int8", -128, (-128, 127)), ("uint8", 255, (3, 255))]
)
def test_what_float32_tells_alone_equals_the_spec(
    rule: Rule, dtype: str, zero_point: int, bounds: tuple[int, int]
) -> None:
    """One value at a time: beside another that float32 cannot tell, all 16 channels are computed exactly."""
    rng = np.random.default_rng(7)
    scales = np.concatenate([2.0 ** rng.uniform(-21, -0.01, 300), 2.0 ** -np.arange(2.0, 21), [0.75]])
    compared = 0
    for scale in scales:
        multiplier, shift = primitives.quantize_multiplier(float(scale))
        acc = accumulators_near_middles(multiplier, shift, rule)[:, None]
        view = layer_writing(dtype, zero_point, acc.shape)
        expected = primitives.requantize(acc, scale, rule, zero_point, *bounds)
        result = requantized(view, rule, np.array([scale]), acc, *bounds)
        np.testing.assert_array_equal(result, expected, err_msg=f"scale {float(scale).hex()}")
        compared += acc.size
    assert compared > 200_000


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_per_channel_scales_and_narrow_bounds(rule: Rule) -> None:
    """Every scale in a channel of its own, left and right shifts side by side, bounds inside the type."""
    scales = boundary_scales()
    rows = [boundary_accumulators(*primitives.quantize_multiplier(float(s))) for s in scales]
    acc = np.stack([np.resize(row, 260) for row in rows], axis=1)
    view = layer_writing("uint8", 7, acc.shape)
    effective = scales.astype(np.float32) if rule.method.startswith("float32") else scales
    expected = primitives.requantize(acc, effective, rule, 7, 3, 99)
    result = requantized(view, rule, scales, acc, 3, 99)
    np.testing.assert_array_equal(result, expected)
    assert result.min() == 3
    assert result.max() == 99


def test_the_methods_differ_from_one_another_on_these_values() -> None:
    """The values above can tell the methods apart, or equality with the spec would show little."""
    scale = 0.75 * 2.0**-9
    acc = boundary_accumulators(*primitives.quantize_multiplier(scale))
    acc = np.resize(acc, (-(-acc.size // 8), 8))
    view = layer_writing("int8", 0, acc.shape)
    results = [requantized(view, rule, np.array([scale]), acc, -128, 127).tobytes() for rule in RULES[:4]]
    assert results[0] != results[1]  # half away against half up
    assert results[2] not in results[:2]  # half even
    assert len({*results}) >= 3


def test_flat_tail_begins_behind_the_last_whole_block_even_within_a_pixel() -> None:
    """3 pixels of 7 channels: flat index 16 is channel 2 of the last pixel. -6 / 4 is a tie: -1 or -2."""
    acc = np.full((3, 7), -6, np.int64)
    view = layer_writing("uint8", 10, acc.shape)
    rule = Rule("ruy", tail="gemmlowp", block=16, block_axis="flat")
    result = requantized(view, rule, np.array([0.25]), acc, 0, 255)
    np.testing.assert_array_equal(result.reshape(-1), [9] * 16 + [8] * 5)


def test_an_unknown_mixture_of_methods_is_refused() -> None:
    view = layer_writing("int8", 0, (1, 1))
    for rule in (Rule("exact"), Rule("gemmlowp", tail="ruy", block=8, block_axis="channel")):
        with pytest.raises(UnsupportedOp, match="no kernel requantizes"):
            epilogue_for_scales(view, rule, np.array([0.5]), view.output(), (-128, 127))
