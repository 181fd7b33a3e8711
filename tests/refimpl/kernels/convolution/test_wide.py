"""int16 convolutions by float64 products: ties, tails, geometry, sums beyond int32, many rows at once."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.refimpl.contract import Target
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Graph
from karat24.refimpl.kernels.convolution import wide
from karat24.refimpl.step import prepare_step
from tests.cases import int16_weighted
from tests.cases.case import Case

PROFILE = "litert-2.3-ref"
CASES = [case for case in int16_weighted.cases() if case.graph.layers[0].op == "CONV_2D"]


def has_wide_kernel(graph: Graph) -> bool:
    profile = compile_graph(graph, PROFILE).profile
    return isinstance(prepare_step(graph.view(0), profile, Target()).kernel, wide.WideConvolution)


def assert_equal_to_spec(case: Case) -> None:
    kernels, spec = (
        compile_graph(case.graph, PROFILE, implementation=way).run(case.feeds, accumulators=True)
        for way in ("kernels", "spec")
    )
    assert np.array_equal(kernels.outputs[0], spec.outputs[0])
    assert np.array_equal(kernels.trace.accumulators[0], spec.trace.accumulators[0])


RUN = [case for case in CASES if PROFILE.split("-2.3")[0] + "-ref" not in case.broken_in]


@pytest.mark.parametrize("case", RUN, ids=lambda case: case.name)
def test_the_kernel_computes_what_the_spec_does(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are taken a few at a time, the last time fewer."""
    monkeypatch.setattr(wide, "COLUMN_BYTES", 3000)
    assert_equal_to_spec(case)


def test_which_layers_it_takes() -> None:
    """Those that TFLite multiplies by 16 bits: int64 biases, no groups."""
    taken = {case.name for case in RUN if has_wide_kernel(case.graph)}
    assert len(taken) > 12
    assert not any("int32" in name or "group" in name for name in taken if "beyond" not in name)
