"""Values that one run does not define, because memory held them before.

Values that an op does not write are not compared; variables start from the runtime's initial values, or from
those that the run before left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from karat24.delegates.protocol import DelegateRun
from karat24.refimpl.contract import Defined
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import DTYPES, Array, Graph, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.spec.shared.variables import is_variable


def cleared(graph: Graph, run: DelegateRun) -> DelegateRun:
    """A runtime's run of ``graph`` with 0 for each value that a layer does not write, as in the oracle's run.
    Which values these are follows from the layer's other outputs, if the run shows all of them."""
    tensors = dict(run.trace.tensors)
    outputs = dict(zip(graph.outputs, run.outputs, strict=True))
    changed = False
    for view, defined in _partly_written(graph):
        for values in (tensors, outputs):
            found = [values[tensor.index] for tensor in view.outputs if tensor.index in values]
            if [value.shape for value in found] == [tensor.shape for tensor in view.outputs]:
                for tensor, value, written in zip(view.outputs, found, defined(view, found), strict=True):
                    values[tensor.index] = np.where(written, value, value.dtype.type(0))
                changed = True
    if not changed:
        return run
    in_order = tuple(outputs[index] for index in graph.outputs)
    return replace(run, trace=replace(run.trace, tensors=tensors), outputs=in_order)


def written_only(view: LayerView, expected: Sequence[Array], position: int, found: Array) -> Array:
    """The values found of output ``position``, with the expected values in the places that the layer does not
    write when its outputs are as expected."""
    op = OPS.get(view.op)
    if op is None or op.defined is None or found.shape != expected[position].shape:
        return found
    return np.where(op.defined(view, expected)[position], found, expected[position])


def unchanged(run: DelegateRun, undisturbed: Sequence[Array]) -> DelegateRun | None:
    """The run, if only values that no layer writes differ from the outputs of an ``undisturbed`` run; None if
    the capture changed others. Both have been :func:`cleared`."""
    same = all(
        mine.shape == other.shape and mine.tobytes() == other.tobytes()
        for mine, other in zip(run.outputs, undisturbed, strict=True)
    )
    return replace(run, capture_changed=()) if same else None


def has_variables(graph: Graph) -> bool:
    """Whether values of a run may go on into the next one."""
    return any(is_variable(tensor) for tensor in graph.tensors)


def notes_on(graph: Graph, keep_state: bool = False) -> list[str]:
    """A sentence for each layer that may leave values as memory was, and one about variables: each run of a
    lane starts from the values that a runtime puts into them, or with ``keep_state`` from those that the run
    before left."""
    return [_KEPT_STATE if keep_state else _FIRST_STATE] * has_variables(graph) + [
        f"{view} leaves the places behind its detections as memory was: they are not compared"
        for view, defined in _partly_written(graph)
        if not all(written.all() for written in defined(view, _nothing(view)))
    ]


_KEPT_STATE = "the samples are one sequence: each run starts from what the run before left in the variables"
_FIRST_STATE = "each run starts from the values its variables have at first, not from those a run before left"


def _partly_written(graph: Graph) -> Iterator[tuple[LayerView, Defined]]:
    """The valid layers that may leave values of their outputs unwritten."""
    for view in graph.views() if graph.format == "tflite" else ():
        op = OPS.get(view.op)
        if op is None or op.defined is None:
            continue
        try:
            op.check(view)
        except ModelError:
            continue
        yield view, op.defined


def _nothing(view: LayerView) -> list[Array]:
    return [np.zeros(tensor.shape, DTYPES[tensor.dtype]) for tensor in view.outputs]
