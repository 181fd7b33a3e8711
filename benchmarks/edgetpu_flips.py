"""The negative control of ``karat24 prove``: ``python -m benchmarks.edgetpu_flips`` changes single bits.

Each of 1,000 bits is changed in a public model, or in what the Edge TPU's compiler made of it, and the proof
must differ, with a finding that names the place. The tests do it for a tenth as many.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.models import public_folder
from karat24.export.edgetpu import CompiledModel, read_compiled
from karat24.export.edgetpu.instructions import FACTOR_PLACES
from karat24.export.tflite import read_tflite
from karat24.golden.edgetpu import LayerProof, Proof, prove
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import Array, Graph, LayerView, Tensor

Pair = tuple[Graph, CompiledModel]

PAIRS = (
    "mobilenet_v1_0.25_128_quant",
    "posenet_mobilenet_v1_075_353_481_16_quant_decoder",
    "deeplabv3_mnv2_dm05_pascal_quant",
)
"""Public models whose compiled form is public, too."""

SEED = 20190829

NUMBERS = ("filter scale", "filter zero point", "scale", "zero point")
KINDS = ("weight", "bias", *NUMBERS, "parameters", "stage", "factor")

STAGE_FIELDS = {
    "one multiplier per channel": (0, 0, 1),
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


@dataclass(frozen=True)
class Outcome:
    """A flip, and why the proof of it is wrong: empty where it is caught and located."""

    flip: Flip
    problem: str

    def __str__(self) -> str:
        return f"{self.flip.kind}: {self.flip.about}: {self.problem}"


def flipped(pairs: Sequence[Pair], count: int, seed: int) -> Iterator[Outcome]:
    """``count`` flips of pairs at random, each proved anew."""
    rng = random.Random(seed)
    known = [(source, compiled, prove(source, [compiled])) for source, compiled in pairs]
    for _ in range(count):
        flip = draw(rng, *rng.choice(known))
        yield Outcome(flip, not_located(flip, prove(flip.source, [flip.compiled])))


def not_located(flip: Flip, proof: Proof) -> str:
    """Empty where the proof differs, and a finding is of a layer the change touches and names its place; or
    where such a layer is no longer proved, with a reason that names the place."""
    touched_reasons = (r for layer in proof.layers if layer.layer in flip.layers for r in layer.reasons)
    if flip.kind == "stage":
        place = flip.words.split()[-1]
        if any(place in re.findall(r"\d+", reason) for reason in touched_reasons):
            return ""
    if proof.exit_code != 1:
        return f"not caught: {proof.verdict}"
    if not flip.layers:  # a byte that fills up to the next layer
        left = any(part.unexplained for part in proof.parameters)
        return "" if left else "no byte is said to belong to no layer"
    touched = [layer for layer in proof.layers if layer.layer in flip.layers and layer.verdict == "differs"]
    findings = [finding for layer in touched for finding in layer.findings]
    if flip.kind in ("scale", "zero point"):
        findings += list(proof.io)
    elsewhere = [layer.layer for layer in proof.layers if layer.verdict == "differs" and layer not in touched]
    if not findings:
        return f"located in layers {elsewhere} rather than {sorted(flip.layers)}"
    if elsewhere and flip.kind not in ("scale", "zero point"):
        return f"layers {elsewhere} differ as well"
    if any(repr(finding.source) == repr(finding.compiled) for finding in findings):  # 0.0 is not -0.0
        return "a difference between equal values"
    if not any(flip.words in finding.where for finding in findings):
        return f"no finding names {flip.words!r}: {[str(finding) for finding in findings]}"
    return ""


def draw(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip:
    """One change, at random, that something in the pair must show."""
    while True:
        kind = rng.choice(KINDS)
        if kind == "parameters":
            return _in_parameters(rng, source, compiled, proof)
        if kind == "stage":
            flip = _in_stage(rng, source, compiled, proof)
        elif kind == "factor":
            flip = _in_factor(rng, source, compiled, proof)
        elif kind in ("weight", "bias"):
            return _in_constant(rng, kind, source, compiled, proof)
        else:
            flip = _in_numbers(rng, kind, source, compiled, proof)
        if flip is not None:
            return flip


def _weighted(source: Graph, proof: Proof) -> list[LayerView]:
    views = [source.view(layer.layer) for layer in proof.layers if layer.verdict != "on_cpu"]
    return [view for view in views if view.op in ("CONV_2D", "DEPTHWISE_CONV_2D")]


def _with_tensor(graph: Graph, tensor: Tensor) -> Graph:
    return replace(graph, tensors=tuple(tensor if t.index == tensor.index else t for t in graph.tensors))


def _in_constant(rng: random.Random, kind: str, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip:
    view = rng.choice(_weighted(source, proof))
    tensor = view.input(1 if kind == "weight" else 2)
    values: Array = tensor.data.copy().reshape(-1)
    bits = values.view(f"u{values.itemsize}")
    place, bit = rng.randrange(values.size), rng.randrange(8 * values.itemsize)
    bits[place] ^= np.array(1 << bit, bits.dtype)
    changed = replace(tensor, data=values.reshape(tensor.shape))
    channel = np.unravel_index(place, tensor.shape)[-1 if view.op == "DEPTHWISE_CONV_2D" else 0]
    about = f"bit {bit} of item {place} of {tensor.name!r}"
    return Flip(
        _with_tensor(source, changed),
        compiled,
        frozenset({view.layer.index}),
        kind,
        f"channel {channel}",
        about,
    )


def _in_numbers(
    rng: random.Random, kind: str, source: Graph, compiled: CompiledModel, proof: Proof
) -> Flip | None:
    """A scale or zero point; None where the value cannot be one, or nothing that is compiled follows from
    it: float32 rounding may swallow the last bit of a scale."""
    if kind.startswith("filter"):
        view = rng.choice(_weighted(source, proof))
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
    changed = _with_tensor(source, replace(tensor, quantization=quantization))
    if kind.endswith("scale") and _consequences(changed) == _consequences(source):
        return None
    layers = {w.layer.index for w in source.views() if tensor in w.inputs or tensor in w.outputs}
    about = f"bit {bit} of {kind} {item} of {tensor.name!r}"
    return Flip(changed, compiled, frozenset(layers), kind, "", about)


@np.errstate(over="ignore")
def _consequences(graph: Graph) -> list[bytes]:
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


def _in_parameters(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip:
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
    changed = _with_executable(compiled, number, parameters=bytes(content))
    return Flip(source, changed, layers, "parameters", "byte", about)


def _in_stage(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip | None:
    layer = rng.choice([layer for layer in proof.layers if layer.stages])
    return in_field(rng, source, compiled, proof, layer, rng.choice(list(STAGE_FIELDS)))


def in_field(
    rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof, layer: LayerProof, name: str
) -> Flip | None:
    """A bit of a field of one of the layer's stages; None for a zero point that is not predicted."""
    instruction = rng.choice(layer.stages)
    if name == "filter zero point":
        filter_ = source.view(layer.layer).optional_input(1)
        if layer.op not in ("CONV_2D", "DEPTHWISE_CONV_2D") or filter_.quantization.per_channel:
            return None
    if name == "input zero point" and layer.op not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return None
    offset, first, count = STAGE_FIELDS[name]
    bit = 128 * (instruction + offset) + first + rng.randrange(count)
    layers = frozenset(other.layer for other in proof.layers if instruction in other.stages)
    about = f"bit {bit % 128} near instruction {instruction}, {name} of layer {layer.layer} ({layer.op})"
    changed = with_bit(compiled, bit)
    return Flip(source, changed, layers, "stage", f"instruction {instruction}", about)


def _in_factor(rng: random.Random, source: Graph, compiled: CompiledModel, proof: Proof) -> Flip | None:
    """A bit of one of the integers an addition scales its operands by; None where the pair has none."""
    additions = [layer for layer in proof.layers if layer.proved.get("operand factors")]
    if not additions:
        return None
    layer = rng.choice(additions)
    first = min(layer.stages)
    offset, place = rng.choice([place for places in FACTOR_PLACES for place in places])
    bit = 128 * (first + offset) + place + rng.randrange(16)
    about = f"bit {bit % 128} of instruction {first + offset}, a factor of layer {layer.layer}"
    layers = frozenset({layer.layer})
    return Flip(source, with_bit(compiled, bit), layers, "factor", f"before instruction {first}", about)


def with_bit(compiled: CompiledModel, bit: int) -> CompiledModel:
    """One bit of the instructions changed."""
    (op,) = compiled.ops
    number = next(n for n, e in enumerate(op.package.executables) if e.type != "PARAMETER_CACHING")
    (stream,) = op.package.executables[number].instructions
    content = bytearray(stream)
    content[bit // 8] ^= 1 << bit % 8
    return _with_executable(compiled, number, instructions=(bytes(content),))


def _with_executable(compiled: CompiledModel, number: int, **changes: object) -> CompiledModel:
    (op,) = compiled.ops
    executables = list(op.package.executables)
    executables[number] = replace(executables[number], **changes)
    package = replace(op.package, executables=tuple(executables))
    return replace(compiled, ops=(replace(op, package=package),))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints how many flips of each kind were caught and located; 1 where one was not, 2 without models."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edgetpu_flips", description=__doc__)
    parser.add_argument("--flips", type=int, default=1000, help="how many bits (default: 1000)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--models", type=Path, default=public_folder(), help="folder of public models")
    options = parser.parse_args(arguments)
    try:
        pairs = [read_pair(options.models, name) for name in PAIRS]
    except KaratError as error:
        print(error, file=sys.stderr)
        return 2
    kinds: Counter[str] = Counter()
    missed = []
    for outcome in flipped(pairs, options.flips, options.seed):
        kinds[outcome.flip.kind] += 1
        if outcome.problem:
            missed.append(outcome)
            print(outcome, file=sys.stderr)
    print(f"{options.flips - len(missed)} of {options.flips} flipped bits are caught and located:")
    print(", ".join(f"{count} of a {kind}" for kind, count in sorted(kinds.items())))
    return 1 if missed else 0


def read_pair(folder: Path, name: str) -> Pair:
    """Source and compiled model. Raises UsageError and ModelError."""
    place = folder / "coral" / f"{name}.tflite"
    return read_tflite(place), read_compiled(place.with_name(f"{name}_edgetpu.tflite"))


if __name__ == "__main__":
    sys.exit(main())
