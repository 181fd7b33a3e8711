"""``xnnpack_takes`` says of every layer what ``_get_ops_details`` says."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from karat24.delegates import DelegateRun
from karat24.export.tflite import read_tflite, write_tflite
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.profiles.tflite.xnnpack import xnnpack_takes
from tests.cases.xnnpack_cases import all_cases
from tests.shared_models import CUT_BEFORE_CUSTOM, NOT_RUNNABLE, model_names, require
from tests.support.runtimes import Runtimes, available

CASES = all_cases()
REFUSAL = "TfLiteXNNPackDelegate"
"""In the message when XNNPACK took a layer and then could not run it: the whole model is refused."""


def feeds_for(graph: Graph) -> list[Array]:
    """Zeros, but for a shape, which must be the output's."""
    output = graph.tensors[graph.outputs[0]].shape
    feeds = []
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if tensor.dtype == "int32" and tensor.shape in ((2,), (4,)) and len(output) == 4:
            feeds.append(np.array(output if tensor.shape == (4,) else output[1:3], np.int32))
        else:
            feeds.append(np.zeros(tensor.shape, tensor.dtype))
    return feeds


@pytest.fixture(scope="module")
def taken(runtimes: Runtimes) -> dict[str, bool | str]:
    """What LiteRT does with each case: delegates it or not, or the error it raises."""
    jobs = ((write_tflite(graph), feeds_for(graph)) for graph in CASES.values())
    answers = list(available(runtimes("litert-xnnpack")).run_many(jobs))
    found: dict[str, bool | str] = {}
    for name, answer in zip(CASES, answers, strict=True):
        if isinstance(answer, DelegateRun):
            found[name] = bool(answer.delegated)
        else:
            found[name] = True if REFUSAL in str(answer) else str(answer)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_single_layer(name: str, taken: dict[str, bool | str]) -> None:
    assert taken[name] is xnnpack_takes(CASES[name].view(0))


def test_the_cases_lie_on_both_sides(taken: dict[str, bool | str]) -> None:
    """Of every op that is ever taken, in every element type, some case is not."""
    answers = defaultdict(set)
    for name, graph in CASES.items():
        layer = graph.view(0)
        if layer.output().dtype in ("int8", "uint8"):
            answers[layer.op, layer.output().dtype].add(taken[name])
    always = {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "TRANSPOSE", "TANH", "SUM"}
    one_sided = {op for (op, _), found in answers.items() if found == {True}}
    assert one_sided == always


def test_a_layer_refused_after_being_taken_refuses_the_model(runtimes: Runtimes) -> None:
    """A max-pool between different parameters: LiteRT fails instead of falling back."""
    graph = CASES["pool int8: MAX_POOL_2D to another scale"]
    runtime = available(runtimes("litert-xnnpack"))
    with pytest.raises(DelegateError, match=REFUSAL):
        runtime.run(write_tflite(graph), feeds_for(graph))


@pytest.mark.parametrize("name", [n for n in model_names() if n not in {**NOT_RUNNABLE, **CUT_BEFORE_CUSTOM}])
def test_every_layer_of_a_public_model(name: str, runtimes: Runtimes) -> None:
    path = require(name)
    graph = read_tflite(path)
    run = runtimes("litert-xnnpack").run(path, feeds_for(graph))
    predicted = {layer.index for layer in graph.layers if xnnpack_takes(graph.view(layer))}
    assert run.delegated == predicted
    assert not run.capture_changed
    assert not run.unreadable
