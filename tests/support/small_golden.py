"""A small model on disk and a golden of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from karat24.export.tflite import write_tflite
from karat24.golden.goldens import Golden
from karat24.goldens import golden_path, record_golden
from tests.support.small_network import small_graph


@dataclass(frozen=True)
class SmallGolden:
    """The paths of a model and of its golden, and the golden."""

    model: Path
    path: Path
    golden: Golden


def small_golden(folder: Path, **options: object) -> SmallGolden:
    """Records the small network in ``folder``, with the options of ``record_golden``."""
    model = folder / "small.tflite"
    model.write_bytes(write_tflite(small_graph()))
    return SmallGolden(model, golden_path(model), record_golden(model, **options))
