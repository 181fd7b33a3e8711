"""Which profile fits a runtime on this machine: the runtime is asked, nothing is guessed.

Where the bits depend on the processor or on the C library, a profile has variants
(``karat24.refimpl.profiles.variants``). A small model whose results the variants disagree on is run in
the child process, and the first variant whose definition gives the runtime's own bits is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, Format, Graph, Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Profile, profile_named, variants


@dataclass(frozen=True)
class Question:
    """A model that tells variants of a profile apart, as a graph and a file, and what it is fed.

    No layer reads another one's output, so that each is judged by itself.
    """

    graph: Graph
    model: bytes
    feeds: tuple[Array, ...]

    def answered_by(self, profile: Profile, outputs: Sequence[Array]) -> bool:
        """Whether each layer's ``outputs`` are what the profile defines, where it defines anything."""
        fed = dict(zip(self.graph.inputs, self.feeds, strict=True))
        for view, found in zip(self.graph.views(), outputs, strict=True):
            rule = profile.rule(view)
            values: Values = [None if t is None else fed.get(t.index, t.data) for t in view.inputs]
            if rule.method != "unspecified":
                (expected,) = OPS[view.op].spec(view, values, rule).outputs
                if not np.array_equal(expected, found):
                    return False
        return True


@dataclass(frozen=True)
class Fit:
    """The profile that fits a runtime on this machine, or an empty name, and how that is known.

    ``reason`` is empty where there was no choice.
    """

    profile: str
    reason: str = ""


Ask = Callable[[Question], Sequence[Array]]
"""Runs a question on the runtime and returns its outputs in order."""


def fitting(name: str, ask: Ask) -> Fit:
    """The variant of profile ``name`` that gives the runtime's bits here. Raises what ``ask`` raises."""
    candidates = variants(name) if name else ()
    if len(candidates) < 2:
        return Fit(name)
    question = QUESTIONS[candidates[0].format]()
    outputs = ask(question)
    for candidate in candidates:
        if question.answered_by(candidate, outputs):
            return Fit(candidate.name, candidate.here)
    return Fit(
        "", f"the runtime computes here as none of {', '.join(known.name for known in candidates)} says"
    )


def version_note(profile: str, library: str, version: str) -> str:
    """What a user must know where ``version`` is not one the profile was established on, else nothing."""
    established = profile_named(profile).established if profile else None
    if established is None or established.covers(version):
        return ""
    return (
        f"{library} {version} is installed; profile {profile} was established on "
        f"{' and '.join(established.versions)}: {established.remedy}"
    )


TANH_ARGUMENTS = (
    (0.0063, 73, 0.01036151), (0.006018, 73, 0.0059435354), (0.008298, 51, 0.0035840461),
    (0.002634, 35, 0.0010752013), (0.005748, 106, 0.0056924154), (0.022778, 41, 0.0131965075),
    (0.015778, 104, 0.015082926), (0.005008, 77, 0.0050010164),
    (0.01507, 44, 0.012756254), (0.002758, 127, 0.0043433737), (0.01198, 51, 0.0068530394),
    (0.024968, 29, 0.006102712),
    (0.003981, 69, 0.005525413), (0.003803, 100, 0.0053773033), (0.00549, 73, 0.003540536),
    (0.027369, 24, 0.0048223203),
)  # fmt: skip
"""Input scale, stored input and output scale of int8 TANH layers that a ``tanhf`` one float32 step away
rounds to another integer: fdlibm's and the nearest float32 differ in the first eight, agree in the next four
with a larger one beyond the tie, and in the last four with a smaller one."""


@cache
def tflite_question() -> Question:
    """An int8 TANH layer for each of ``TANH_ARGUMENTS``, and layers that tell processors apart.

    A CONV_2D of uint8 on ties, whose kernels round once or twice on Arm, and a QUANTIZE of what is not a
    number, which x86 and Arm convert differently.
    """
    from karat24.export.tflite import write_tflite

    builder = GraphBuilder("tanhf and processor")
    outputs = [_ties(builder), _not_a_number(builder)]
    for number, (scale, _, output_scale) in enumerate(TANH_ARGUMENTS):
        scales = (float(np.float32(value)) for value in (scale, output_scale))
        given, result = (Quantization.per_tensor(value) for value in scales)
        x = builder.input(f"x{number}", (1,), "int8", given)
        outputs.append(builder.layer("TANH", [x], [builder.tensor(f"y{number}", (1,), "int8", result)]))
    graph = builder.build(outputs)
    image = np.full((1, 1, 2, 1), 7, np.uint8)
    missing = np.array([np.nan], np.float32)
    arguments: list[Array] = [np.array([stored], np.int8) for _, stored, _ in TANH_ARGUMENTS]
    return Question(graph, write_tflite(graph), (image, missing, *arguments))


TIES = (-37, -21, -5, 5, 21, 37)
"""Half output steps of a layer whose multiplier is 1/2."""


def _ties(builder: GraphBuilder) -> int:
    """A CONV_2D of two pixels at the input's zero point, whose accumulators are its biases."""
    count = len(TIES)
    image = builder.input("image", (1, 1, 2, 1), "uint8", Quantization.per_tensor(1.0, 7))
    filter_ = builder.constant("filter", np.full((count, 1, 1, 1), 3, np.uint8), Quantization.per_tensor(0.5))
    bias = builder.constant("bias", np.array(TIES, np.int32), Quantization.per_tensor(0.5))
    output = builder.tensor("convolved", (1, 1, 2, count), "uint8", Quantization.per_tensor(1.0, 100))
    return builder.layer(
        "CONV_2D", [image, filter_, bias], [output], 1, padding="VALID", stride_h=1, stride_w=1,
        fused_activation_function="NONE",
    )  # fmt: skip


def _not_a_number(builder: GraphBuilder) -> int:
    given = builder.input("real", (1,), "float32")
    output = builder.tensor("quantized", (1,), "uint8", Quantization.per_tensor(1.0, 3))
    return builder.layer("QUANTIZE", [given], [output])


@cache
def pairs_question() -> Question:
    """Products of uint8 and int8 whose pairs pass 16 bits: MatMulInteger, QLinearConv and QLinearMatMul.

    255 · 127 · 2 becomes 32,767 where pairs saturate, 255 · -128 · 2 becomes -32,768. In the third
    column the exact sum is -510, and -1 only if it is neighbours that are added first. Sums of
    QLinearAdd lie halfway between two outputs, which x86-64 rounds to the even one and Arm away from zero.
    Raises UsageError when the onnx package is missing.
    """
    from karat24.export.onnx import write_onnx

    columns = np.array([[127] * 4, [-128] * 4, [127, 127, -128, -128]], np.int8)
    builder = GraphBuilder("pairs", "onnx")
    row = builder.input("row", (1, 4), "uint8")
    image = builder.input("image", (1, 4, 1, 1), "uint8")
    matrix, same_matrix = (builder.constant(name, columns.T) for name in ("matrix", "same_matrix"))
    parameters = {"one": np.float32(1), "zero": np.uint8(0), "zeros": np.int8(0)}
    one, zero, zeros = (builder.constant(name, np.array(value)) for name, value in parameters.items())
    filters = builder.constant("filters", columns.reshape(3, 4, 1, 1))
    ties = builder.input("ties", (1, 4, 1, 1), "uint8")
    nothing = builder.input("nothing", (1, 4, 1, 1), "uint8")
    two = builder.constant("two", np.array(2, np.float32))
    step = builder.constant("step", np.array(2000, np.float32))
    middle = builder.constant("middle", np.array(128, np.uint8))
    product = builder.tensor("product", (1, 3), "int32")
    rounded = builder.tensor("rounded", (1, 3), "uint8")
    convolved = builder.tensor("convolved", (1, 3, 1, 1), "uint8")
    added = builder.tensor("added", (1, 4, 1, 1), "uint8")
    outputs = [
        builder.layer("MatMulInteger", [row, matrix], [product], 21),
        builder.layer("QLinearConv", [image, one, zero, filters, one, zeros, step, middle], [convolved], 21),
        builder.layer(
            "QLinearMatMul", [row, one, zero, same_matrix, one, zeros, step, middle], [rounded], 21
        ),
        builder.layer(
            "com.microsoft:QLinearAdd", [ties, one, zero, nothing, one, zero, two, zero], [added], 1
        ),
    ]
    graph = builder.build(outputs, None)
    halves = np.array([1, 5, 9, 13], np.uint8).reshape(1, 4, 1, 1)
    feeds = (
        np.full((1, 4), 255, np.uint8), np.full((1, 4, 1, 1), 255, np.uint8), halves, np.zeros_like(halves)
    )  # fmt: skip
    return Question(graph, write_onnx(graph), feeds)


QUESTIONS: dict[Format, Callable[[], Question]] = {"tflite": tflite_question, "onnx": pairs_question}
"""What is asked of the runtimes of each format."""
