"""One run of a model, on the oracle, on a runtime or elsewhere, as a golden sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from karat24.delegates.protocol import Delegate, Model
from karat24.golden.goldens.manifest import ORACLE, Producer
from karat24.golden.goldens.shown import Shown, show, show_all
from karat24.golden.goldens.stream import run_hashed
from karat24.golden.provenance import machine
from karat24.golden.undefined import cleared, unchanged
from karat24.refimpl.engine import Feeds, Program, Progress, compile_graph, resolve_feeds
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.profiles import Profile, profile_for

Keep = Literal["none", "outputs", "all"]
"""Which values of a run to keep beside their hashes: of the outputs, of every tensor, or none."""


@dataclass(frozen=True)
class Observed:
    """What one run showed of a model whose layers are those of ``graph``.

    ``shown`` is what is known of each tensor that layers wrote, by index, ``tensors`` their values as far as
    they were kept; ``unreadable`` maps the others to the reason. ``shown_outputs`` and ``outputs`` are the
    corresponding records and values of the model's outputs. ``loose`` holds the tensors whose bits may depend
    on the processor.
    """

    graph: Graph
    profile: str
    producer: Producer
    shown: Mapping[int, Shown]
    shown_outputs: Mapping[int, Shown]
    tensors: Mapping[int, Array]
    outputs: Mapping[int, Array]
    unreadable: Mapping[int, str] = field(default_factory=dict)
    loose: frozenset[int] = frozenset()

    def knows(self, index: int) -> bool:
        """Whether a layer that ran writes the tensor, readable or not."""
        return index in self.shown or index in self.unreadable


def _shown_outputs(
    tensors: Mapping[int, Array], shown: Mapping[int, Shown], outputs: Mapping[int, Array]
) -> dict[int, Shown]:
    """What is known of the model's outputs; one that is a tensor of the run is hashed once."""
    return {
        index: shown[index] if values is tensors.get(index) else show(values)
        for index, values in outputs.items()
    }


def observe_oracle(
    graph: Graph,
    profile: str | Profile | None,
    feeds: Feeds,
    *,
    keep: Keep = "all",
    counted: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Observed:
    """The oracle's run of ``graph``, the layers that a runtime of ``profile`` runs.

    ``counted``: saturated values and ties are counted. Raises what compiling and running raise; a model with
    layers the oracle lacks is UnsupportedOp.
    """
    program = compile_graph(graph, profile_for(graph, profile), threads)
    outputs = frozenset(graph.outputs)
    keeps = {"none": lambda _: False, "outputs": outputs.__contains__, "all": lambda _: True}[keep]
    shown, tensors = run_hashed(program, feeds, keeps, counted, progress)
    given = {tensor.index: tensor.data for tensor in graph.tensors if tensor.data is not None}
    given.update(resolve_feeds(graph, feeds))
    loose = _loose(program)
    where = {**machine(), "numpy": np.__version__} if loose else {}
    return Observed(
        graph=graph,
        profile=program.profile.name,
        producer=Producer(ORACLE, machine=where),
        shown=shown,
        shown_outputs={i: shown[i] if i in shown else show(given[i]) for i in graph.outputs},
        tensors=tensors,
        outputs={i: values for i in graph.outputs if (values := tensors.get(i, given.get(i))) is not None},
        loose=loose,
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
    run = cleared(executed, delegate.run(model, in_order, tensors="all" if everything else "outputs"))
    if run.capture_changed:
        undisturbed = cleared(executed, delegate.run(model, in_order, tensors="outputs")).outputs
        run = unchanged(run, undisturbed) or replace(run, outputs=undisturbed)
    outputs, unreadable = run.outputs, dict(run.unreadable)
    tensors: dict[int, Array] = {}
    if run.capture_changed:
        reason = "keeping every tensor changed the runtime's own outputs"
    else:
        reason = "the runtime does not show this tensor"
        written = {index for layer in executed.layers for index in layer.outputs}
        tensors = {index: values for index, values in run.trace.tensors.items() if index in written}
    every = frozenset(index for layer in executed.layers for index in layer.outputs)
    shown, by_index = show_all(tensors), dict(zip(executed.outputs, outputs, strict=True))
    probe = delegate.probe()
    return Observed(
        graph=executed,
        profile=delegate.profile,
        producer=Producer(
            delegate.name, f"{probe.library} {probe.version}", {} if delegate.profile else dict(machine())
        ),
        shown=shown,
        shown_outputs=_shown_outputs(tensors, shown, by_index),
        tensors=tensors,
        outputs=by_index,
        unreadable={index: unreadable.get(index, reason) for index in every - tensors.keys()},
        loose=frozenset() if delegate.profile else every,
    )


def observe_recorded(
    graph: Graph,
    profile: str,
    found: Mapping[int, Array],
    unreadable: Mapping[int, str],
    counted: bool = False,
) -> Observed:
    """Values of a run elsewhere, by tensor index, as a run of the layers of ``graph``."""
    every = frozenset(index for layer in graph.layers for index in layer.outputs)
    tensors = {index: values for index, values in found.items() if index in every}
    outputs = {index: tensors[index] for index in graph.outputs if index in tensors}
    shown = show_all(tensors, counted)
    return Observed(
        graph=graph,
        profile=profile,
        producer=Producer("recording"),
        shown=shown,
        shown_outputs=_shown_outputs(tensors, shown, outputs),
        tensors=tensors,
        outputs=outputs,
        unreadable={
            index: unreadable.get(index, "the recording holds no values of this tensor")
            for index in every - tensors.keys()
        },
    )
