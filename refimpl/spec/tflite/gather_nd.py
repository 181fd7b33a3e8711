"""GATHER_ND: slices of a tensor, each named by a list of positions in its first dimensions."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    INDEX,
    QUANTIZED_8,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_same_dtype,
    require_same_quantization,
    require_shape,
)


def check_gather_nd(view: LayerView) -> None:
    """Inputs: data, positions ``[..., depth]`` (int32 or int64) in the first ``depth`` dimensions of data."""
    require_arity(view, 2)
    data, positions, output = view.input(0), view.input(1), view.output()
    require_dtype(view, data, (*QUANTIZED_8, "int32", "int64", "float32"))
    require_same_dtype(view, data, output)
    require_dtype(view, positions, INDEX)
    require_rank(view, positions, 1, 8)
    require_rank(view, data, 1, 8)
    for tensor in (data, positions):
        require_elements(view, tensor)
    depth = positions.shape[-1]
    require(view, depth <= len(data.shape), f"{depth} positions each for data of shape {data.shape}")
    require_shape(view, output, (*positions.shape[:-1], *data.shape[depth:]))
    if output.dtype in QUANTIZED_8:
        require_same_quantization(view, data, output)
    if positions.known is not None:
        _check_positions(view, positions.known)


def _check_positions(view: LayerView, positions: Array) -> None:
    sizes = np.array(view.input(0).shape[: positions.shape[-1]])
    outside = ((positions < 0) | (positions >= sizes)).any(axis=-1)
    if outside.any():
        found = positions[outside][0].tolist()
        require(view, False, f"position {found} lies outside data of shape {view.input(0).shape}")


def gather_nd(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a copy
    """GATHER_ND. Raises ModelError for a computed position outside the data, at which runtimes stop."""
    data, positions = operand(values, 0), operand(values, 1)
    _check_positions(view, positions)
    chosen = data[tuple(np.moveaxis(positions, -1, 0))]
    return SpecResult((np.ascontiguousarray(chosen).reshape(view.output().shape),))
