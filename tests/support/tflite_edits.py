"""Changing a written model through LiteRT's generated object API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from karat24.export.tflite import write_tflite
from karat24.refimpl.graph import Graph
from tests.support.tflite_samples import every_feature


def broken(change: Callable[[Any], None], graph: Graph | None = None, content: bytes | None = None) -> bytes:
    """A sound model, changed through LiteRT's object API and packed again."""
    model = schema.ModelT.InitFromPackedBuf(content or write_tflite(graph or every_feature()), 0)
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tensor(name: str, /, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (found,) = (t for t in model.subgraphs[0].tensors if t.name == name.encode())
        for field, value in values.items():
            setattr(found, field, value)

    return change


def scales(name: str, /, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (found,) = (t for t in model.subgraphs[0].tensors if t.name == name.encode())
        for field, value in values.items():
            setattr(found.quantization, field, value)

    return change
