"""A small model on disk and a golden of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.export.tflite import write_tflite
from karat24.golden.goldens import Golden
from karat24.golden_places import golden_path
from karat24.goldens import record_golden
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization
from tests.support.small_network import small_graph


@dataclass(frozen=True)
class SmallGolden:
    """The paths of a model and of its golden, and the golden."""

    model: Path
    path: Path
    golden: Golden


def quartering_graph() -> Graph:
    """A 1×1 convolution, 8×8 int8, whose real results are a quarter of the inputs: a half of the even ones
    are ties, which gemmlowp rounds away from zero and ruy up."""
    builder = GraphBuilder("quartering")
    image = builder.input("image", (1, 8, 8, 1), "int8", Quantization.per_tensor(1.0, 0))
    filter_ = builder.constant("filter", np.ones((1, 1, 1, 1), np.int8), Quantization((0.25,), (0,), 0))
    bias = builder.constant("bias", np.zeros(1, np.int32))
    output = builder.tensor("quarter", (1, 8, 8, 1), "int8", Quantization.per_tensor(1.0, 0))
    layer = builder.layer(
        "CONV_2D", [image, filter_, bias], [output], 3,
        padding="SAME", stride_w=1, stride_h=1, dilation_w_factor=1, dilation_h_factor=1,
        fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([layer])


def small_golden(folder: Path, graph: Graph | None = None, **options: object) -> SmallGolden:
    """Records ``graph``, or the small network, in ``folder``, with the options of ``record_golden``."""
    model = folder / "small.tflite"
    model.write_bytes(write_tflite(graph or small_graph()))
    return SmallGolden(model, golden_path(model), record_golden(model, **options))
