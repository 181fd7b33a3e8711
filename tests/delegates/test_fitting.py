"""Which profile fits a runtime here: what it answers decides, not what the machine is called."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from karat24.delegates import conformance_models as models
from karat24.delegates import delegate_named
from karat24.delegates.fitting import (
    TANH_ARGUMENTS,
    Fit,
    Question,
    fitting,
    pairs_question,
    tflite_question,
    version_note,
)
from karat24.delegates.onnxruntime import ONNX_LANES, OnnxDelegate
from karat24.delegates.table import LANES
from karat24.delegates.tflite import TfliteDelegate
from karat24.golden.verify import verify
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.elementwise.rounded_tanhf import tanh_correctly_rounded
from karat24.refimpl.kernels.elementwise.tanhf import tanh_float32
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import PROFILES, profile_named, variants
from tests.support.avx2_runtime import emulated_runtime

CALLING_TANHF = [name for name, known in PROFILES.items() if known.name.startswith(("litert", "tflite"))]
BASES = [name for name in CALLING_TANHF if not PROFILES[name].variant_of]


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


@pytest.mark.parametrize("suffix", ["", "-glibc-2.41", "-arm64", "-arm64-glibc-2.41"])
@pytest.mark.parametrize("base", BASES)
def test_the_variant_a_runtime_computes_as_is_taken(base: str, suffix: str) -> None:
    if base + suffix not in PROFILES:
        pytest.skip(f"{base} has no profile of 64-bit Arm")
    fit = fitting(base, answered_under(base + suffix))
    assert fit == Fit(base + suffix, PROFILES[base + suffix].here)
    assert ("tanhf" in fit.reason) == ("-arm64" not in suffix or "glibc" in suffix)
    assert ("64-bit Arm" in fit.reason) == ("arm64" in suffix)


def test_sums_of_products_tell_processors_apart() -> None:
    pytest.importorskip("onnx")
    for name in ("ort-1.31", "ort-1.31-avx2", "ort-1.31-avx2-precise"):
        assert fitting("ort-1.31", answered_under(name)) == Fit(name, PROFILES[name].here)
    assert PROFILES["ort-1.31-avx2"].here == "u8s8 pairs saturate at 16 bits here"


def table_entry(value: np.float32, number: int) -> Array:
    """LiteRT's int8 table for one value of ``TANH_ARGUMENTS``, without its zero point."""
    steps = value * (np.float32(1) / np.float32(TANH_ARGUMENTS[number][2]))
    return np.array([np.floor(np.float64(steps) + 0.5)]).astype(np.int8)


def answered_with(tanhf: Callable[[Array], Array]) -> Callable[[Question], Sequence[Array]]:
    values = [np.float32(scale) * np.float32(stored) for scale, stored, _ in TANH_ARGUMENTS]
    results = tanhf(np.array(values, np.float32))
    processor = answered_under("litert-2.3-ref")(tflite_question())[: -len(TANH_ARGUMENTS)]
    return lambda _: [*processor, *(table_entry(result, number) for number, result in enumerate(results))]


def test_a_c_library_nobody_looked_at_is_not_taken_for_one_of_the_known() -> None:
    """One float32 step beside the nearest, upwards or downwards, is seen by some layer."""
    steps = {
        "up": lambda x: np.nextafter(tanh_correctly_rounded(x), np.float32(2)),
        "down": lambda x: np.nextafter(tanh_correctly_rounded(x), np.float32(0)),
        "beside fdlibm": lambda x: np.nextafter(tanh_float32(x), np.float32(2)),
    }
    for tanhf in steps.values():
        fit = fitting("litert-2.3-ref", answered_with(tanhf))
        assert fit.profile == "litert-2.3-ref-other-libc"
        assert "TANH is not compared on this machine" in fit.reason
    assert fitting("litert-2.3-ref", answered_with(tanh_float32)).profile == "litert-2.3-ref"
    nearest = fitting("litert-2.3-ref", answered_with(tanh_correctly_rounded))
    assert nearest.profile == "litert-2.3-ref-glibc-2.41"


def test_every_argument_tells_float32_neighbours_apart() -> None:
    """The first eight tell fdlibm's result from the nearest, the others the nearest from one beside it."""
    values = np.array([np.float32(s) * np.float32(q) for s, q, _ in TANH_ARGUMENTS], np.float32)
    old, nearest = tanh_float32(values), tanh_correctly_rounded(values)
    others = [
        *old[:8], *np.nextafter(nearest[8:12], np.float32(2)), *np.nextafter(nearest[12:], np.float32(0)),
    ]  # fmt: skip
    assert (old[8:] == nearest[8:]).all()
    for number, (right, other) in enumerate(zip(nearest, others, strict=True)):
        assert table_entry(right, number) != table_entry(other, number)


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


def test_an_emulated_processor_without_vnni_is_recognized(tmp_path: Path) -> None:
    for lane in ("ort", "ort-disable-all"):
        with emulated_runtime(lane, tmp_path) as delegate:
            assert delegate.fit == Fit("ort-1.31-avx2", "u8s8 pairs saturate at 16 bits here")


def test_making_a_delegate_asks_nothing() -> None:
    """The child starts when somebody first needs the profile."""
    for lane in (*LANES, *ONNX_LANES):
        with delegate_named(lane.name) as delegate:
            assert delegate._child._process is None  # type: ignore[attr-defined]


def test_a_runtime_that_is_missing_keeps_the_profile_of_its_lane() -> None:
    lane = replace(LANES[0], packages=("no_such_runtime",))
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
        Unfitted(LANES[0]) as delegate,
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

    question = tflite_question()
    assert len(read_tflite(question.model).layers) == len(TANH_ARGUMENTS) + 2
    pytest.importorskip("onnx")
    asked = [layer.op for layer in pairs_question().graph.layers]
    assert asked == ["MatMulInteger", "QLinearConv", "QLinearMatMul", "com.microsoft:QLinearAdd"]
