"""Public pairs of a model and what the Edge TPU's compiler made of it."""

from __future__ import annotations

from functools import cache

from karat24.export.edgetpu import CompiledModel, read_compiled
from karat24.export.tflite import read_tflite
from karat24.refimpl.graph import Graph
from tests.shared_models import require

PAIRS = (
    "mobilenet_v1_0.25_128_quant",
    "posenet_mobilenet_v1_075_353_481_16_quant_decoder",
    "deeplabv3_mnv2_dm05_pascal_quant",
)


@cache
def pair(name: str) -> tuple[Graph, CompiledModel]:
    """Source and compiled model; skips where they are absent."""
    source, compiled = require(f"coral/{name}.tflite"), require(f"coral/{name}_edgetpu.tflite")
    return read_tflite(source), read_compiled(compiled)
