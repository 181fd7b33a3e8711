"""Tensors and attributes as plain data."""

from __future__ import annotations

from typing import Any

from karat24.export.tflite.schema import CUSTOM_OPTIONS
from karat24.refimpl.errors import ModelError
from karat24.refimpl.flexbuffer import read_flexbuffer_map
from karat24.refimpl.graph import Layer, Tensor
from karat24.refimpl.ops import OPS


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
    """Attributes by name; opaque bytes by their number, those of a custom op that is known by their names."""
    found: dict[str, Any] = {}
    for name, value in layer.attributes.items():
        if name == CUSTOM_OPTIONS and isinstance(value, bytes) and layer.op in OPS:
            found |= _options(value)
        else:
            found[name] = _plain(value)
    return found


def _options(content: bytes) -> dict[str, Any]:
    try:
        options = read_flexbuffer_map(content)
    except ModelError:
        options = {}
    if not options or not all(name.isprintable() for name in options):
        return {CUSTOM_OPTIONS: _plain(content)}
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else value
