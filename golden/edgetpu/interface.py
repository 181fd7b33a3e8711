"""Inputs, outputs and CPU layers of a compiled model against the source's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from karat24.export.edgetpu import CompiledModel, CompiledOp, IoLayer
from karat24.export.edgetpu.schema import ZERO_POINT_OFFSET
from karat24.golden.edgetpu.finding import Finding, Value
from karat24.golden.edgetpu.mapping import Mapping
from karat24.refimpl.graph import Graph, LayerView, Tensor

VARIABLE = "_variable_output"
"""The end of the name of an output that keeps an LSTM's state and is not a tensor of the graph."""

Checked = tuple[str, str, Value, Value]
"""A field, where it stands, the source's value and the compiled file's."""


def check_interface(
    source: Graph, models: tuple[CompiledModel, ...], mapping: Mapping
) -> tuple[int, list[Finding]]:
    """How many values agree, and those that do not."""
    named = {tensor.name: tensor for tensor in reversed(source.tensors)}
    checked: list[Checked] = []
    for model in models:
        for index in (*model.graph.inputs, *model.graph.outputs):
            tensor = model.graph.tensors[index]
            if tensor.name in named:
                checked += _tensor(named[tensor.name], tensor)
        for op in model.ops:
            checked += _op(op, named)
    findings = [
        Finding(field, where, wanted, found) for field, where, wanted, found in checked if wanted != found
    ]
    return len(checked) - len(findings), [*mapping.findings, *findings, *_whole(source, models)]


def _whole(source: Graph, models: tuple[CompiledModel, ...]) -> Iterator[Finding]:
    """Every graph input and output of the source must be one of a compiled file."""
    for role, indices in (("inputs", source.inputs), ("outputs", source.outputs)):
        names = {m.graph.tensors[i].name for m in models for i in getattr(m.graph, role)}
        for index in indices:
            name = source.tensors[index].name
            if name not in names:
                yield Finding("name", f"graph {role}", name, None)


def _numbers(where: str, wanted: Tensor, found: Tensor) -> Iterator[Checked]:
    a, b = wanted.quantization, found.quantization
    yield "scale", where, None if a is None else str(a.scale), None if b is None else str(b.scale)
    yield (
        "zero point",
        where,
        None if a is None else str(a.zero_point),
        None if b is None else str(b.zero_point),
    )


def _tensor(wanted: Tensor, found: Tensor) -> Iterator[Checked]:
    where = f"tensor {wanted.name!r}"
    yield "shape", where, str(wanted.shape), str(found.shape)
    yield "type", where, wanted.dtype, found.dtype
    yield from _numbers(where, wanted, found)


def _op(op: CompiledOp, named: dict[str, Tensor]) -> Iterator[Checked]:
    """The custom op's tensors, and the layers of its executable that stand for them."""
    layers = op.package.main
    outputs = [layer for layer in layers.outputs if not layer.name.endswith(VARIABLE)]
    for tensors, found in ((op.view.inputs, layers.inputs), (op.view.outputs, outputs)):
        given = [tensor for tensor in tensors if tensor is not None]
        yield "number of inputs or outputs", "executable", len(given), len(found)
        for tensor, layer in zip(given, found, strict=False):
            yield "name", "executable", tensor.name, layer.name
            if tensor.name in named:
                yield from _tensor(named[tensor.name], tensor)
                yield from _layer(named[tensor.name], layer)


def _layer(tensor: Tensor, layer: IoLayer) -> Iterator[Checked]:
    where = f"executable's {tensor.name!r}"
    elements = math.prod(layer.shape) * layer.executions
    batched = elements * tensor.shape[0] if tensor.shape else elements
    if math.prod(tensor.shape) not in (elements, batched):
        yield "shape", where, str(tensor.shape), str(layer.shape)
    yield "type", where, tensor.dtype, layer.dtype
    numbers = tensor.quantization
    if numbers is not None and not numbers.per_channel:
        yield "scale", where, tensor.scale, layer.scale
        offset = ZERO_POINT_OFFSET.get(layer.dtype, 0)
        yield "zero point", where, tensor.zero_point + offset, layer.zero_point


def check_cpu_layer(wanted: LayerView, found: LayerView) -> tuple[int, list[Finding]]:
    """A layer left on the CPU: op, attributes, constants and outputs; how many agree, and the others."""
    checked: list[Checked] = [("op", "", wanted.op, found.op)]
    names = sorted({*wanted.layer.attributes, *found.layer.attributes})
    for name in names:
        stored = [repr(view.layer.attributes.get(name)) for view in (wanted, found)]
        checked.append((f"attribute {name}", "", stored[0], stored[1]))
    checked.append(("number of inputs", "", len(wanted.inputs), len(found.inputs)))
    checked.append(("number of outputs", "", len(wanted.outputs), len(found.outputs)))
    pairs = [
        *zip(wanted.inputs, found.inputs, strict=False),
        *zip(wanted.outputs, found.outputs, strict=False),
    ]
    for a, b in pairs:
        if a is None or b is None:
            checked.append(("input", "", None if a is None else a.name, None if b is None else b.name))
            continue
        checked.append(("name of an input or output", "", a.name, b.name))
        checked += _tensor(a, b)
        checked += _constants(a, b)
    findings = [Finding(field, where, a, b) for field, where, a, b in checked if a != b]
    return len(checked) - len(findings), findings


def _constants(wanted: Tensor, found: Tensor) -> Iterator[Checked]:
    if wanted.data is None or found.data is None:
        yield "constant", f"tensor {wanted.name!r}", wanted.is_constant, found.is_constant
    elif wanted.data.shape == found.data.shape and wanted.data.dtype == found.data.dtype:
        width = wanted.data.dtype.itemsize
        a, b = (
            np.ascontiguousarray(data).reshape(-1).view(f"u{width}") for data in (wanted.data, found.data)
        )
        differing = np.flatnonzero(a != b)
        first = int(differing[0]) if differing.size else 0
        where = f"tensor {wanted.name!r}, {differing.size} of {a.size} values, first at {first}"
        values = (
            (wanted.data.reshape(-1)[first].item(), found.data.reshape(-1)[first].item())
            if a.size
            else (0, 0)
        )
        yield "constant", where, *(values if differing.size else (0, 0))
