"""Small graphs run together: one model of many layers, none of which reads another graph's values.

A runtime takes milliseconds to open a model and microseconds to run a small layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from karat24.delegates import Delegate, DelegateRun
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import DelegateError
from karat24.refimpl.graph import Graph
from karat24.refimpl.trace import Trace
from tests.cases.case import Case


def run_together(
    runtime: Delegate, cases: Sequence[Case], at_once: int
) -> Iterator[DelegateRun | DelegateError]:
    """The outputs of each case in turn, or what the runtime says of it, from models of ``at_once`` cases.

    Where a runtime refuses a model or dies of it, its halves are run, down to the one case that is to blame.
    """
    groups = [tuple(cases[first : first + at_once]) for first in range(0, len(cases), at_once)]
    jobs = ((model_of(group), [feed for case in group for feed in case.feeds]) for group in groups)
    for group, answer in zip(groups, runtime.run_many(jobs), strict=True):
        if isinstance(answer, DelegateRun):
            outputs = iter(answer.outputs)
            for case in group:
                own = tuple(next(outputs) for _ in case.graph.outputs)
                yield DelegateRun(Trace(answer.trace.producer, answer.trace.profile, {}), own)
        elif len(group) == 1:
            yield answer
        else:
            yield from run_together(runtime, group, (len(group) + 1) // 2)


@cache  # each lane runs the same files
def model_of(group: tuple[Case, ...]) -> bytes:
    """The file of the cases' graphs together."""
    return write_tflite(group[0].graph if len(group) == 1 else joined([case.graph for case in group]))


def joined(graphs: Sequence[Graph]) -> Graph:
    """The graphs side by side: inputs and outputs are those of the first, then those of the next."""
    tensors, layers = [], []
    inputs: list[int] = []
    outputs: list[int] = []
    for number, graph in enumerate(graphs):
        first = len(tensors)

        def moved(indices: Sequence[int], first: int = first) -> tuple[int, ...]:
            return tuple(index if index < 0 else first + index for index in indices)

        tensors += [replace(t, index=first + t.index, name=f"{number}/{t.name}") for t in graph.tensors]
        for layer in graph.layers:
            ends = {
                "inputs": moved(layer.inputs),
                "outputs": moved(layer.outputs),
                "intermediates": moved(layer.intermediates),
            }
            layers.append(replace(layer, index=len(layers), **ends))
        inputs += moved(graph.inputs)
        outputs += moved(graph.outputs)
    return Graph(tuple(tensors), tuple(layers), tuple(inputs), tuple(outputs))
