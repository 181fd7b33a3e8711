"""Files built after public reports, where they are there: each is shown, and what people asked answered."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from karat24 import delegates
from karat24.cli import main
from tests.shared_models import MODELS
from tests.support.runtimes import Runtimes

CASES = MODELS.parent / "cases"
FILES = sorted(path.relative_to(CASES).as_posix() for path in CASES.glob("*/*.*"))

ANSWERS = {
    "onnx/ort24711_constw_bias_mismatch.onnx": ("bias scale", "ONNX Runtime runs the layer in float"),
    "onnx/perchannel_square_axis_missing.onnx": ("axis left out", "axis 0 would fit as well"),
    "onnx/ort16105_qgemm_u8s8_zp128.onnx": ("saturating pairs", "without VNNI"),
    "tflite/pinto352_logistic_scale_not_1_256.tflite": (
        "refused by runtimes",
        "litert-2.3-ref, litert-2.3-builtin",
    ),
    "tflite/tf27813_maxpool_scales_differ_uint8.tflite": ("scales ignored", "times 1.04348"),
    "tflite/ultralytics1683_concat_boxes_scores_one_scale.tflite": (
        "range crushed",
        "falls on 1 of the 256 steps",
    ),
}
"""What ``inspect`` remarks on a file: the kind, and words of the text."""

JUDGED = {
    "aimet4105_linear_transpose_after_dq": (0, "BIT_EXACT", "com.microsoft:QGemm"),
    "modelopt869_fp32_qdq_conv_clip": (0, "WITHIN_BOUND", "any order of float32 operations can give"),
    "ort10111_dynamic_matmul_s8": (0, "BIT_EXACT", "com.microsoft:DynamicQuantizeMatMul"),
    "ort12558_dynamic_conv_s8": (0, "BIT_EXACT", "DynamicQuantizeLinear"),
    "ort16105_qgemm_u8s8_zp128": (0, "BIT_EXACT", "com.microsoft:QGemm"),
    "ort18811_a16w8_opset21": (0, "WITHIN_BOUND", "any order of float32 operations can give"),
    "ort24711_constw_bias_match": (0, "BIT_EXACT", "QLinearConv"),
    "ort24711_constw_bias_mismatch": (
        3,
        "NOT_COMPARED",
        "its bias 'bf' counts in steps of 0.001",
    ),
    "ort28030_double_qdq_avgpool": (0, "BIT_EXACT", "com.microsoft:QLinearAveragePool"),
    "ort32132_qlinearadd_vs_float": (0, "BIT_EXACT", "com.microsoft:QLinearAdd"),
    "ort7982_shared_bias_quantize_static_u8s8": (3, "NOT_COMPARED", "its bias 'b0' counts in steps of"),
    "perchannel_square_axis_missing": (0, "BIT_EXACT", "axis 0 would fit as well"),
    "q_conv1d_s8s8": (0, "BIT_EXACT", "QLinearConv"),
    "qat_floatw_q_dq_conv_pertensor": (0, "BIT_EXACT", "QLinearConv"),
    "trt1706_pytorchquant_floatw_q_dq_floatbias": (0, "WITHIN_BOUND", "com.microsoft:FusedConv"),
}
"""What ``verify`` says of each ONNX file beside a default session: exit code, verdict, and words."""


def found(name: str) -> Path:
    path = CASES / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; it comes with the folder of public models (KARAT24_MODELS)")
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(found(name))]) == 0
    assert "layers, " in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_what_people_asked_is_remarked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind, words = ANSWERS[name]
    assert main(["inspect", str(found(name)), "--json"]) == 0
    remarks = json.loads(capsys.readouterr().out)["remarks"]
    assert any(remark["kind"] == kind and words in remark["text"] for remark in remarks), remarks


@pytest.mark.parametrize("lane", ["litert-ref", "litert-builtin", "litert-xnnpack"])
def test_a_comparison_of_scales_from_one_on_is_what_litert_computes(
    lane: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = found("tflite/fuzz_greater_int8_scale_above_1.tflite")
    assert main(["verify", str(model), "--delegate", lane, "--samples", "3"]) == 0
    assert "BIT_EXACT" in capsys.readouterr().out


@pytest.fixture
def started_before(runtimes: Runtimes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find their runtime started, and leave it running."""
    monkeypatch.setattr(delegates, "delegate_named", lambda name, **_: nullcontext(runtimes(name)))


def _verify(name: str, *options: str) -> int:
    return main(["verify", str(found(f"onnx/{name}.onnx")), "--delegate", "ort", "--all", *options])


@pytest.mark.usefixtures("started_before")
@pytest.mark.parametrize("mode", [(), ("--cumulative",)], ids=["isolated", "cumulative"])
@pytest.mark.parametrize("name", sorted(JUDGED))
def test_onnx_files_get_the_verdict_that_is_right(
    name: str, mode: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, verdict, words = JUDGED[name]
    assert _verify(name, "--samples", "2", *mode) == code
    said = capsys.readouterr().out
    assert f"\n{verdict}: ort against ort-1.31" in said
    assert words in said


def test_no_onnx_file_is_without_an_expected_verdict() -> None:
    files = {Path(name).stem for name in FILES if name.startswith("onnx/")}
    assert files <= set(JUDGED)


@pytest.mark.parametrize("mode", [(), ("--cumulative",)], ids=["isolated", "cumulative"])
def test_an_optimizer_that_changes_the_outputs_shows_in_either_mode(
    mode: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The optimizer makes QLinearAdd of a float sum; layers that are equal one by one say nothing of that."""
    assert _verify("ort32132_qlinearadd_vs_float", "--against", "ort-disable-all", *mode) == 1
    assert "81/65536" in capsys.readouterr().out


def test_the_axis_that_a_missing_attribute_chooses_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert _verify("perchannel_square_axis_missing") == 0
    assert "so they belong to axis 1 of (8, 8, 3, 3)" in capsys.readouterr().err
