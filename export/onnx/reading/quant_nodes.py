"""``Quant`` of Brevitas, FINN and QONNX, read as QuantizeLinear and DequantizeLinear where they are equal.

``y = (round(clip(x / scale + zeropt)) - zeropt) * scale`` (QONNX, ``custom_op/general/quant.py``). The zero
point is added before rounding; QuantizeLinear adds it after rounding, so that ties differ unless it is 0.
Constants are quantized here, by QONNX's formula, to any width up to 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from karat24.export.onnx.package import import_onnx
from karat24.export.onnx.reading.constants import array_of
from karat24.export.onnx.reading.messages import attributes_of, where_of
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Array

DOMAINS = frozenset({"onnx.brevitas", "qonnx.custom_op.general", "finn.custom_op.general"})

WIDEST = 8
"""The largest width that is read, in bits."""


def with_pairs(model: Any, folder: Path | None) -> Any:
    """The model with a pair of standard nodes in place of each ``Quant``.

    Raises UnsupportedOp, which names the node, where no pair computes the same values, and ModelError for
    malformed nodes.
    """
    if not any(_is_quant(node) for node in model.graph.node):
        return model
    constants = {proto.name: proto for proto in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            constants.update((name, node.attribute[0].t) for name in node.output)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for position, node in enumerate(nodes):
        if _is_quant(node):
            _write_pair(model.graph, node, where_of(position, node), constants, folder)
        else:
            model.graph.node.append(node)
    return model


def _is_quant(node: Any) -> bool:
    return node.op_type == "Quant" and node.domain in DOMAINS


def _write_pair(graph: Any, node: Any, where: str, constants: Mapping[str, Any], folder: Path | None) -> None:
    """Appends the two nodes and the constants they read to the graph."""
    helper = import_onnx().helper
    if len(node.input) != 4 or len(node.output) != 1:
        raise ModelError(f"{where} has {len(node.input)} inputs and {len(node.output)} outputs, not 4 and 1")
    for name in node.input[1:]:
        if name not in constants:
            raise UnsupportedOp(f"{where}: {name!r} is computed by the graph; only constants are read")
    scale, zero_point, bits = (
        np.asarray(array_of(constants[name], where, folder), np.float32) for name in node.input[1:]
    )
    low, high = _range(node, bits, where)
    axis, scales = _along_axis(scale, where)
    data, output = node.input[0], node.output[0]
    options = {} if axis is None else {"axis": axis}
    zeros = np.broadcast_to(zero_point, scale.shape) if zero_point.size == 1 else zero_point
    if zeros.shape != scale.shape:
        raise ModelError(f"{where}: zero points of shape {zero_point.shape} for scales of {scale.shape}")
    stored = f"{output}/stored"
    if data in constants:
        values = np.asarray(array_of(constants[data], where, folder), np.float32)
        integers = _quantized(values, scale, zeros, low, high, where)
        _add(graph, stored, integers)
        _add(graph, f"{output}/zero_point", zeros.reshape(scales.shape).astype(integers.dtype))
    else:
        full = (low, high) in ((-128, 127), (0, 255))
        if not full or zeros.any():
            raise UnsupportedOp(
                f"{where} quantizes to {low} … {high} with zero point {zeros.reshape(-1)[0]:g}; "
                "QuantizeLinear only rounds equally with the full range of 8 bits and zero point 0"
            )
        dtype = np.int8 if low else np.uint8
        _add(graph, f"{output}/zero_point", np.zeros(scales.shape, dtype))
        reads = [data, f"{output}/scale", f"{output}/zero_point"]
        graph.node.append(helper.make_node("QuantizeLinear", reads, [stored], name=stored, **options))
    _add(graph, f"{output}/scale", scales)
    reads = [stored, f"{output}/scale", f"{output}/zero_point"]
    graph.node.append(helper.make_node("DequantizeLinear", reads, [output], name=node.name, **options))


def _range(node: Any, bits: Array, where: str) -> tuple[int, int]:
    attributes = attributes_of(node, where)
    if attributes.get("rounding_mode", "ROUND") != "ROUND":
        raise UnsupportedOp(f"{where} rounds by {attributes['rounding_mode']!r}; only ROUND is read")
    width = float(bits.reshape(-1)[0]) if bits.size == 1 else 0.0
    if not (width.is_integer() and 2 <= width <= WIDEST):
        raise UnsupportedOp(f"{where} has {bits.reshape(-1)[:4].tolist()} bits; one width of 2 to 8 is read")
    narrow = int(bool(attributes.get("narrow", 0)))
    if attributes.get("signed", 1):
        return -(2 ** (int(width) - 1)) + narrow, 2 ** (int(width) - 1) - 1
    return 0, 2 ** int(width) - 1 - narrow


def _along_axis(scale: Array, where: str) -> tuple[int | None, Array]:
    """The axis along which scales lie, and the scales as a list; None and the scale where there is one."""
    wide = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(wide) > 1 or scale.size == 0:
        raise UnsupportedOp(f"{where} has scales of shape {scale.shape}; one axis is read")
    return (wide[0], scale.reshape(-1)) if wide else (None, scale.reshape(()))


def _quantized(values: Array, scale: Array, zeros: Array, low: int, high: int, where: str) -> Array:
    """QONNX's formula, in float32."""
    if not bool(np.isfinite(values).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelError(f"{where}: a value is not finite, or a scale is not positive")
    if not bool((np.rint(zeros) == zeros).all() and (low <= zeros).all() and (zeros <= high).all()):
        raise UnsupportedOp(f"{where}: zero points must be integers of {low} … {high}")
    try:
        with np.errstate(over="ignore"):
            steps = np.clip(values / scale + zeros, low, high)
    except ValueError:
        raise ModelError(f"{where}: scales of {scale.shape} for values of {values.shape}") from None
    if steps.shape != values.shape:
        raise ModelError(f"{where}: scales of {scale.shape} for values of {values.shape}")
    return np.asarray(np.rint(steps).astype(np.int8 if low else np.uint8))


def _add(graph: Any, name: str, values: Array) -> None:
    graph.initializer.append(import_onnx().numpy_helper.from_array(np.ascontiguousarray(values), name))
