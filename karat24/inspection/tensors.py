"""Tensors and attributes as plain data."""

from __future__ import annotations

from typing import Any

from karat24.refimpl.graph import Layer, Tensor


def tensor_data(tensor: Tensor) -> dict[str, Any]:
    """Index, name, element type, shape and quantization."""
    entry: dict[str, Any] = {
        "tensor": tensor.index,
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
    }
    if tensor.shape_signature is not None:
        entry["shape_signature"] = list(tensor.shape_signature)
    if tensor.quantization is not None:
        entry["scale"] = list(tensor.quantization.scale)
        entry["zero_point"] = list(tensor.quantization.zero_point)
        if tensor.quantization.per_channel:
            entry["axis"] = tensor.quantization.axis
    return entry


def attribute_data(layer: Layer) -> dict[str, Any]:
    """Attributes by name; opaque bytes by their number."""
    return {
        name: f"<{len(value)} bytes>" if isinstance(value, bytes) else value
        for name, value in layer.attributes.items()
    }
