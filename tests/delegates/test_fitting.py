"""Which profile fits a runtime here: what it answers decides, not what the machine is called."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from karat24.delegates import conformance_models as models
from karat24.delegates import delegate_named
from karat24.delegates.fitting import (
    LIBM_ARGUMENTS,
    Fit,
    Question,
    fitting,
    pairs_question,
    tflite_question,
    version_note,
)
from karat24.delegates.onnx_lanes import ONNX_LANES
from karat24.delegates.onnxruntime import OnnxDelegate
from karat24.delegates.table import TFLITE_LANES
from karat24.delegates.tflite import TfliteDelegate
from karat24.golden.verify import verify
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, profile_named, variants
from karat24.refimpl.spec.tflite.erfcf import erfcf, rounded_erfcf
from karat24.refimpl.spec.tflite.expf import expf
from karat24.refimpl.spec.tflite.rounded_tanhf import rounded_tanhf
from karat24.refimpl.spec.tflite.tanhf import expm1f, tanhf
from tests.support.runtimes import Runtimes

CALLING_LIBM = [name for name, known in PROFILES.items() if known.name.startswith(("litert", "tflite"))]
BASES = [name for name in CALLING_LIBM if not PROFILES[name].variant_of]


def answered_under(profile: str) -> Callable[[Question], Sequence[Array]]:
    """A runtime that computes as ``profile`` says."""

    def ask(question: Question) -> list[Array]:
        fed = dict(zip(question.graph.inputs, question.feeds, strict=True))
        outputs = []
        for view in question.graph.views():
            values = [None if t is None else fed.get(t.index, t.data) for t in view.inputs]
            outputs += OPS[view.op].spec(view, values, profile_named(profile).rule(view)).outputs
        return outputs

    return ask


@pytest.mark.parametrize("name", [name for name in CALLING_LIBM if not name.endswith("other-libc")])
def test_the_variant_a_runtime_computes_as_is_taken(name: str) -> None:
    fit = fitting(PROFILES[name].variant_of or name, answered_under(name))
    assert fit == Fit(name, PROFILES[name].here)
    assert "tanhf" in fit.reason
    assert ("64-bit Arm" in fit.reason) == ("arm64" in name)


def test_sums_of_products_tell_processors_apart() -> None:
    pytest.importorskip("onnx")
    for name in ("ort-1.31", "ort-1.31-avx2", "ort-1.31-avx2-precise"):
        assert fitting("ort-1.31", answered_under(name)) == Fit(name, PROFILES[name].here)
    assert PROFILES["ort-1.31-avx2"].here == "u8s8 pairs saturate at 16 bits here"


Float = Callable[[np.float32], np.float32]


def exactly(function: Callable[[float], float]) -> Float:
    return lambda x: np.float32(function(float(x)))


def of_libraries(op: str) -> tuple[Float, Float]:
    """What ``op`` computes with the library that is not correctly rounded, and with one that is."""
    if op == "GELU":
        half, root = np.float32(0.5), np.float32(-math.sqrt(0.5))
        return lambda x: half * x * erfcf(x * root), lambda x: half * x * rounded_erfcf(x * root)
    return {
        "TANH": (tanhf, rounded_tanhf),
        "ELU": (expm1f, exactly(math.expm1)),
        "EXP": (expf, exactly(math.exp)),
    }[op]


def table_entry(value: np.float32, output_scale: float) -> Array:
    """LiteRT's int8 table for one value, without its zero point."""
    steps = np.float64(value * (np.float32(1) / np.float32(output_scale)))
    return np.array([np.copysign(np.floor(np.abs(steps) + 0.5), steps)]).astype(np.int8)


def moved(function: Float, towards: float) -> Float:
    return lambda x: np.nextafter(function(x), np.float32(towards))


def answered_with(functions: Mapping[str, Float]) -> Callable[[Question], Sequence[Array]]:
    """LiteRT's optimised kernels on x86-64 with a C library that has ``functions``, by the op that calls
    them."""

    def ask(question: Question) -> list[Array]:
        outputs = list(answered_under("litert-2.3-builtin")(question))
        asked = [(op, *numbers) for op, each in LIBM_ARGUMENTS.items() for numbers in each]
        outputs[-len(asked) :] = [
            table_entry(functions[op](np.float32(scale) * np.float32(stored)), output_scale)
            for op, scale, stored, output_scale in asked
        ]
        return outputs

    return ask


FDLIBM = {op: of_libraries(op)[0] for op in LIBM_ARGUMENTS}
ROUNDED = {**{op: of_libraries(op)[1] for op in LIBM_ARGUMENTS}, "EXP": expf}


def test_a_c_library_nobody_looked_at_is_not_taken_for_one_of_the_known() -> None:
    """One float32 step beside the known, up or down, in one function only, is seen by some layer."""
    builtin = "litert-2.3-builtin"
    assert fitting(builtin, answered_with(FDLIBM)).profile == builtin
    assert fitting(builtin, answered_with(ROUNDED)).profile == f"{builtin}-glibc-2.41"
    for library in (FDLIBM, ROUNDED):
        for op in ("TANH", "GELU", "ELU"):
            for towards in (9, -9):
                fit = fitting(builtin, answered_with({**library, op: moved(library[op], towards)}))
                assert fit.profile == f"{builtin}-other-libc"
                assert "TANH, ELU and GELU are not compared on this machine" in fit.reason
    mixed = fitting(builtin, answered_with({**ROUNDED, "ELU": FDLIBM["ELU"]}))
    assert mixed.profile == f"{builtin}-other-libc"


def test_a_library_with_another_expf_has_no_profile() -> None:
    """LOGISTIC, SOFTMAX and EXP call it, and every library known has the same one."""
    for function in (of_libraries("EXP")[1], moved(expf, 999), moved(expf, 0)):
        fit = fitting("litert-2.3-builtin", answered_with({**FDLIBM, "EXP": function}))
        assert fit.profile == ""
        assert "as none of" in fit.reason


@pytest.mark.parametrize("op", LIBM_ARGUMENTS)
def test_every_argument_tells_float32_neighbours_apart(op: str) -> None:
    """The first eight tell the libraries apart, the others the nearest float32 from one beside it."""
    one, nearest = of_libraries(op)
    beside = [one] * 8 + [moved(nearest, 9)] * 4 + [moved(nearest, -9)] * 4
    assert len(LIBM_ARGUMENTS[op]) == len(beside)
    for number, (scale, stored, output_scale) in enumerate(LIBM_ARGUMENTS[op]):
        x = np.float32(scale) * np.float32(stored)
        assert (one(x) == nearest(x)) == (number >= 8)
        assert table_entry(nearest(x), output_scale) != table_entry(beside[number](x), output_scale)


def test_a_lane_without_an_op_is_not_asked_about_it() -> None:
    """The reference kernels have no ELU, and would refuse the whole question."""
    asked = {layer.op for layer in tflite_question(profile_named("litert-2.3-ref")).graph.layers}
    assert asked == {"CONV_2D", "QUANTIZE", "TANH", "GELU", "EXP"}


@pytest.mark.parametrize("name", [name for name in PROFILES if name.startswith("ort-")])
def test_the_variant_onnx_runtime_computes_as_is_taken(name: str) -> None:
    """On Arm too, whose sums of QLinearAdd are rounded away from zero."""
    pytest.importorskip("onnx")
    assert fitting("ort-1.31", answered_under(name)) == Fit(name, PROFILES[name].here)


def test_arithmetic_nobody_wrote_down_has_no_profile() -> None:
    """Sums that saturate to the end of int16 instead of pair by pair: neither variant."""
    pytest.importorskip("onnx")
    fit = fitting("ort-1.31", lambda _: [np.array([[32767, -32768, -510]], np.int32)] * 4)
    assert fit.profile == ""
    assert "as none of ort-1.31, ort-1.31-avx2, ort-1.31-avx2-precise, ort-1.31-arm64 says" in fit.reason


def test_without_a_choice_nothing_is_asked() -> None:
    def never(question: Question) -> list[Array]:
        raise AssertionError("asked")

    assert fitting("onnx-spec", never) == Fit("onnx-spec")
    assert fitting("", never) == Fit("")


def test_the_catch_all_comes_last() -> None:
    for base in BASES:
        names = [known.name for known in variants(base)]
        each = [f"{base}{processor}" for processor in ("", "-arm64") if f"{base}{processor}" in PROFILES]
        assert names == [f"{name}{suffix}" for name in each for suffix in ("", "-glibc-2.41", "-other-libc")]


def test_this_machines_c_library_is_recognized() -> None:
    """glibc says its version; the runtimes' answers must fit it."""
    name, version = platform.libc_ver()
    if name != "glibc":
        pytest.skip(f"the C library is {name or 'unknown'}, not glibc")
    new = tuple(int(part) for part in version.split(".")) >= (2, 41)
    for lane in ("litert-ref", "litert-builtin", "litert-xnnpack"):
        with delegate_named(lane) as delegate:
            assert delegate.profile.endswith("-glibc-2.41") == new, delegate.fit


def test_an_emulated_processor_without_vnni_is_recognized(emulated_runtimes: Runtimes) -> None:
    for lane in ("ort", "ort-disable-all"):
        assert emulated_runtimes(lane).fit == Fit("ort-1.31-avx2", "u8s8 pairs saturate at 16 bits here")


def test_making_a_delegate_asks_nothing() -> None:
    """The child starts when somebody first needs the profile."""
    for lane in (*TFLITE_LANES, *ONNX_LANES):
        with delegate_named(lane.name) as delegate:
            assert delegate._child._process is None  # type: ignore[attr-defined]


def test_a_runtime_that_is_missing_keeps_the_profile_of_its_lane() -> None:
    lane = replace(TFLITE_LANES[0], packages=("no_such_runtime",))
    with TfliteDelegate(lane) as delegate:
        assert delegate.fit == Fit("litert-2.3-ref")


def test_a_runtime_that_cannot_answer_has_no_profile() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    lane = replace(ONNX_LANES[0], level="ORT_ENABLE_NOTHING")
    with OnnxDelegate(lane) as delegate:
        assert delegate.profile == ""
        assert "does not say which arithmetic it has here" in delegate.fit.reason


class Unfitted(TfliteDelegate):
    """LiteRT on a machine where nothing fits."""

    fit = Fit("", "the runtime computes here as none says")  # type: ignore[assignment]


def test_a_runtime_without_a_profile_is_not_judged() -> None:
    graph = models.chain()
    from karat24.export.tflite import write_tflite

    with (
        Unfitted(TFLITE_LANES[0]) as delegate,
        pytest.raises(CannotCompare, match=r"no profile describes litert-ref \(the runtime computes here as"),
    ):
        verify(write_tflite(graph), graph, delegate, [[models.image()]])


@pytest.mark.parametrize(
    ("profile", "version", "note"),
    [
        ("ort-1.31", "1.31.1", ""),
        ("ort-1.31", "1.32.0", ""),
        ("ort-1.31-avx2", "1.32", ""),
        ("ort-1.31", "1.33.0", "established on 1.31 and 1.32: pip install 'onnxruntime==1.32.*'"),
        ("ort-1.31", "1.3.1", "onnxruntime 1.3.1 is installed"),
        ("ort-1.31", "1.320.0", "onnxruntime 1.320.0 is installed"),
        ("litert-2.3-ref-glibc-2.41", "2.4.0", "pip install 'ai-edge-litert==2.3.*'"),
        ("tflite-2.14-ref", "2.14.0.1", ""),
        ("tflite-2.14-ref", "2.13.0", "pip install 'tflite-runtime==2.14.0'"),
        ("tensorrt", "11.0", ""),
        ("", "1.0", ""),
    ],
)
def test_a_version_nobody_established_is_said_with_its_remedy(profile: str, version: str, note: str) -> None:
    established = PROFILES[profile].established if profile else None
    found = version_note(profile, established.package if established else "library", version)
    assert (note in found) if note else not found


def test_questions_are_asked_in_files_the_runtimes_read() -> None:
    from karat24.export.tflite import read_tflite

    question = tflite_question(profile_named("litert-2.3-builtin"))
    assert len(read_tflite(question.model).layers) == 2 + sum(map(len, LIBM_ARGUMENTS.values()))
    pytest.importorskip("onnx")
    asked = [layer.op for layer in pairs_question().graph.layers]
    assert asked == ["MatMulInteger", "QLinearConv", "QLinearMatMul", "com.microsoft:QLinearAdd"]
