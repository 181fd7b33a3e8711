"""Where an ADD's blocks end when its operands broadcast: kernel, profile and runtime must agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import LayerView, Quantization
from karat24.refimpl.kernels.elementwise.binary import inner_loop
from karat24.refimpl.profiles.tflite import broadcast

Shape = tuple[int, ...]

# Seen in LiteRT 2.3.0: outputs chosen where the body's rounding and the tail's differ. A length of 0
# means the general loop, all of whose elements are rounded as the tail is; True, the loop over a single
# value, in blocks of 8.
OBSERVED: dict[tuple[Shape, Shape], tuple[int, bool]] = {
    ((1, 3, 4, 20), (1, 3, 4, 20)): (240, False),
    ((1, 3, 4, 20), (1, 1, 1, 20)): (20, False),
    ((1, 1, 1, 20), (1, 3, 4, 20)): (20, False),
    ((1, 3, 4, 20), (1, 3, 4, 1)): (20, True),
    ((1, 3, 4, 1), (1, 3, 4, 20)): (20, True),
    ((1, 3, 4, 20), (4, 20)): (80, False),
    ((1, 3, 4, 20), ()): (240, True),
    ((1, 3, 4, 20), (1,)): (240, True),
    ((2, 3, 4, 20), (2, 1, 1, 20)): (20, False),
    ((2, 3, 4, 20), (1, 3, 1, 20)): (0, False),
    ((1, 3, 1, 20), (1, 1, 4, 20)): (20, False),
    ((3, 4, 20), (3, 1, 20)): (20, False),
    ((2, 1, 4, 1), (1, 3, 1, 20)): (0, False),
    ((37,), (1,)): (37, True),
    ((1, 37), (37,)): (37, False),
    ((2, 1, 3, 20), (1, 2, 3, 1)): (0, False),
    ((1, 5, 1, 20), (3, 1, 4, 20)): (0, False),
    ((2, 20, 1, 1), (1, 20, 3, 1)): (3, True),  # too short for a block, as the next one is
    ((3, 5, 1), (3, 5, 2)): (2, True),
    ((7, 11, 1), (7, 1, 1)): (11, True),
    ((2, 1, 3, 1), (1, 5, 1, 7)): (0, False),
    ((1, 1, 1, 1), (2, 20, 3, 1)): (120, True),
}


def addition(left: Shape, right: Shape) -> LayerView:
    builder = GraphBuilder()
    half = Quantization.per_tensor(0.5)
    inputs = [builder.input("left", left, "int8", half), builder.input("right", right, "int8", half)]
    output = builder.tensor("sum", np.broadcast_shapes(left, right), "int8", half)
    builder.layer("ADD", inputs, [output], fused_activation_function="NONE")
    return builder.build([output]).view(0)


@pytest.mark.parametrize(("shapes", "loop"), OBSERVED.items(), ids=str)
def test_loops_are_the_observed_ones(shapes: tuple[Shape, Shape], loop: tuple[int, bool]) -> None:
    assert inner_loop(addition(*shapes)) == loop


def test_kernel_and_profile_cut_every_small_broadcast_alike() -> None:
    sizes = list(itertools.product((1, 2, 3), repeat=4))
    pairs = [
        (left, right)
        for left, right in itertools.product(sizes, sizes)
        if all(a == b or 1 in (a, b) for a, b in zip(left, right, strict=True))
    ]
    assert len(pairs) == 7**4
    for left, right in pairs:
        view = addition(left, right)
        ours, theirs = inner_loop(view), broadcast.inner_loop(view)
        assert (ours.length == 0) == (theirs.kind == "general"), (left, right)
        if ours.length:
            assert ours == (theirs.run, theirs.kind == "scalar"), (left, right)
