"""Single layers: the slow definition of each op against every lane of the runtimes it describes.

The cases are placed on ties, saturation, odd zero points and tail sizes; one value that differs fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from karat24.delegates import Delegate, delegate_named
from karat24.golden.undefined import cleared
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Profile, Rule, profile_named
from tests.cases import (
    activations,
    convolution,
    copies,
    detections,
    elementwise,
    glue,
    hybrid,
    hybrid_products,
    int4_filters,
    int16_layers,
    int16_weighted,
    lstm,
    matrices,
    pooling,
    quantization,
    quotients,
    recurrent,
    resize_bilinear,
    slicing,
    small_products,
    sums,
    tables,
    unary,
)
from tests.cases.case import Case
from tests.support.runtimes import Runtimes, available
from tests.support.together import run_together

MODULES: Mapping[str, Callable[[], Sequence[Case]]] = {
    "activations": activations.cases,
    "convolution": convolution.cases,
    "copies": copies.cases,
    "detections": detections.cases,
    "elementwise": elementwise.cases,
    "glue": glue.cases,
    "hybrid": hybrid.cases,
    "hybrid_products": hybrid_products.cases,
    "lstm": lstm.cases,
    "matrices": matrices.cases,
    "int16_layers": int16_layers.cases,
    "int16_weighted": int16_weighted.cases,
    "int4_filters": int4_filters.cases,
    "pooling": pooling.cases,
    "small_products": small_products.cases,
    "sums": sums.cases,
    "quotients": quotients.cases,
    "quantization": quantization.cases,
    "recurrent": recurrent.cases,
    "resize_bilinear": resize_bilinear.cases,
    "slicing": slicing.cases,
    "tables": tables.cases,
    "unary": unary.cases,
}

LANES = ("litert-ref", "litert-builtin", "litert-xnnpack")
OLD_LANES = ("tflite-2.14-ref", "tflite-2.14-builtin")

AT_ONCE = 24
"""Cases in one model: its layers are run one after the other, each on inputs of its own."""

NOT_IN_OLD = "Didn't find op for builtin opcode"
"""What tflite-runtime 2.14 says of an op, or a version of one, that a lane of it does not list."""

OLD_FAULTS = {
    "fill-uint8-two dimensions": "it does not fill with uint8",
    **{
        f"reverse_v2-{dtype}-rows and columns": "it reverses one axis"
        for dtype in ("uint8", "int32", "float32")
    },
}
"""Cases that both lanes of tflite-runtime 2.14 refuse or get wrong, with the reason."""


@cache
def _cases(module: str) -> tuple[Case, ...]:
    return tuple(MODULES[module]())


@pytest.mark.parametrize("module", MODULES)
def test_cases_are_told_apart(module: str) -> None:
    names = [str(case) for case in _cases(module)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("module", MODULES)
def test_spec_equals_runtime(module: str, lane: str, runtimes: Runtimes) -> None:
    cases = [case for case in _cases(module) if _excuse(case, lane) is None]
    differences = [found for found in _differences(cases, runtimes(lane)).values() if found]
    assert not differences, f"{len(differences)} of {len(cases)} cases\n" + "\n".join(differences[:20])


@pytest.mark.parametrize("lane", OLD_LANES)
@pytest.mark.parametrize("module", MODULES)
def test_spec_equals_older_runtime(module: str, lane: str, runtimes: Runtimes) -> None:
    """A lane may not list an op's version; of the cases it runs, every value is the same."""
    runtime = available(runtimes(lane))
    cases = [case for case in _cases(module) if _excuse(case, lane) is None]
    found = _differences(cases, runtime)
    unlisted = [name for name, difference in found.items() if NOT_IN_OLD in difference]
    differences = [text for name, text in found.items() if text and name not in unlisted]
    assert not differences, f"{len(differences)} of {len(cases)} cases\n" + "\n".join(differences[:20])
    assert len(unlisted) < 0.2 * len(cases)


REFUSED_BY_TFLM = (
    "RuntimeError", "died of SIGABRT", "has no rule for", "profile tflm says nothing of",
    "the runtime of profile tflm",
)  # fmt: skip
"""How TensorFlow Lite Micro says that it does not run a layer, and karat24 that none fits."""

FAULTS_OF_TFLM = {
    **{
        f"add_int32_{kind}_relu6-unquantized": "it forgets the activation of an int32 sum"
        for kind in ("same", "channel", "scalar")
    },
    **{
        f"detections-{count} of equal classes": "it writes behind its outputs and dies of it"
        for count in (8, 9)
    },
    "svdf-one value of memory, no bias": "it dies of an SVDF without a bias",
}


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("hybrid")])
def test_spec_equals_micro_runtime(module: str, runtimes: Runtimes) -> None:
    """TensorFlow Lite Micro runs fewer ops and types, none of float32 data with an int8 filter; of the cases
    it runs, every value is the same."""
    runtime = available(runtimes("tflm"))
    cases = [case for case in _cases(module) if str(case) not in FAULTS_OF_TFLM]
    found = _differences(cases, runtime, at_once=1)  # it refuses most models, and dies of some
    ran = {name: text for name, text in found.items() if not any(words in text for words in REFUSED_BY_TFLM)}
    differences = [text for text in ran.values() if text]
    assert not differences, f"{len(differences)} of {len(cases)} cases\n" + "\n".join(differences[:20])
    assert len(ran) > 0.1 * len(cases)


@pytest.mark.parametrize("lane", LANES + OLD_LANES)
def test_what_is_called_broken_is(lane: str, runtimes: Runtimes) -> None:
    """A case excused from a lane, with its reason, really fails there: no excuse outlives its cause."""
    runtime = available(runtimes(lane))
    excused = [case for module in MODULES for case in _cases(module) if _excuse(case, lane) is not None]
    found = _differences(excused, runtime, at_once=1)  # what writes behind its outputs may not spoil others
    assert [name for name, difference in found.items() if not difference] == []


def test_ties_tell_roundings_apart() -> None:
    """The convolution cases can fail: each pair of profiles disagrees on some value of some case."""
    profiles = ("litert-2.3-ref", "litert-2.3-builtin", "litert-2.3-xnnpack")
    ops = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
    pairs = {(op, pair) for op in ops for pair in combinations(profiles, 2)}
    for case in _cases("convolution"):
        op = case.graph.view(0).op
        results = {profile: _spec(case, profile)[0] for profile in profiles}
        pairs -= {(op, (a, b)) for a, b in combinations(profiles, 2) if (results[a] != results[b]).any()}
    assert not pairs


SILENT = {"litert-2.3-ref": {"hybrid": 4}, "litert-2.3-builtin": {"hybrid": 4}, "litert-2.3-xnnpack": {}}
"""Cases of each module about which a profile of x86-64 says that it is not known what the runtime gives."""


@pytest.mark.parametrize("name", SILENT)
def test_few_cases_are_excused_as_unknown(name: str) -> None:
    """A profile that falls silent about more would empty the tests above without a word."""
    profile = profile_named(name)
    silent = {
        module: sum(bool(profile.silence(c.graph.view(0))) for c in _cases(module)) for module in MODULES
    }
    assert {module: count for module, count in silent.items() if count} == SILENT[name]


def _excuse(case: Case, lane: str) -> str | None:
    """Why a lane is not held to a case: its fault, or what its profile says that nobody knows."""
    fault = case.broken_in.get(lane) or (OLD_FAULTS.get(str(case)) if lane in OLD_LANES else None)
    return fault or _profile(lane).silence(case.graph.view(0)) or None


@cache
def _profile(lane: str) -> Profile:
    with delegate_named(lane) as delegate:
        return profile_named(delegate.profile)


def _differences(cases: Sequence[Case], runtime: Delegate, at_once: int = AT_ONCE) -> dict[str, str]:
    """How each case's definition differs from the runtime, or what the runtime says; empty where equal."""
    found = {}
    for case, answer in zip(cases, run_together(runtime, cases, at_once), strict=True):
        found[str(case)] = ""
        if isinstance(answer, Exception):
            found[str(case)] = f"{case}: {answer}"
            continue
        try:
            outputs = _spec(case, runtime.profile)
        except UnsupportedOp as error:
            found[str(case)] = f"{case}: {error}"
            continue
        for ours, theirs in zip(outputs, cleared(case.graph, answer).outputs, strict=True):
            if not _identical(ours, theirs):
                found[str(case)] = f"{case}: {_describe(ours, theirs)}"
    return found


def _spec(case: Case, profile: str) -> tuple[Array, ...]:
    return _outputs(case, profile_named(profile).rule(case.graph.view(0)))


@cache  # most profiles have one rule for a layer
def _outputs(case: Case, rule: Rule) -> tuple[Array, ...]:
    view = case.graph.view(0)
    OPS[view.op].check(view)
    fed = dict(zip(case.graph.inputs, case.feeds, strict=True))
    values = [None if t is None else fed.get(t.index, t.data) for t in view.inputs]
    return OPS[view.op].spec(view, values, rule).outputs


def _identical(ours: Array, theirs: Array) -> bool:
    """Same type, shape and bits; the sign of a zero counts."""
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def _describe(ours: Array, theirs: Array) -> str:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return f"{ours.dtype}{ours.shape} against {theirs.dtype}{theirs.shape}"
    where = np.flatnonzero(ours.reshape(-1) != theirs.reshape(-1))[:5]
    return f"at {where}: {ours.reshape(-1)[where]} against {theirs.reshape(-1)[where]}"
