"""Reshaping in TFLite's order of values, which a transposed layout changes."""

from __future__ import annotations

import numpy as np

from karat24.export.onnx.layout import TO_NCHW, TO_NHWC
from karat24.export.onnx.writing.converter import Converter, layout
from karat24.refimpl.graph import Tensor


def in_tflite_order(converter: Converter, source: Tensor, index: int, name: str) -> int:
    """An NCHW image transposed to NHWC, also where that moves no values; tensors of other ranks unchanged."""
    if len(source.shape) != 4:
        return index
    target = converter.edge(f"{name}/nhwc", source.shape, source)
    return converter.move("Transpose", index, target, perm=TO_NHWC)


def reshaped(
    converter: Converter,
    source: Tensor,
    index: int,
    name: str,
    shape: tuple[int, ...],
    output: int | None = None,
) -> int:
    """Values in TFLite's order in another shape; NCHW tensors go through NHWC where that moves values."""
    if len(source.shape) == 4 and _order_matters(source.shape):
        index = in_tflite_order(converter, source, index, name)
    back = len(shape) == 4 and _order_matters(shape)
    if back or output is None:
        target = converter.edge(f"{name}/reshaped" if back else name, shape, source)
    else:
        target = output
    stored = shape if back or len(shape) != 4 else layout(shape)
    sizes = converter.constant(f"{name}/shape", np.array(stored, np.int64))
    index = converter.move("Reshape", index, target, sizes)
    if back:
        assert output is not None
        index = converter.move("Transpose", index, output, perm=TO_NCHW)
    return index


def _order_matters(shape: tuple[int, ...]) -> bool:
    """False when NHWC and NCHW are the same order: one channel, or one pixel."""
    return shape[3] > 1 and shape[1] * shape[2] > 1
