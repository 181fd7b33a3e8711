"""The report of TensorRT's builder as data, and the arithmetic of each convolution.

The report is the ``Layers:`` block a builder logs at detailed profiling verbosity, one layer a line::

    Name: N, LayerType: correlation, Inputs: [ { Name: …, Dimensions: [1,3,64,64], …, Datatype: Int8, … }],
    Constants: [ … ], Outputs: [ … ], TacticName: T, StreamId: 0, Metadata: [ONNX Layer: A][ONNX Layer: B]

or the engine inspector's, on lines or as JSON (``trtexec --exportLayerInfo``), with the same words and
others: types as ``Format/Datatype: Thirty-two wide channel vectorized row major Int8 format``, in
TensorRT 11 as ``Format`` and ``DataType`` apart, the filter as ``Weights: {"Type": "Int8", "Count": 9408}``.
Where a report of a TensorRT before 8.6 has no Metadata, a layer's name tells its ONNX nodes, joined by
``+``; two convolutions of one input, computed by one kernel, are joined by ``||``. Where shapes are dynamic
the types are missing, and the kernel's own name tells them: ``…_i8i8_i8i32_f32_…`` is int8 in, int8 out,
by int8 into int32.

Established on TensorRT for RTX 1.7.1.116; the inspector's words are those of public reports of
TensorRT 8.5 to 11, none of which was made here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["int8", "float", "not found"]

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+)")
_SECTION = re.compile(r", (Inputs|Constants|Outputs): \[")
_OPERAND = re.compile(
    r"\{ Name: (?P<name>.*?),[^{}]*?Dimensions: \[(?P<dims>[\d, -]*)\][^{}]*?Data[tT]ype: (?P<type>[^,}]*)"
)
_WEIGHTS = re.compile(r'Weights: \{\s*"?Type"?: "?(?P<type>\w+)')
_TACTIC = re.compile(r", TacticName: (?P<name>[^,\n]*)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TYPE_WORDS: Mapping[str, str] = {
    "Int8": "int8", "Float": "float32", "FP32": "float32", "Half": "float16", "FP16": "float16",
    "BFloat16": "bfloat16", "BF16": "bfloat16", "FP8": "float8", "Int32": "int32", "Int64": "int64",
    "Bool": "bool", "UInt8": "uint8", "Int4": "int4",
}  # fmt: skip
_FLOATS = frozenset({"float32", "float16", "bfloat16", "float8"})
_KERNEL_WORDS: Mapping[str, str] = {
    "i8": "int8", "f32": "float32", "tf32": "float32", "f16": "float16", "bf16": "bfloat16",
    "e4m3": "float8",
}  # fmt: skip
_KERNEL_TYPES = re.compile(
    r"_(?P<input>i8|t?f32|b?f16|e4m3)(?:i8|i32|f32|b?f16|e4m3)_(?P<filter>i8|t?f32|b?f16|e4m3)(?:i32|f32|f16)_"
)
_NODE_NAMES = re.compile(r" \+ | \|\| ")
_CONVOLVES = re.compile(r"correlation|conv|gemm|matmul", re.IGNORECASE)


@dataclass(frozen=True)
class Operand:
    """A tensor a built layer reads or writes. ``dtype`` is a NumPy name where there is one."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class BuiltLayer:
    """One layer of an engine: a kernel, what it reads and writes, and the ONNX nodes it stands for.

    ``weights`` is the data type of weights the report names apart from the constants, or empty.
    """

    name: str
    type: str
    inputs: tuple[Operand, ...]
    constants: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    tactic: str
    onnx_layers: tuple[str, ...]
    weights: str = ""

    @property
    def convolves(self) -> bool:
        """Whether its type is that of a convolution or of a matrix product."""
        return _CONVOLVES.search(self.type) is not None

    @property
    def in_float(self) -> bool:
        """Whether it is known to read floating-point values and nothing else."""
        read = [operand.dtype for operand in (*self.inputs, *self.constants)]
        return bool(read) and all(dtype in _FLOATS for dtype in read) and self.weights in ("", *_FLOATS)

    @property
    def label(self) -> str:
        """Name, type and tactic."""
        return f"{self.name} ({self.type}{', ' if self.tactic else ''}{self.tactic})"

    @property
    def factors(self) -> tuple[str, str]:
        """Data types of the input and of the filter; ``?`` where the report does not say.

        The filter is the largest of the other operands, the first of those as large: the rest are
        scales and biases, of one value per channel. What the operands do not say the kernel's name may.
        """
        input_type = self.inputs[0].dtype if self.inputs else "?"
        others = (*self.inputs[1:], *self.constants)
        largest = max((operand for operand in others), key=lambda o: math.prod(o.shape), default=None)
        filter_type = self.weights or (largest.dtype if largest else "?")
        named = _KERNEL_TYPES.search(self.tactic)
        if named is None:
            return input_type, filter_type
        return (
            _KERNEL_WORDS[named["input"]] if input_type == "?" else input_type,
            _KERNEL_WORDS[named["filter"]] if filter_type == "?" else filter_type,
        )

    def computes_each(self, names: Set[str]) -> bool:
        """Whether its name says that it computes just these ONNX nodes side by side, of one input."""
        parts = [names & set(part.split(" + ")) for part in self.name.split(" || ")]
        return len(parts) == len(names) and all(len(part) == 1 for part in parts)


@dataclass(frozen=True)
class ConvolutionProof:
    """The verdict of one convolution of the model.

    ``kernel`` is the built layer's name, type and tactic; ``input`` and ``filter`` are the data types
    it multiplies. ``note`` says why no layer is its own when the verdict is ``not found``.
    """

    name: str
    op: str
    verdict: Verdict
    kernel: str = ""
    input: str = ""
    filter: str = ""
    note: str = ""


def parse_layers(report: str) -> tuple[BuiltLayer, ...]:
    """The layers of a report, in order; what is not a layer, or one by name only, is passed over."""
    if report.lstrip().startswith("{"):
        return _from_json(report)
    lines = report.partition("Layers:\n")[2].splitlines()
    return tuple(_layer(line, match) for line in lines if (match := _LAYER.match(line)))


def _from_json(report: str) -> tuple[BuiltLayer, ...]:
    try:
        whole = json.loads(report)
    except json.JSONDecodeError:
        return ()
    entries = [entry for entry in _entries(whole, "Layers") if "Name" in entry and "LayerType" in entry]
    return tuple(map(_json_layer, entries))


def _json_layer(entry: Mapping[str, Any]) -> BuiltLayer:
    inputs, constants, outputs = (
        tuple(map(_json_operand, _entries(entry, key))) for key in ("Inputs", "Constants", "Outputs")
    )
    name, weights = str(entry["Name"]), entry.get("Weights")
    return BuiltLayer(
        name, str(entry["LayerType"]), inputs, constants, outputs, str(entry.get("TacticName", "")),
        _onnx_layers(str(entry.get("Metadata", "")), name),
        _dtype(str(weights.get("Type", ""))) if isinstance(weights, dict) else "",
    )  # fmt: skip


def _entries(holder: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = holder.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _json_operand(entry: Mapping[str, Any]) -> Operand:
    sizes = entry.get("Dimensions")
    shape = tuple(size for size in sizes if isinstance(size, int)) if isinstance(sizes, list) else ()
    described = {key.rpartition("/")[2].lower(): str(value) for key, value in entry.items()}
    text = described.get("datatype", described.get("format", ""))
    return Operand(str(entry.get("Name", "")), shape, _dtype(text))


def _onnx_layers(metadata: str, name: str) -> tuple[str, ...]:
    """The ONNX nodes of a layer: from its metadata, where there is none from its name."""
    return tuple(_ONNX_LAYER.findall(metadata)) or tuple(_NODE_NAMES.split(name))


def _layer(line: str, match: re.Match[str]) -> BuiltLayer:
    starts = list(_SECTION.finditer(line))
    ends = [start.start() for start in starts[1:]] + [len(line)]
    sections = {
        start[1]: tuple(_operand(found) for found in _OPERAND.finditer(line, start.end() - 1, end))
        for start, end in zip(starts, ends, strict=True)
    }
    tactic, weights = _TACTIC.search(line), _WEIGHTS.search(line)
    return BuiltLayer(
        match["name"], match["type"],
        sections.get("Inputs", ()), sections.get("Constants", ()), sections.get("Outputs", ()),
        tactic["name"] if tactic else "",
        _onnx_layers(line, match["name"]),
        _dtype(weights["type"]) if weights else "",
    )  # fmt: skip


def _operand(match: re.Match[str]) -> Operand:
    shape = tuple(int(size) for size in match["dims"].split(",") if size.strip())
    return Operand(match["name"], shape, _dtype(match["type"]))


def _dtype(text: str) -> str:
    """The first data type a description names: ``Int8``, or ``Row major linear FP32 format``; ``?`` for
    none, as in ``N/A due to dynamic shapes``."""
    words = (word.rstrip(".,") for word in text.split())
    return next((_TYPE_WORDS[word] for word in words if word in _TYPE_WORDS), "?")


def judge(convolutions: Mapping[str, str], layers: Sequence[BuiltLayer]) -> tuple[ConvolutionProof, ...]:
    """A verdict for each of ``convolutions`` (ONNX node name to op type).

    ``int8`` only when every kernel that computes the convolution multiplies int8 by int8.
    """
    owned = _owners(convolutions, [layer for layer in layers if layer.convolves])
    return tuple(_verdict(name, op, owned[name], layers) for name, op in convolutions.items())


def _owners(convolutions: Mapping[str, str], kernels: Sequence[BuiltLayer]) -> dict[str, list[BuiltLayer]]:
    """Each convolution's kernels.

    A kernel may name a neighbour whose last step was fused into it. So a convolution that has a kernel
    of its own is struck from the others, until nothing changes; a kernel claimed twice belongs to neither.
    Except where its name says that it computes several side by side: it is the kernel of each.
    """
    owned: dict[str, list[BuiltLayer]] = {name: [] for name in convolutions}
    claims = []
    for kernel in kernels:
        names = convolutions.keys() & set(kernel.onnx_layers)
        if kernel.computes_each(names):
            for name in names:
                owned[name].append(kernel)
        else:
            claims.append((names, kernel))
    claims = _left(claims, owned)
    while any(len(names) == 1 for names, _ in claims):
        for names, kernel in claims:
            if len(names) == 1:
                owned[next(iter(names))].append(kernel)
        claims = _left(claims, owned)
    return owned


def _left(
    claims: Sequence[tuple[set[str], BuiltLayer]], owned: Mapping[str, Sequence[BuiltLayer]]
) -> list[tuple[set[str], BuiltLayer]]:
    """The claims without the convolutions that have a kernel."""
    found = {name for name, own in owned.items() if own}
    return [(names - found, kernel) for names, kernel in claims if names - found]


def _verdict(
    name: str, op: str, kernels: Sequence[BuiltLayer], layers: Sequence[BuiltLayer]
) -> ConvolutionProof:
    if not kernels:
        near = [layer for layer in layers if name in layer.onnx_layers]
        if near and all(layer.in_float for layer in near):  # a small float one may be generated code
            return ConvolutionProof(name, op, "float", near[0].label, *near[0].factors)
        labels = ", ".join(layer.label for layer in near)
        note = f"only {labels} name it, none as its own" if near else "no built layer names it"
        return ConvolutionProof(name, op, "not found", note=note)
    worst = next((kernel for kernel in kernels if kernel.factors != ("int8", "int8")), kernels[0])
    input_type, filter_type = worst.factors
    if "?" in worst.factors:
        note = "the report does not say what its kernel multiplies"
        return ConvolutionProof(name, op, "not found", worst.label, input_type, filter_type, note)
    verdict: Verdict = "int8" if worst.factors == ("int8", "int8") else "float"
    return ConvolutionProof(name, op, verdict, worst.label, input_type, filter_type)
