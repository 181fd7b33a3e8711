"""One layer at a time: the slow definition of each op against every lane of the runtimes it describes.

The cases are placed on ties, saturation, odd zero points and tail sizes; one value that differs fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest

from delegates import delegate_named
from export.tflite import write_tflite
from refimpl.graph import Array
from refimpl.ops import OPS
from refimpl.profiles import profile_named
from tests.cases import (
    convolution,
    copies,
    elementwise,
    glue,
    pooling,
    resize_bilinear,
    slicing,
    tables,
)
from tests.cases.case import Case

MODULES: Mapping[str, Callable[[], list[Case]]] = {
    "convolution": convolution.cases,
    "copies": copies.cases,
    "elementwise": elementwise.cases,
    "glue": glue.cases,
    "pooling": pooling.cases,
    "resize_bilinear": resize_bilinear.cases,
    "slicing": slicing.cases,
    "tables": tables.cases,
}

LANES = {
    "litert-ref": "litert-2.3-ref",
    "litert-builtin": "litert-2.3-builtin",
    "litert-xnnpack": "litert-2.3-xnnpack",
}


@cache
def _cases(module: str) -> tuple[Case, ...]:
    return tuple(MODULES[module]())


@pytest.mark.parametrize("module", MODULES)
def test_cases_are_told_apart(module: str) -> None:
    names = [str(case) for case in _cases(module)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("module", MODULES)
def test_spec_equals_runtime(module: str, lane: str) -> None:
    cases = [case for case in _cases(module) if lane not in case.broken_in]
    jobs = [(write_tflite(case.graph), case.feeds) for case in cases]
    differences = []
    with delegate_named(lane) as delegate:
        for case, answer in zip(cases, delegate.run_many(jobs), strict=True):
            if isinstance(answer, Exception):
                differences.append(f"{case}: {answer}")
                continue
            for ours, theirs in zip(_spec(case, LANES[lane]), answer.outputs, strict=True):
                if not _identical(ours, theirs):
                    differences.append(f"{case}: {_describe(ours, theirs)}")
    assert not differences, f"{len(differences)} of {len(cases)} cases\n" + "\n".join(differences[:20])


def _spec(case: Case, profile: str) -> tuple[Array, ...]:
    view = case.graph.view(0)
    OPS[view.op].check(view)
    fed = dict(zip(case.graph.inputs, case.feeds, strict=True))
    values = [None if t is None else fed.get(t.index, t.data) for t in view.inputs]
    return OPS[view.op].spec(view, values, profile_named(profile).rule(view)).outputs


def _identical(ours: Array, theirs: Array) -> bool:
    """Same type, shape and bits; the sign of a zero counts."""
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def _describe(ours: Array, theirs: Array) -> str:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return f"{ours.dtype}{ours.shape} against {theirs.dtype}{theirs.shape}"
    where = np.flatnonzero(ours.reshape(-1) != theirs.reshape(-1))[:5]
    return f"at {where}: {ours.reshape(-1)[where]} against {theirs.reshape(-1)[where]}"
