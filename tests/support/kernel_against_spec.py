"""Holds kernels against their specs: same outputs, same accumulators, nothing outside the buffers."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, settings

from karat24.refimpl.contract import Target, accumulator_dtype
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.jit.isa import FEATURES, why_not
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.tflite.conv_2d import check_conv_2d, conv_2d
from karat24.refimpl.spec.tflite.depthwise_conv_2d import check_depthwise_conv_2d, depthwise_conv_2d
from karat24.refimpl.spec.tflite.fully_connected import check_fully_connected, fully_connected
from karat24.refimpl.spec.tflite.transpose_conv import check_transpose_conv, transpose_conv
from tests.cases.weighted_layer import WeightedShape, weighted_layer

SPECS = {
    "CONV_2D": (check_conv_2d, conv_2d),
    "DEPTHWISE_CONV_2D": (check_depthwise_conv_2d, depthwise_conv_2d),
    "FULLY_CONNECTED": (check_fully_connected, fully_connected),
    "TRANSPOSE_CONV": (check_transpose_conv, transpose_conv),
}

ISAS = tuple(isa for isa in FEATURES if why_not(isa) is None)
"""What this machine can run; tests/refimpl/test_isa.py names the others and the reasons."""

RULES = (
    Rule("gemmlowp", "float64"),
    Rule("gemmlowp", "float32_product"),
    Rule("ruy", "float64"),
    Rule("float32_half_even", "float32", clamp="half_even"),
    Rule("float64_half_away", "float64"),
    Rule("ruy", "float64", tail="gemmlowp", block=8, block_axis="channel"),
    Rule("ruy", "float32_product", tail="gemmlowp", block=16, block_axis="flat"),
)


class Margins:
    """An array inside a larger one full of a known pattern: shows who writes beside it."""

    def __init__(self, shape: tuple[int, ...], dtype: str, contents: Array | None = None) -> None:
        size, margin = math.prod(shape), 192
        self._whole = np.full(size + 2 * margin, 85, dtype)
        self.array = self._whole[margin : margin + size].reshape(shape)
        self.array[...] = 86 if contents is None else contents
        self._outside = (self._whole[:margin], self._whole[margin + size :])

    def untouched(self) -> bool:
        return all((part == 85).all() for part in self._outside)


RANDOM_SHAPES = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""How often random shapes are drawn: the same ones every time."""


def assert_kernel_equals_spec(
    view: LayerView,
    values: list[Array | None],
    rule: Rule,
    threads: tuple[int, ...] = (1, 2),
    isas: tuple[str, ...] = ISAS,
) -> None:
    """Outputs and accumulators, every instruction set, one thread and two; nothing else is written."""
    check, spec = SPECS[view.op]
    check(view)
    expected = spec(view, values, rule)
    assert expected.accumulator is not None
    for target in targets(threads, isas):
        kernel = KERNELS[view.op](view, rule, target)
        held = [None if v is None else Margins(v.shape, v.dtype.name, v) for v in values]
        output = Margins(view.output().shape, view.output().dtype)
        acc = Margins(view.output().shape, accumulator_dtype(view).name)
        kernel([None if h is None else h.array for h in held], [output.array], acc.array)
        np.testing.assert_array_equal(acc.array, expected.accumulator, err_msg=f"{view} acc, {target}")
        np.testing.assert_array_equal(output.array, expected.outputs[0], err_msg=f"{view} {rule}, {target}")
        assert output.untouched()
        assert acc.untouched()
        for copy, original in zip(held, values, strict=True):
            assert copy is None or np.array_equal(copy.array, original)
        without = np.empty_like(output.array)
        kernel(values, [without], None)
        np.testing.assert_array_equal(without, output.array)


def targets(threads: tuple[int, ...] = (1, 2), isas: tuple[str, ...] = ISAS) -> list[Target]:
    """Every instruction set this machine can run, with so many threads."""
    return [Target(isa, count) for isa in isas for count in threads]


def assert_all_rules(shape: WeightedShape, seed: int = 0) -> None:
    view, values = weighted_layer(shape, seed)
    for number, rule in enumerate(RULES):
        # How tasks are shared out has nothing to do with rounding; waking threads is what takes time here.
        assert_kernel_equals_spec(view, values, rule, (1,) if number else (1, 2))
