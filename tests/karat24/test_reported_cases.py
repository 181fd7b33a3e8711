"""Files built after public reports, where they are there: each is shown, and what people asked answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from karat24.cli import main
from tests.shared_models import MODELS

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
