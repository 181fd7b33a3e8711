"""The layouts of activations in both formats, NHWC and NCHW, and the names of tensors in an .onnx file."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array, Graph

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


def onnx_names(graph: Graph) -> tuple[str, ...]:
    """The name each tensor has in the ONNX file: its own, with its index where that is empty or taken.

    A .tflite file may give several tensors one name; ONNX may not.
    """
    names: list[str] = []
    taken: set[str] = set()
    for tensor in graph.tensors:
        name = tensor.name or "tensor"
        if not tensor.name or name in taken:
            name = f"{name}#{tensor.index}"
        taken.add(name)
        names.append(name)
    return tuple(names)


def to_onnx_layout(values: Array) -> Array:
    """NHWC to NCHW for four-dimensional arrays, contiguous; others as they are."""
    return np.ascontiguousarray(values.transpose(TO_NCHW)) if values.ndim == 4 else values


def from_onnx_layout(values: Array) -> Array:
    """NCHW to NHWC for four-dimensional arrays, as a view; others as they are."""
    return values.transpose(TO_NHWC) if values.ndim == 4 else values
