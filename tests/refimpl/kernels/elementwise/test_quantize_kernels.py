"""QUANTIZE and DEQUANTIZE where the kernels compute in another way than the spec, or than each other."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.kernels.elementwise.lookup import Lookup
from karat24.refimpl.profiles import PROFILES
from tests.cases.single_layer import Feed, Result, single_layer

TFLITE = [name for name in PROFILES if PROFILES[name].format == "tflite" and name != "edgetpu"]
"""All that quantize float32 values; the Edge TPU has none."""
EXTRAORDINARY = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**22], np.float32)


def around_ties(scale: float) -> np.ndarray:
    """Halves of a step from below one end of a byte to beyond the other, and two neighbours on each side."""
    steps = (np.arange(-700, 701) / 2).astype(np.float32) * np.float32(scale)
    values = [steps]
    for towards in (-np.inf, np.inf):
        near = np.nextafter(steps, np.float32(towards))
        values += [near, np.nextafter(near, np.float32(towards))]
    return np.concatenate([*values, np.array([0.0, -0.0, 1e-40, -1e-40], np.float32)])


@pytest.mark.parametrize("profile", TFLITE)
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0371, 2.0**-20, 1e-30, 3e30])
@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -128), ("int8", 5), ("uint8", 0), ("uint8", 255)])
def test_quantizing_ordinary_numbers_equals_the_spec(
    profile: str, scale: float, dtype: str, zero_point: int
) -> None:
    """In blocks of their own, and beside one number of every extraordinary kind."""
    plain = np.resize(around_ties(scale), 8192)
    with np.errstate(over="ignore"):
        others = EXTRAORDINARY * np.float32(scale)
    for place, other in enumerate((None, *others)):
        values = plain.copy()
        if other is not None:
            values[997 * place % values.size] = other
        case = single_layer(
            "quantize", "ordinary", "QUANTIZE", [Feed(values, None, 0)],
            [Result(values.shape, dtype, scale, zero_point)],
        )  # fmt: skip
        if place == 0:
            graph, program = case.graph, compile_graph(case.graph, profile)
            spec = compile_graph(graph, profile, implementation="spec")
        np.testing.assert_array_equal(
            program.run([values]).outputs[0], spec.run([values]).outputs[0], err_msg=str(other)
        )


@pytest.mark.parametrize("profile", TFLITE)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.1, 2.0**-7, 1e36])
def test_dequantizing_multiplies_only_where_that_is_what_the_profile_says(
    profile: str, dtype: str, scale: float
) -> None:
    values = np.resize(np.arange(256).astype(np.uint8), 1027).view(dtype)
    case = single_layer(
        "dequantize", "all bytes", "DEQUANTIZE", [Feed(values, scale, 7)], [Result(values.shape, "float32")]
    )
    program = compile_graph(case.graph, profile)
    spec = compile_graph(case.graph, profile, implementation="spec").run([values]).outputs[0]
    assert program.run([values]).outputs[0].tobytes() == spec.tobytes()
    multiplies = not isinstance(program.steps[0].kernel, Lookup)
    assert multiplies or program.steps[0].rule != compile_graph(case.graph, "litert-2.3-ref").steps[0].rule
