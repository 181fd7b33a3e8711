"""Public models the tests use when they are there; the project passes without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODELS = Path(os.environ.get("KARAT24_MODELS", ROOT.parent / "shared" / "models"))

CASES = Path(os.environ.get("KARAT24_CASES", ROOT.parent / "shared" / "cases"))

NOT_RUNNABLE = {
    "coral/deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite": "compiled for the Edge TPU (custom op)",
    "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite": "compiled for the Edge TPU (custom op)",
    "coral/posenet_mobilenet_v1_075_353_481_16_quant_decoder_edgetpu.tflite": "compiled for the Edge TPU",
    "coral/model_invoking_error.tflite": "deliberately broken: its only op is the custom 'fake-op-double'",
    "litert/single_rsqrt_default_a8w8_recipe_quantized.tflite": "no convolutional network: one RSQRT",
}
"""Models of the folder that are out of scope, with the reason."""

CUT_BEFORE_CUSTOM = {
    "coral/posenet_mobilenet_v1_075_353_481_16_quant_decoder.tflite": "CUSTOM:PosenetDecoderOp",
}
"""Models that end in a custom op no runtime here has: compared up to that op's inputs."""


def model_names() -> list[str]:
    """Every model file, relative to the folder; empty where the folder is absent."""
    return sorted(path.relative_to(MODELS).as_posix() for path in MODELS.glob("*/*.tflite"))


def runnable_models() -> list[str]:
    """The models the oracle is held to."""
    return [name for name in model_names() if name not in NOT_RUNNABLE]


def require(name: str) -> Path:
    """The path of a model or picture, or a skip that says what is missing."""
    path = MODELS / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set KARAT24_MODELS to the folder of public models")
    return path


def require_case(name: str) -> Path:
    """The path of a file built after a public report, or a skip that says what is missing."""
    path = CASES / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set KARAT24_CASES to the folder of reported files")
    return path


SCANS = Path(os.environ.get("KARAT24_SCANS", ROOT.parent / "shared" / "scans"))


def require_scan(name: str) -> Path:
    """The path of a real raw scan, or a skip that says what is missing."""
    path = SCANS / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set KARAT24_SCANS to the folder of real scans")
    return path
