"""Choosing the profile that fits a runtime on this machine, by running the runtime.

Where the bits depend on the processor or on the C library, a profile has variants
(``karat24.refimpl.profiles.variants``). A small model whose results the variants disagree on is run in
the child process, and the first variant whose definition gives the runtime's own bits is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.contract import Values
from karat24.refimpl.graph import Array, Format, Graph, Quantization
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Profile, profile_named, variants


@dataclass(frozen=True)
class Question:
    """A model that distinguishes variants of a profile, as a graph and a file, and its feeds.

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
    """The profile that fits a runtime on this machine, or an empty name, and the reason.

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
    question = QUESTIONS[candidates[0].format](candidates[0])
    outputs = ask(question)
    for candidate in candidates:
        if question.answered_by(candidate, outputs):
            return Fit(candidate.name, candidate.here)
    return Fit(
        "", f"the runtime computes here as none of {', '.join(known.name for known in candidates)} says"
    )


def version_note(profile: str, library: str, version: str) -> str:
    """A remark for the user where the profile was not established on ``version``, else ''."""
    established = profile_named(profile).established if profile else None
    if established is None or established.covers(version):
        return ""
    return (
        f"{library} {version} is installed; profile {profile} was established on "
        f"{' and '.join(established.versions)}: {established.remedy}"
    )


LIBM_ARGUMENTS: Mapping[str, tuple[tuple[float, int, float], ...]] = {
    "TANH": (
        (0.0063, 73, 0.01036151), (0.006018, 73, 0.0059435354), (0.008298, 51, 0.0035840461),
        (0.002634, 35, 0.0010752013), (0.005748, 106, 0.0056924154), (0.022778, 41, 0.0131965075),
        (0.015778, 104, 0.015082926), (0.005008, 77, 0.0050010164),
        (0.01507, 44, 0.012756254), (0.002758, 127, 0.0043433737), (0.01198, 51, 0.0068530394),
        (0.024968, 29, 0.006102712),
        (0.003981, 69, 0.005525413), (0.003803, 100, 0.0053773033), (0.00549, 73, 0.003540536),
        (0.027369, 24, 0.0048223203),
    ),
    "GELU": (
        (0.008075, 71, 0.0042148952), (0.026758, 23, 0.00697364), (0.012981, 118, 0.08700469),
        (0.02173, 76, 0.022269908), (0.019754, 98, 0.02673342), (0.020692, 32, 0.0053989016),
        (0.016709, 84, 0.016657482), (0.015576, 88, 0.02817654),
        (0.028406, 115, 0.053088012), (0.029335, 124, 0.04948353), (0.012542, 87, 0.03421849),
        (0.027262, 78, 0.24598277),
        (0.014054, 71, 0.04794279), (0.029556, 105, 0.06967216), (0.02913, 81, 0.020968092),
        (0.006975, 70, 0.0089488224),
    ),
    "ELU": (
        (0.003743, -103, 0.0148795), (0.003862, -104, 0.007970693), (0.019593, -99, 0.021677315),
        (0.012387, -80, 0.0107483736), (0.00437, -105, 0.0048740394), (0.005712, -62, 0.01010936),
        (0.025097, -48, 0.025461996), (0.027636, -74, 0.031659203),
        (0.027113, -32, 0.013977072), (0.025329, -124, 0.009519917), (0.01975, -58, 0.006061646),
        (0.004377, -105, 0.004412627),
        (0.008761, -121, 0.005658635), (0.008498, -46, 0.0157833), (0.02176, -126, 0.009308888),
        (0.01297, -23, 0.0028500414),
    ),
    "EXP": (
        (0.003188, 32, 0.021502936), (0.016679, 55, 0.21762061), (0.00855, 77, 0.0259275524),
        (0.009461, 67, 0.12160794), (0.008736, 100, 0.025083973), (0.028762, 65, 0.20588087),
        (0.008871, 52, 0.11749052), (0.013171, 105, 0.29530853),
        (0.028627, 99, 0.1800489), (0.026373, 31, 0.11615249), (0.00827, 108, 0.3257116),
        (0.005898, 70, 0.015659414),
        (0.010193, 79, 0.038908674), (0.024273, 101, 0.2054264), (0.016295, 115, 0.05739043),
        (0.023601, 74, 0.04798617),
    ),
}  # fmt: skip
"""Input scale, stored input and output scale of int8 layers that a function of the C library one float32 step
away rounds to another integer. The library that is not correctly rounded (fdlibm; for EXP Arm's ``expf``, in
every library known) and the nearest float32 differ in the first eight of each op, agree in the next four with
a larger float32 beyond the tie, and in the last four with a smaller one."""


def tflite_question(profile: Profile) -> Question:
    """Layers that distinguish processors, and those of ``LIBM_ARGUMENTS`` for the ops that ``profile``
    has."""
    return _of_processor_and_libm(tuple(op for op in LIBM_ARGUMENTS if op in profile.table))


@cache
def _of_processor_and_libm(ops: tuple[str, ...]) -> Question:
    """A CONV_2D of uint8 on ties, whose kernels round once or twice on Arm, a QUANTIZE of a NaN,
    which x86 and Arm convert differently, and layers near ties."""
    builder = GraphBuilder("processor and libm")
    outputs = [_ties(builder), _not_a_number(builder)]
    image = np.full((1, 1, 2, 1), 7, np.uint8)
    missing = np.array([np.nan], np.float32)
    near_ties, arguments = _near_ties(builder, ops)
    return _asked(builder, [*outputs, *near_ties], [image, missing, *arguments])


@cache
def layers_near_ties(ops: tuple[str, ...]) -> Question:
    """An int8 layer for each of the ops' ``LIBM_ARGUMENTS``."""
    builder = GraphBuilder("libm")
    return _asked(builder, *_near_ties(builder, ops))


def _asked(builder: GraphBuilder, outputs: Sequence[int], feeds: Sequence[Array]) -> Question:
    from karat24.export import write_model

    graph = builder.build(outputs)
    return Question(graph, write_model(graph), tuple(feeds))


def _near_ties(builder: GraphBuilder, ops: Sequence[str]) -> tuple[list[int], list[Array]]:
    """The layers' outputs, and what they are fed."""
    outputs: list[int] = []
    feeds: list[Array] = []
    for op in ops:
        options: dict[str, Any] = {"approximate": False} if op == "GELU" else {}
        for number, (scale, stored, output_scale) in enumerate(LIBM_ARGUMENTS[op]):
            scales = (float(np.float32(value)) for value in (scale, output_scale))
            given, result = (Quantization.per_tensor(value) for value in scales)
            x = builder.input(f"x_{op}_{number}", (1,), "int8", given)
            y = builder.tensor(f"y_{op}_{number}", (1,), "int8", result)
            outputs.append(builder.layer(op, [x], [y], **options))
            feeds.append(np.array([stored], np.int8))
    return outputs, feeds


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
    from karat24.export import write_model

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
    return Question(graph, write_model(graph), feeds)


QUESTIONS: dict[Format, Callable[[Profile], Question]] = {
    "tflite": tflite_question,
    "onnx": lambda _: pairs_question(),
}
"""What is asked of the runtimes of each format, to tell variants of a profile apart."""
