"""What TensorRT's builder says it built, as data; and which arithmetic each convolution got.

The report is the ``Layers:`` block a builder logs at detailed profiling verbosity, one layer a line::

    Name: N, LayerType: correlation, Inputs: [ { Name: …, Dimensions: [1,3,64,64], …, Datatype: Int8, … }],
    Constants: [ … ], Outputs: [ … ], TacticName: T, StreamId: 0, Metadata: [ONNX Layer: A][ONNX Layer: B]

Established on TensorRT for RTX 1.7.1.116. The words the engine inspector of TensorRT itself is known
to use instead (``CaskConvolution``, ``Format/Datatype``, ``Weights: {"Type": "Int8", …}``) are read too,
but have not been held against a real report yet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["int8", "float", "not found"]

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+)")
_SECTION = re.compile(r", (Inputs|Constants|Outputs): \[")
_OPERAND = re.compile(
    r"\{ Name: (?P<name>.*?),[^{}]*?Dimensions: \[(?P<dims>[\d, -]*)\][^{}]*?Datatype: (?P<type>[^,}]*)"
)
_WEIGHTS = re.compile(r'Weights: \{\s*"?Type"?: "?(?P<type>\w+)')
_TACTIC = re.compile(r", TacticName: (?P<name>[^,\n]*)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TYPE_WORDS: Mapping[str, str] = {
    "Int8": "int8", "Float": "float32", "FP32": "float32", "Half": "float16", "FP16": "float16",
    "BFloat16": "bfloat16", "BF16": "bfloat16", "FP8": "float8",
}  # fmt: skip
_FLOATS = frozenset(_TYPE_WORDS.values()) - {"int8"}
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
        scales and biases, of one value per channel.
        """
        input_type = self.inputs[0].dtype if self.inputs else "?"
        others = (*self.inputs[1:], *self.constants)
        largest = max((operand for operand in others), key=lambda o: math.prod(o.shape), default=None)
        return input_type, self.weights or (largest.dtype if largest else "?")


@dataclass(frozen=True)
class ConvolutionProof:
    """What became of one convolution of the model.

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
    """The layers of a report, in order. Lines that are not a layer are passed over."""
    lines = report.partition("Layers:\n")[2].splitlines()
    return tuple(_layer(line, match) for line in lines if (match := _LAYER.match(line)))


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
        tuple(_ONNX_LAYER.findall(line)),
        _dtype(weights["type"]) if weights else "",
    )  # fmt: skip


def _operand(match: re.Match[str]) -> Operand:
    shape = tuple(int(size) for size in match["dims"].split(",") if size.strip())
    return Operand(match["name"], shape, _dtype(match["type"]))


def _dtype(text: str) -> str:
    """The first data type a description names: ``Int8``, or ``Row major linear FP32 format``."""
    words = text.split()
    return next((_TYPE_WORDS[word] for word in words if word in _TYPE_WORDS), text.strip().lower() or "?")


def judge(convolutions: Mapping[str, str], layers: Sequence[BuiltLayer]) -> tuple[ConvolutionProof, ...]:
    """A verdict for each of ``convolutions`` (ONNX node name to op type).

    ``int8`` only when every kernel that computes the convolution multiplies int8 by int8.
    """
    owned = _owners(convolutions, [layer for layer in layers if layer.convolves])
    return tuple(_verdict(name, op, owned[name], layers) for name, op in convolutions.items())


def _owners(convolutions: Mapping[str, str], kernels: Sequence[BuiltLayer]) -> dict[str, list[BuiltLayer]]:
    """Each convolution's kernels.

    A kernel may name a neighbour whose last step was fused into it. So a convolution that has a kernel
    of its own is struck from the others, until nothing changes; a kernel still claimed twice is nobody's.
    """
    claims = [({name for name in kernel.onnx_layers if name in convolutions}, kernel) for kernel in kernels]
    owned: dict[str, list[BuiltLayer]] = {name: [] for name in convolutions}
    while any(len(names) == 1 for names, _ in claims):
        for names, kernel in claims:
            if len(names) == 1:
                owned[next(iter(names))].append(kernel)
        found = {name for name, own in owned.items() if own}
        claims = [(names - found, kernel) for names, kernel in claims if names - found]
    return owned


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
