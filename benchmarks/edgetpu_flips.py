"""Single bits changed in a source, or in what the Edge TPU's compiler made of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np

from karat24.export.edgetpu import CompiledModel
from karat24.golden.edgetpu import Proof
from karat24.refimpl.graph import Array, Graph, LayerView, Tensor

NUMBERS = ("filter scale", "filter zero point", "scale", "zero point")
KINDS = ("weight", "bias", *NUMBERS, "parameters", "stage")

STAGE_FIELDS = {
    "multiplier": (0, 29, 32),
    "upper": (0, 61, 32),
    "lower": (0, 93, 32),
    "channels": (0, 14, 12),
    "constant": (0, 125, 32),
    "output zero point": (1, 29, 8),
    "input zero point": (-1, 78, 8),
    "filter zero point": (-1, 62, 8),
}
"""Instruction relative to a stage's, first bit and number of bits."""


@dataclass(frozen=True)
class Flip:
    """The pair after the change. ``layers`` are those it touches; ``words`` must be in a finding."""

    source: Graph
    compiled: CompiledModel
    layers: frozenset[int]
    kind: str
    words: str
    about: str


def draw(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip:
    """One change, at random, that something in the pair must show."""
    while True:
        kind = rng.choice(KINDS)
        if kind == "parameters":
            return in_parameters(rng, source, compiled, proof)
        if kind == "stage":
            flip = in_stage(rng, source, compiled, proof)
        elif kind in ("weight", "bias"):
            return in_constant(rng, kind, source, compiled, proof)
        else:
            flip = in_numbers(rng, kind, source, compiled, proof)
        if flip is not None:
            return flip


def weighted(source: Graph, proof: Proof) -> list[LayerView]:
    views = [source.view(layer.layer) for layer in proof.layers if layer.verdict != "on_cpu"]
    return [view for view in views if view.op in ("CONV_2D", "DEPTHWISE_CONV_2D")]


def with_tensor(graph: Graph, tensor: Tensor) -> Graph:
    return replace(graph, tensors=tuple(tensor if t.index == tensor.index else t for t in graph.tensors))


def in_constant(rng: random.Random, kind: str, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip:
    view = rng.choice(weighted(source, proof))
    tensor = view.input(1 if kind == "weight" else 2)
    values: Array = tensor.data.copy().reshape(-1)
    bits = values.view(f"u{values.itemsize}")
    place, bit = rng.randrange(values.size), rng.randrange(8 * values.itemsize)
    bits[place] ^= np.array(1 << bit, bits.dtype)
    changed = replace(tensor, data=values.reshape(tensor.shape))
    channel = np.unravel_index(place, tensor.shape)[-1 if view.op == "DEPTHWISE_CONV_2D" else 0]
    about = f"bit {bit} of item {place} of {tensor.name!r}"
    return Flip(
        with_tensor(source, changed),
        compiled,
        frozenset({view.layer.index}),
        kind,
        f"channel {channel}",
        about,
    )


def in_numbers(
    rng: random.Random, kind: str, source: Graph, compiled: CompiledModel, proof: Proof
) -> Flip | None:
    """A scale or zero point; None where the value cannot be one, or nothing that is compiled follows from
    it: float32 rounding may swallow the last bit of a scale."""
    if kind.startswith("filter"):
        view = rng.choice(weighted(source, proof))
        tensor = view.input(1)
    else:
        view = source.view(rng.choice([layer.layer for layer in proof.layers if layer.verdict != "on_cpu"]))
        tensor = rng.choice(
            [
                t
                for t in (*view.inputs, *view.outputs)
                if t is not None and not t.is_constant and t.quantization
            ]
        )
    quantization = tensor.quantization
    item = rng.randrange(len(quantization.scale))
    if kind.endswith("scale"):
        bit = rng.randrange(32)
        scale = (np.array(quantization.scale[item], "f4").view("u4") ^ np.uint32(1 << bit)).view("f4")
        if not (np.isfinite(scale) and scale > 0):
            return None
        scales = (*quantization.scale[:item], float(scale), *quantization.scale[item + 1 :])
        quantization = replace(quantization, scale=scales)
    else:
        bit = rng.randrange(8)
        zero_point = np.array(quantization.zero_point[item]).astype(tensor.dtype).view("u1") ^ np.uint8(
            1 << bit
        )
        points = list(quantization.zero_point)
        points[item] = int(zero_point.view(tensor.dtype))
        quantization = replace(quantization, zero_point=tuple(points))
    changed = with_tensor(source, replace(tensor, quantization=quantization))
    if kind.endswith("scale") and consequences(changed) == consequences(source):
        return None
    layers = {w.layer.index for w in source.views() if tensor in w.inputs or tensor in w.outputs}
    about = f"bit {bit} of {kind} {item} of {tensor.name!r}"
    return Flip(changed, compiled, frozenset(layers), kind, "", about)


@np.errstate(over="ignore")
def consequences(graph: Graph) -> list[bytes]:
    """All a compiled file can hold of a graph's scales: multipliers, ratios, clamps, and the ends' own."""
    found = [np.array(graph.tensors[i].quantization.scale, "f4").tobytes() for i in graph.inputs]
    for view in graph.views():
        if any(t is None or t.quantization is None for t in (*view.inputs[:1], *view.outputs)):
            continue
        scale, inverse = np.float32(view.output().scale), np.float32(1) / np.float32(view.output().scale)
        found += [
            (np.float32(end) * scale * inverse).tobytes() for end in (-255, 6, 255, view.output().zero_point)
        ]
        for tensor in view.inputs:
            if tensor is not None and tensor.quantization is not None and not tensor.is_constant:
                found.append((np.float32(tensor.scale) * inverse).tobytes())
                if view.op == "ADD":
                    found.append(np.float32(tensor.scale).tobytes())
        if view.op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            scales = np.array(view.input(1).quantization.scale, "f4")
            found.append((np.float32(view.input(0).scale) * scales * inverse).tobytes())
    return found


def in_parameters(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip:
    (op,) = compiled.ops
    number = next(n for n, e in enumerate(op.package.executables) if e.parameters)
    content = bytearray(op.package.executables[number].parameters)
    place, bit = rng.randrange(len(content)), rng.randrange(8)
    content[place] ^= 1 << bit
    layers = frozenset(
        layer.layer
        for layer in proof.layers
        if any(p.blob == number and p.start <= place < p.stop for p in layer.parameters)
    )
    about = f"bit {bit} of parameter byte {place}"
    changed = with_executable(compiled, number, parameters=bytes(content))
    return Flip(source, changed, layers, "parameters", "byte", about)


def in_stage(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip | None:
    """A bit of a stage's field; None for the second zero point where the layer predicts none."""
    layer = rng.choice([layer for layer in proof.layers if layer.stages])
    instruction = rng.choice(layer.stages)
    name = rng.choice(list(STAGE_FIELDS))
    if name == "filter zero point":
        filter_ = source.view(layer.layer).optional_input(1)
        if layer.op not in ("CONV_2D", "DEPTHWISE_CONV_2D") or filter_.quantization.per_channel:
            return None
    if name == "input zero point" and layer.op not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return None
    offset, first, count = STAGE_FIELDS[name]
    bit = 128 * (instruction + offset) + first + rng.randrange(count)
    (op,) = compiled.ops
    number = next(n for n, e in enumerate(op.package.executables) if e.type != "PARAMETER_CACHING")
    (stream,) = op.package.executables[number].instructions
    content = bytearray(stream)
    content[bit // 8] ^= 1 << bit % 8
    layers = frozenset(other.layer for other in proof.layers if instruction in other.stages)
    about = f"bit {bit % 128} near instruction {instruction}, {name} of layer {layer.layer} ({layer.op})"
    changed = with_executable(compiled, number, instructions=(bytes(content),))
    return Flip(source, changed, layers, "stage", f"instruction {instruction}", about)


def with_executable(compiled: CompiledModel, number: int, **changes: object) -> CompiledModel:
    (op,) = compiled.ops
    executables = list(op.package.executables)
    executables[number] = replace(executables[number], **changes)
    package = replace(op.package, executables=tuple(executables))
    return replace(compiled, ops=(replace(op, package=package),))
