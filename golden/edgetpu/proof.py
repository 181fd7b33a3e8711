"""Proving, without the device, that a compiled Edge TPU model carries its source.

The proof of a layer covers every number of the source that the compiled file holds: weights, biases,
multipliers and zero points bit for bit, the clamps its activation leaves, its channels, and that it stands
behind the layers it reads. It does not cover strides, dilation, padding and windows, which of several images
a layer reads, and what the device computes: its accumulation and rounding, and where it keeps images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from karat24.export.edgetpu import CompiledModel, is_compiled
from karat24.export.edgetpu.instructions import InstructionStream
from karat24.golden.edgetpu.consistency import contradictions
from karat24.golden.edgetpu.evidence import Evidence
from karat24.golden.edgetpu.finding import Finding, ParameterBytes, Proof
from karat24.golden.edgetpu.interface import check_cpu_layer, check_interface
from karat24.golden.edgetpu.mapping import map_layers
from karat24.golden.edgetpu.parameters import account, prove_parameters
from karat24.golden.edgetpu.placing import Blob
from karat24.golden.edgetpu.stages import prove_stages
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph


def prove(source: Graph, models: Sequence[CompiledModel]) -> Proof:
    """Holds a compiled model, or all segments of a pipeline, against the model it was compiled from.

    Raises UsageError where the source is not a .tflite file.
    """
    if source.format != "tflite":
        raise UsageError("the source of a compiled model is the .tflite that was given to the compiler")
    if is_compiled(source):
        raise UsageError("the source is compiled itself; give the .tflite that was given to the compiler")
    # A broken source's scales may leave float32's range; what follows from them then equals nothing.
    with np.errstate(all="ignore"):
        return _prove(source, tuple(models))


def _prove(source: Graph, models: tuple[CompiledModel, ...]) -> Proof:
    mapping = map_layers(source, models)
    io_proved, io = check_interface(source, models, mapping)
    layers = [Evidence(view) for view in source.views()]
    parameters: list[ParameterBytes] = []
    stages: list[int] = []
    for position, op in enumerate(mapping.ops):
        mine = [layers[index] for index, owner in sorted(mapping.device.items()) if owner == position]
        executables = op.package.executables
        blobs = [Blob(n, e.type, e.parameters) for n, e in enumerate(executables) if e.parameters]
        prove_parameters(mine, blobs, source)
        stages += prove_stages(mine, InstructionStream(op.package.main.instructions))
        parameters += [account(blob, mine) for blob in blobs]
    for layer in layers:
        index = layer.view.layer.index
        layer.attempt(partial(_check_source, layer))
        if index in mapping.cpu:
            layer.on_cpu = True
            layer.proved["values"], differing = check_cpu_layer(layer.view, mapping.cpu[index])
            layer.differs(differing)
        elif index not in mapping.device:
            layer.differs([Finding("layer", "neither on the device nor on the CPU", layer.view.op, None)])
    proofs = tuple(layer.conclude() for layer in layers)
    return Proof(proofs, tuple(io), tuple(parameters), io_proved, tuple(stages))


def _check_source(layer: Evidence) -> None:
    layer.differs(contradictions(layer.view))
