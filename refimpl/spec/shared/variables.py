"""Variables: tensors of a .tflite file that keep their values from run to run."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import Values
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import DTYPES, Array, LayerView, Tensor

VARIABLE = "variable "
"""What the element type of a variable begins with."""


def is_variable(tensor: Tensor) -> bool:
    """Whether the tensor keeps its values from run to run."""
    return tensor.dtype.startswith(VARIABLE)


def require_variable(view: LayerView, tensor: Tensor, dtype: str) -> None:
    """The tensor is a variable of that element type. Raises ModelError otherwise."""
    if tensor.dtype != VARIABLE + dtype:
        raise ModelError(
            f"{view}: tensor {tensor.index} ({tensor.name!r}) is {tensor.dtype}; it has to be a variable of "
            f"{dtype}, which keeps the state from run to run"
        )


def state_of(view: LayerView, values: Values, position: int) -> Array:
    """The variable's values where some are given, else those every run starts from here: 0, and of int8 the
    zero point. Source: TFLite ``Subgraph::ResetVariableTensors``."""
    tensor, given = view.input(position), values[position]
    dtype = DTYPES[tensor.dtype.removeprefix(VARIABLE)]
    if given is not None and given.dtype == dtype and given.shape == tensor.shape:
        return given
    return np.full(tensor.shape, tensor.zero_point if dtype == np.int8 else 0, dtype)
