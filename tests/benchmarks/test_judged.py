"""Counting what is judged: a layer nobody defines is named, and a rest is never called nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.judged import count_folder, section
from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder


def test_layers_are_counted_and_the_rest_is_named(tmp_path: Path) -> None:
    builder = GraphBuilder()
    given = builder.input("x", (1, 4), "float32")
    between = builder.tensor("between", (1, 4), "float32")
    output = builder.tensor("y", (4,), "float32")
    builder.layer("CUSTOM:mine", [given], [between])
    builder.layer("RESHAPE", [between, builder.constant("shape", np.array([4], np.int32))], [output])
    (tmp_path / "mine.tflite").write_bytes(write_tflite(builder.build([output])))
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    layers, unread = count_folder(tmp_path)
    assert [layer.best.outcome for layer in layers] == ["lacking", "judged"]
    assert list(unread) == ["broken.tflite"]
    page = section("Models", layers, unread)
    assert "| any of them | 2 | 1 | 0 | 0 | 1 | 50.0 % |" in page
    assert "CUSTOM:mine" in page
    assert "mine.tflite (1)" in page
    assert "broken.tflite" in page
