"""MatMulNBits by integers: MLAS rounds the data to 8 bits per block, and the bound follows it there."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import Delegate
from karat24.export.onnx import read_onnx
from karat24.refimpl.bounds import Interval, bound_for
from karat24.refimpl.bounds.interval import Either
from karat24.refimpl.graph import Array
from tests.cases.onnx_models import node, onnx_model
from tests.cases.quantized import seeded
from tests.support.runtimes import Runtimes, available

DEEP, WIDE, BLOCK = 100, 9, 32


@pytest.fixture(scope="module", params=["this processor", "emulated AVX2"])
def runtime(request: pytest.FixtureRequest, runtimes: Runtimes, emulated_runtimes: Runtimes) -> Delegate:
    return available(runtimes("ort")) if request.param == "this processor" else emulated_runtimes("ort")


def layer(bits: int, level: int, ties: bool = True) -> tuple[bytes, Array]:
    """Data whose blocks reach 127, so that halves between integers are ties, or without any near a tie."""
    rng = seeded(f"blocks {bits}")
    blocks = -(-DEEP // BLOCK)
    x = (rng.integers(-254, 255, (4, DEEP)) / 2).astype(np.float32)
    if not ties:
        x = np.trunc(x) + rng.uniform(-0.4, 0.4, x.shape).astype(np.float32)
    x[:, ::BLOCK] = 127
    constants = {
        "w": rng.integers(0, 256, (WIDE, blocks, BLOCK * bits // 8)).astype(np.uint8),
        "s": (rng.uniform(0.1, 1, WIDE * blocks) * 0.02).astype(np.float32),
        "z": rng.integers(0, 256, WIDE * -(-blocks * bits // 8)).astype(np.uint8),
    }
    options = {"K": DEEP, "N": WIDE, "bits": bits, "block_size": BLOCK, "accuracy_level": level}
    nodes = [node("com.microsoft:MatMulNBits", ["x", *constants], **options)]
    return onnx_model(nodes, {"x": x}, {"y": "float32"}, constants), x


def interval(content: bytes, x: Array) -> Interval:
    (view,) = read_onnx(content).views()
    return bound_for(view)([x, *(tensor.data for tensor in view.inputs[1:] if tensor is not None)])


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_runtime_lies_inside(runtime: Delegate, bits: int, level: int) -> None:
    """Every second value of the data is a tie when it becomes an integer, which counts both ways."""
    content, x = layer(bits, level)
    (found,) = runtime.run(content, {"x": x}, tensors="outputs").outputs
    assert interval(content, x).use(found).outside == 0


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("bits", [4, 8])
def test_without_ties_one_wrong_weight_lies_outside(runtime: Delegate, bits: int, level: int) -> None:
    """By floats and by integers: what one of the kernels gives is not held to a bound around both."""
    content, x = layer(bits, level, ties=False)
    (view,) = read_onnx(content).views()
    values = [x, *(tensor.data for tensor in view.inputs[1:] if tensor is not None)]
    (found,) = runtime.run(content, {"x": x}, tensors="outputs").outputs
    allowed, changed = interval(content, x), values[1].copy()
    assert allowed.use(found).outside == 0
    changed[0, 0, 0] ^= 1
    moved = bound_for(view)([values[0], changed, *values[2:]])
    for form in forms(moved):
        assert allowed.use(((form.low + form.high) / 2).astype(np.float32)).outside == len(x)


def test_a_layer_is_computed_by_one_kernel() -> None:
    """Rows that lie in the bounds of two kernels by turns lie in the bounds of none."""
    content, x = layer(8, 4, ties=False)
    allowed = interval(content, x)
    by_floats, by_integers = ((form.low + form.high) / 2 for form in forms(allowed))
    assert allowed.use(by_floats).outside == allowed.use(by_integers).outside == 0
    mixed = by_floats.copy()
    mixed[0] = by_integers[0]
    assert allowed.use(mixed).outside > WIDE // 2
    assert np.count_nonzero(allowed.nearest(mixed) != mixed) == allowed.use(mixed).outside


def forms(found: Interval) -> tuple[Interval, ...]:
    return found.forms if isinstance(found, Either) else (found,)


def test_integers_of_the_data_are_needed(runtime: Delegate) -> None:
    """What the lane computes at level 4 is the float32 product, or lies outside its bound."""
    content, x = layer(8, 4)
    (found,) = runtime.run(content, {"x": x}, tensors="outputs").outputs
    (exact,) = runtime.run(layer(8, 0)[0], {"x": x}, tensors="outputs").outputs
    by_float = interval(layer(8, 0)[0], x)
    assert by_float.use(exact).outside == 0
    if not np.array_equal(found, exact):
        assert by_float.use(found).outside > found.size // 2
