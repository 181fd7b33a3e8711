"""Observing a float network over a representative dataset.

The network runs as ONNX on ONNX Runtime, one thread and one sample at a time, so that the same
dataset gives the same ranges bit for bit on the same kind of machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from karat24.export.onnx.layout import from_onnx_layout, onnx_names, to_onnx_layout
from karat24.export.onnx.writing.float_graph import write_float_onnx
from karat24.export.quantize.affine import Range
from karat24.export.quantize.histogram import Histogram
from karat24.export.quantize.ranges import choose_range
from karat24.export.quantize.scheme import RangeMethod, RangeMethodName
from karat24.refimpl.errors import FeedError, ModelError, UsageError
from karat24.refimpl.graph import Array, Graph

Ranges: TypeAlias = Mapping[int, Range]
"""Tensor index to the range of its real values."""

EXPOSED_BYTES = 256 * 2**20
"""Activations held at once. A network with more is run several times, part of its tensors exposed in
each, so that memory does not grow with its depth."""


def calibrate(
    graph: Graph,
    samples: Iterable[Array],
    method: RangeMethod | RangeMethodName = "minmax",
    symmetric: bool = False,
) -> dict[int, Range]:
    """The range of every activation of a float32 graph over ``samples``.

    ``samples`` yields floating-point arrays of the input's shape (NHWC), scaled as the network expects
    them; it is iterated once and may be a generator. ``symmetric``: ranges are chosen for zero point 0.

    Raises FeedError naming the sample and the tensor for a wrong shape or dtype, NaN or infinity, or an
    empty dataset; ModelError or UnsupportedOp for a graph that is not float32 or cannot be exported;
    UsageError when onnx or onnxruntime is missing.
    """
    if not isinstance(method, RangeMethod):
        method = RangeMethod(method)
    return {
        index: choose_range(histogram, method, symmetric)
        for index, histogram in observe(graph, samples).items()
    }


def observe(graph: Graph, samples: Iterable[Array]) -> dict[int, Histogram]:
    """The histogram of every activation, by tensor index, over ``samples``; see :func:`calibrate`.

    Observing once and choosing ranges by several methods costs one run of the dataset.
    """
    seen = {tensor.index: Histogram() for tensor in graph.tensors if not tensor.is_constant}
    for index, values in each_activation(graph, samples):
        seen[index].add(values)
    return seen


def each_activation(
    graph: Graph, samples: Iterable[Array], wanted: Collection[int] | None = None
) -> Iterator[tuple[int, Array]]:
    """Index and values of every activation (or those ``wanted``) for each sample, four-dimensional ones in
    ONNX's layout ``[batch, channel, y, x]``. Errors as for :func:`calibrate`."""
    if len(graph.inputs) != 1:
        raise ModelError(f"{graph.name!r} has {len(graph.inputs)} inputs; only one-input graphs calibrate")
    (input_index,) = graph.inputs
    runs = _sessions(graph, wanted)
    names = onnx_names(graph)
    number = -1
    for number, sample in enumerate(tqdm(samples, "calibrating", delay=1, leave=False, disable=None)):
        given = to_onnx_layout(_checked(graph, input_index, sample, number))
        if wanted is None or input_index in wanted:
            yield input_index, given
        feed = {names[input_index]: given}
        for indices, session in runs:
            outputs = session.run([names[index] for index in indices], feed)
            for index, values in zip(indices, outputs, strict=True):
                if not np.isfinite(values).all():
                    raise FeedError(
                        f"sample {number} makes {graph.label(index)} NaN or infinite; "
                        "check the weights and how the sample is scaled"
                    )
                yield index, values
    if number < 0:
        raise FeedError("the representative dataset is empty; calibration needs at least one sample")


def run_float(graph: Graph, samples: Iterable[Array]) -> Iterator[tuple[Array, ...]]:
    """The outputs (NHWC) of a float32 graph for each sample, computed as calibration computes them."""
    run = float_runner(graph)
    for number, sample in enumerate(samples):
        yield run(sample, number)


def float_runner(graph: Graph) -> Callable[..., tuple[Array, ...]]:
    """A float32 graph ready on ONNX Runtime: a function of one sample (NHWC) to the outputs (NHWC).

    Its second argument, the sample's number, only serves error messages.
    """
    (input_index,) = graph.inputs
    names = onnx_names(graph)
    session = _session(write_float_onnx(graph))

    def run(sample: Array, number: int = 0) -> tuple[Array, ...]:
        given = to_onnx_layout(_checked(graph, input_index, sample, number))
        outputs = session.run([names[index] for index in graph.outputs], {names[input_index]: given})
        return tuple(np.ascontiguousarray(from_onnx_layout(values)) for values in outputs)

    return run


def _checked(graph: Graph, index: int, sample: Array, number: int) -> Array:
    """The sample as float32. Raises FeedError when it is not what the input takes."""
    where = f"sample {number} for {graph.label(index)}"
    shape = graph.tensors[index].shape
    sample = np.asarray(sample)
    if sample.dtype.kind != "f":
        raise FeedError(f"{where} is {sample.dtype}; give floating-point values scaled for the network")
    if sample.shape != shape:
        raise FeedError(f"{where} has shape {list(sample.shape)}, not {list(shape)}")
    with np.errstate(over="ignore"):
        sample = np.ascontiguousarray(sample, dtype=np.float32)
    if not np.isfinite(sample).all():
        raise FeedError(f"{where} holds NaN or infinite values")
    return sample


def _sessions(graph: Graph, wanted: Collection[int] | None = None) -> list[tuple[tuple[int, ...], Any]]:
    """Runs that together compute every activation (or those ``wanted``), none holding more than
    ``EXPOSED_BYTES`` unless a single tensor is larger: the tensor indices each reads, and its session."""
    computed = [
        index for layer in graph.layers for index in layer.outputs if wanted is None or index in wanted
    ]
    return [
        (group, _session(write_float_onnx(graph, expose=group)))
        for group in _groups(graph, computed, EXPOSED_BYTES)
    ]


def _groups(graph: Graph, indices: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    group: list[int] = []
    held = 0
    for index in indices:
        size = 4 * math.prod(graph.tensors[index].shape)
        if group and held + size > limit:
            yield tuple(group)
            group, held = [], 0
        group.append(index)
        held += size
    if group:
        yield tuple(group)


def _session(model: bytes) -> Any:
    """An ONNX Runtime session whose sums always come out in the same order."""
    try:
        import onnxruntime
    except ImportError as missing:
        raise UsageError("calibration needs ONNX Runtime: pip install 'karat24[onnx]'") from missing
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Without the arena, memory a run needed goes back when it ends.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
