"""CONCATENATION: inputs side by side along one axis, rows copied in parallel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from refimpl.contract import Kernel, Target, Values
from refimpl.errors import UnsupportedOp
from refimpl.graph import DTYPES, Array, LayerView, Tensor
from refimpl.kernels.activations import round_half_away
from refimpl.kernels.lookup import as_bytes, buffer, byte_values
from refimpl.kernels.threads import share, shared
from refimpl.profiles.rules import Rule

_CHUNK_BYTES = 1 << 16
"""Bytes one thread copies at a time, about."""


def prepare_concatenation(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """CONCATENATION: a copy; uint8 inputs with parameters of their own go through a table."""
    if rule.method not in ("reference", "exact"):
        raise UnsupportedOp(f"{view}: no kernel concatenates by {rule}")
    output = view.output()
    axis = view.integer("axis") % len(output.shape)
    rows = math.prod(output.shape[:axis])
    width = math.prod(output.shape[axis:]) * DTYPES[output.dtype].itemsize
    widths = [
        math.prod(view.input(i).shape[axis:]) * DTYPES[output.dtype].itemsize for i in range(len(view.inputs))
    ]
    tables = [_rescale_table(view.input(i), output) for i in range(len(view.inputs))]

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        out, start = outputs[0].reshape(-1).view(np.uint8).reshape(rows, width), 0
        for position, (table, part_width) in enumerate(zip(tables, widths, strict=True)):
            part = buffer(inputs, position).reshape(-1).view(np.uint8).reshape(rows, part_width)
            if table is None:
                share(part.size // 8, _copy_rows, part, start, out)
            else:
                out[:, start : start + part_width] = table[part]
            start += part_width

    return run


def _rescale_table(tensor: Tensor, output: Tensor) -> NDArray[np.uint8] | None:
    """None for a plain copy. Source: TFLite ``ConcatenationWithScaling``, float32 throughout."""
    if output.dtype != "uint8" or (tensor.scale, tensor.zero_point) == (output.scale, output.zero_point):
        return None
    with np.errstate(over="ignore"):
        scale = np.float32(tensor.scale) * (np.float32(1) / np.float32(output.scale))
        steps = byte_values("uint8").astype(np.float32) * scale + np.float32(-tensor.zero_point) * scale
    return as_bytes(round_half_away(steps) + output.zero_point, 0, 255)


@shared()
def _copy_rows(part: Any, start: int, out: Any) -> None:
    """``out[:, start : start + width] = part``, bytes."""
    rows, width = part.shape
    rows_per_chunk = max(_CHUNK_BYTES // max(width, 1), 1)
    for chunk in prange((rows + rows_per_chunk - 1) // rows_per_chunk):
        for row in range(chunk * rows_per_chunk, min((chunk + 1) * rows_per_chunk, rows)):
            # Rows as arrays of their own: an index that might be negative would keep LLVM from vectorizing.
            source, target = part[row], out[row, start : start + width]
            for k in range(width):
                target[k] = source[k]
