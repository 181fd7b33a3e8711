"""Convolution kernels between guard pages: a byte read or written too far kills the process."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from karat24.refimpl.contract import Target, accumulator_dtype
from karat24.refimpl.kernels import KERNELS
from karat24.refimpl.kernels.convolution.winograd import convolution as winograd
from karat24.refimpl.kernels.threads import thread_count as threads
from karat24.refimpl.profiles.rules import Rule
from tests.cases.weighted_layer import WeightedShape
from tests.cases.weighted_layer import weighted_layer as layer
from tests.refimpl.kernels.convolution.test_dense import EDGES
from tests.refimpl.kernels.convolution.test_wide import EDGES as INT16
from tests.refimpl.kernels.convolution.test_winograd import SHAPES, seed_where_taken
from tests.refimpl.kernels.depthwise.test_depthwise import EDGES as DEPTHWISE
from tests.refimpl.kernels.depthwise.test_depthwise import IN_A_ROW
from tests.support.guard_pages import GuardPages, exit_code, read_behind_the_end
from tests.support.kernel_against_spec import RULES, targets


def every_edge() -> None:
    run_between_guard_pages(
        (shape, 0) for shape in (*EDGES.values(), *DEPTHWISE.values(), *IN_A_ROW.values())
    )


def every_edge_of_winograds() -> None:
    winograd.pays = lambda isa, _: isa in winograd.OF_PAIRS
    run_between_guard_pages((shape, seed_where_taken(shape)) for shape in SHAPES.values())


def every_edge_of_int16() -> None:
    run_between_guard_pages(((shape, 0) for shape in INT16.values()), Rule("q15", "float64"))


def run_between_guard_pages(cases: Iterable[tuple[WeightedShape, int]], rule: Rule = RULES[0]) -> None:
    """Layers of these shapes, each made from a seed."""
    threads.SMALL_WORK = threads.CHUNK_WORK = 0  # a process of its own
    pages = GuardPages()
    for shape, seed in cases:
        view, values = layer(shape, seed)
        plain = np.empty(view.output().shape, view.output().dtype)
        KERNELS[view.op](view, rule, Target())(values, [plain], None)
        for target, at_end in itertools.product(targets(), (False, True)):
            kernel = KERNELS[view.op](view, rule, target)
            inputs = [None if v is None else pages.array(v, at_end) for v in values]
            output = pages.array(np.zeros_like(plain), at_end)
            acc = pages.array(np.zeros(plain.shape, accumulator_dtype(view)), at_end)
            kernel(inputs, [output], acc)
            if not np.array_equal(output, plain):
                raise SystemExit(3)


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
@pytest.mark.parametrize("run", [every_edge, every_edge_of_int16, every_edge_of_winograds])
def test_nothing_is_read_or_written_outside_the_buffers(run: Callable[[], None]) -> None:
    """Every edge of the convolutions, each buffer flush with an unmapped page."""
    assert exit_code(read_behind_the_end) not in (0, None)  # the guard bites
    assert exit_code(run) == 0
