"""TOPK_V2: the largest values of the last dimension and their positions."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.graph import DTYPES, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED_8,
    constant_integers,
    operand,
    require,
    require_arity,
    require_dtype,
    require_same_dtype,
    require_same_quantization,
    require_shape,
)


def check_top_k(view: LayerView) -> None:
    """Inputs: data of 1 dimension or more, k (one int32 constant). Outputs: values, int32 positions."""
    require_arity(view, 2, outputs=2)
    data, largest, positions = view.input(0), view.output(0), view.output(1)
    require_dtype(view, data, (*QUANTIZED_8, "int32"))
    require_same_dtype(view, data, largest)
    require_dtype(view, positions, ("int32",))
    require_same_quantization(view, data, largest)
    require(view, len(data.shape) >= 1, "data without dimensions")
    count = constant_integers(view, 1, "k")
    require(
        view,
        len(count) == 1 and 0 < count[0] <= data.shape[-1],
        f"k is {count}; one number from 1 to {data.shape[-1]}, the last size, is needed",
    )
    for output in (largest, positions):
        require_shape(view, output, (*data.shape[:-1], count[0]))


def top_k(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - a comparison
    """The k largest values, the largest first; of equal values the first comes first."""
    data = operand(values, 0)
    k = view.output(0).shape[-1]
    positions = np.argsort(-data.astype(np.int64), axis=-1, kind="stable")[..., :k]
    largest = np.take_along_axis(data, positions, axis=-1)
    return SpecResult((largest, positions.astype(DTYPES[view.output(1).dtype])))
