"""One run of a model, on the oracle, on a runtime or elsewhere, as a golden sees it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from karat24.delegates.protocol import Delegate, Model
from karat24.golden.goldens.files import values_digest
from karat24.golden.goldens.manifest import ORACLE, Producer
from karat24.golden.provenance import machine
from karat24.refimpl.engine import Feeds, Program, Progress, compile_graph, resolve_feeds
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.profiles import Profile, profile_for

HASHING_THREADS = 4


@dataclass(frozen=True)
class Observed:
    """What one run showed of a model whose layers are those of ``graph``.

    ``tensors`` are what layers wrote, by index; ``unreadable`` maps the others to the reason. ``outputs`` are
    the model's own. ``loose`` holds the tensors whose bits may depend on the processor, ``accumulators`` the
    int32 sums by layer, where they were asked for.
    """

    graph: Graph
    profile: str
    producer: Producer
    tensors: Mapping[int, Array]
    outputs: Mapping[int, Array]
    unreadable: Mapping[int, str] = field(default_factory=dict)
    loose: frozenset[int] = frozenset()
    accumulators: Mapping[int, Array] = field(default_factory=dict)

    @cached_property
    def digests(self) -> Mapping[int, str]:
        """SHA-256 of each tensor's values."""
        return digests(self.tensors)

    @cached_property
    def output_digests(self) -> Mapping[int, str]:
        """SHA-256 of each output's values; an output that is a tensor of the run is read once."""
        others = {i: v for i, v in self.outputs.items() if v is not self.tensors.get(i)}
        return {index: self.digests[index] for index in self.outputs if index not in others} | digests(others)


def digests(arrays: Mapping[int, Array]) -> dict[int, str]:
    """SHA-256 of each array, several at a time: hashing lets other threads run."""
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return dict(zip(arrays, pool.map(values_digest, arrays.values()), strict=True))


def observe_oracle(
    graph: Graph,
    profile: str | Profile | None,
    feeds: Feeds,
    *,
    accumulators: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Observed:
    """The oracle's run of ``graph``, the layers that a runtime of ``profile`` runs.

    Raises what compiling and running raise; a model with layers the oracle lacks is UnsupportedOp.
    """
    program = compile_graph(graph, profile_for(graph, profile), threads)
    result = program.run(feeds, trace=True, accumulators=accumulators, progress=progress)
    assert result.trace is not None
    written = {index for layer in graph.layers for index in layer.outputs}
    tensors = {index: values for index, values in result.trace.tensors.items() if index in written}
    loose = _loose(program)
    where = {**machine(), "numpy": np.__version__} if loose else {}
    return Observed(
        graph=graph,
        profile=program.profile.name,
        producer=Producer(ORACLE, machine=where),
        tensors=tensors,
        outputs=dict(zip(graph.outputs, result.outputs, strict=True)),
        loose=loose,
        accumulators=result.trace.accumulators,
    )


def _loose(program: Program) -> frozenset[int]:
    """Outputs of layers whose bits no document fixes, and everything that follows from them."""
    found: set[int] = set()
    for step in program.steps:
        layer = step.view.layer
        if step.rule.method == "unspecified" or found.intersection(layer.inputs):
            found.update(layer.outputs)
    return frozenset(found)


def observe_delegate(
    delegate: Delegate, model: Model, graph: Graph, feeds: Feeds, everything: bool = True
) -> Observed:
    """A runtime's run of ``model``, whose reading is ``graph``; outputs are of an undisturbed run.

    Raises DelegateError where the runtime does not run the model.
    """
    executed = delegate.executed_graph(model, graph).graph
    fed = resolve_feeds(graph, feeds)
    in_order = [fed[index] for index in graph.inputs]
    run = delegate.run(model, in_order, tensors="all" if everything else "outputs")
    outputs, unreadable = run.outputs, dict(run.unreadable)
    tensors: dict[int, Array] = {}
    if run.capture_changed:
        outputs = delegate.run(model, in_order, tensors="outputs").outputs
        reason = "keeping every tensor changed the runtime's own outputs"
    else:
        reason = "the runtime does not show this tensor"
        written = {index for layer in executed.layers for index in layer.outputs}
        tensors = {index: values for index, values in run.trace.tensors.items() if index in written}
    every = frozenset(index for layer in executed.layers for index in layer.outputs)
    probe = delegate.probe()
    return Observed(
        graph=executed,
        profile=delegate.profile,
        producer=Producer(
            delegate.name, f"{probe.library} {probe.version}", {} if delegate.profile else dict(machine())
        ),
        tensors=tensors,
        outputs=dict(zip(executed.outputs, outputs, strict=True)),
        unreadable={index: unreadable.get(index, reason) for index in every - tensors.keys()},
        loose=frozenset() if delegate.profile else every,
    )


def observe_recorded(graph: Graph, profile: str, found: Mapping[int, Array]) -> Observed:
    """Values of a run elsewhere, by tensor index, as a run of the layers of ``graph``."""
    every = frozenset(index for layer in graph.layers for index in layer.outputs)
    tensors = {index: values for index, values in found.items() if index in every}
    return Observed(
        graph=graph,
        profile=profile,
        producer=Producer("recording"),
        tensors=tensors,
        outputs={index: tensors[index] for index in graph.outputs if index in tensors},
        unreadable=dict.fromkeys(every - tensors.keys(), "the recording holds no values of this tensor"),
    )
