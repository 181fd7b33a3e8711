"""Lanes of .onnx models: the sessions of ONNX Runtime that are judged, and the onnx package's reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Layers = Literal["file", "written", "predicted"]
"""The layers that a lane runs: the file's own, those in the graph that the runtime writes, or those that
``lower_qdq`` predicts, where the runtime rewrites a model and does not write its graph."""

INTEGER_LANE: Mapping[str, str] = {"session.qdqisint8allowed": "1"}
"""Keeps int8 activations int8; a default session makes them uint8."""

PRECISE: Mapping[str, str] = {"session.x64quantprecision": "1"}
"""On CPUs without VNNI, keeps sums of uint8 by int8 products from saturating, those of QLinearMatMul apart;
changes nothing elsewhere."""

NO_FALLBACK: Mapping[str, str] = {"session.disable_cpu_ep_fallback": "1"}


@dataclass(frozen=True)
class OnnxLane:
    """One way of running an ONNX model.

    ``provider`` is an execution provider's name, or empty for the onnx package's reference. ``level``
    names a graph optimization level, ``entries`` are options of the session; a lane without any is the
    session that ``InferenceSession(path)`` makes, but for its one thread.
    """

    name: str
    profile: str
    provider: str
    level: str = "ORT_ENABLE_ALL"
    layers: Layers = "written"
    entries: Mapping[str, str] = field(default_factory=dict)
    remedy: str = "pip install 'onnxruntime==1.32.*'"


ONNX_LANES = (
    OnnxLane("ort", "ort-1.31", "CPUExecutionProvider"),
    OnnxLane("ort-qdqisint8allowed", "ort-1.31", "CPUExecutionProvider", entries=INTEGER_LANE),
    OnnxLane("ort-x64quantprecision", "ort-1.31", "CPUExecutionProvider", entries=PRECISE),
    OnnxLane("ort-disable-all", "ort-1.31", "CPUExecutionProvider", level="ORT_DISABLE_ALL"),
    OnnxLane(
        "ort-cuda",
        "",
        "CUDAExecutionProvider",
        entries=NO_FALLBACK,
        remedy="pip install onnxruntime-gpu, with an NVIDIA driver, CUDA and cuDNN it was built for",
    ),
    OnnxLane(
        "ort-tensorrt",
        "tensorrt",
        "TensorrtExecutionProvider",
        layers="predicted",
        entries=NO_FALLBACK,
        remedy="pip install onnxruntime-gpu, with an NVIDIA driver, CUDA and TensorRT 10 (libnvinfer.so.10)",
    ),
    OnnxLane("onnx-reference", "onnx-spec", "", layers="file", remedy="pip install 'onnx>=1.17'"),
)
"""The default session, lanes named after the option in which they differ from it, both GPU providers, of
which TensorRT's writes no graph, and the reference."""
