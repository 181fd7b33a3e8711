"""The origin of a report's figures: model, inputs, machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from karat24.delegates.protocol import Model
from karat24.refimpl.engine import Feeds, resolve_feeds
from karat24.refimpl.graph import Graph


def model_label(model: Model) -> str:
    """The model's path, or its size when it is held in memory."""
    return f"<{len(model)} bytes>" if isinstance(model, bytes) else str(model)


def model_digest(model: Model) -> str:
    """SHA-256 of the model file."""
    return hashlib.sha256(model if isinstance(model, bytes) else model.read_bytes()).hexdigest()


def feeds_digest(graph: Graph, samples: Sequence[Feeds]) -> str:
    """SHA-256 over every input of every sample, in graph order."""
    digest = hashlib.sha256()
    for feeds in samples:
        values = resolve_feeds(graph, feeds)
        for index in graph.inputs:
            digest.update(f"{graph.tensors[index].dtype}{graph.tensors[index].shape}".encode())
            digest.update(values[index].tobytes())
    return digest.hexdigest()


def machine() -> Mapping[str, str]:
    """Architecture, system and processor."""
    return {"machine": platform.machine(), "system": platform.system(), "cpu": cpu_name()}


def cpu_name() -> str:
    """The processor's name where the system tells it (Linux), else the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
