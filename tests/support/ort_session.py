"""ONNX Runtime in this process, at a chosen level of optimization."""

from __future__ import annotations

from typing import Any

import onnxruntime

LEVEL = onnxruntime.GraphOptimizationLevel


def session(
    content: bytes, *, int8_allowed: bool = False, level: Any = LEVEL.ORT_ENABLE_ALL, **more: Any
) -> onnxruntime.InferenceSession:
    """A session of one thread: a default one, or with ``session.qdqisint8allowed=1``."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if int8_allowed:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    path = more.pop("save", None)
    if path is not None:
        options.optimized_model_filepath = str(path)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], **more)
