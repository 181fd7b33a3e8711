"""What the Edge TPU's compiler documents it can map, one small function per limit.

A constraint looks at one layer and returns what is wrong with it, "" where nothing is. Its docstring is the
message a user gets: what the device takes, and what to change.

Source: https://coral.ai/docs/edgetpu/models-intro ("Model requirements", table "Supported operations"), for
compiler 16.0 and runtime 14.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from karat24.refimpl.graph import LayerView, Tensor

Constraint: TypeAlias = Callable[[LayerView], str]
"""Returns what breaks the limit; empty where the layer keeps it."""

EIGHT_BITS = ("int8", "uint8")
MAX_SOFTMAX = 16_000


def _activations(view: LayerView) -> list[Tensor]:
    return [t for t in (*view.inputs, *view.outputs) if t is not None and not t.is_constant]


def _shown(tensor: Tensor) -> str:
    return f"{tensor.name!r} is {tensor.dtype} {'×'.join(map(str, tensor.shape)) or 'scalar'}"


def eight_bit_tensors(view: LayerView) -> str:
    """The Edge TPU computes with 8-bit integers only: quantize every input and output to int8 or uint8."""
    wrong = [t for t in _activations(view) if t.dtype not in EIGHT_BITS or t.quantization is None]
    return ", ".join(map(_shown, wrong))


def fixed_sizes(view: LayerView) -> str:
    """Sizes must be known when the model is compiled: export it with a fixed shape for every input."""
    wrong = [t for t in _activations(view) if t.shape_signature is not None and -1 in t.shape_signature]
    return ", ".join(f"{t.name!r} has shape {t.shape_signature}" for t in wrong)


def three_inner_dimensions(view: LayerView) -> str:
    """Only the three innermost dimensions may be larger than 1: use batch 1, and reshape tensors of more
    dimensions."""
    wrong = [t for t in _activations(view) if any(size > 1 for size in t.shape[:-3])]
    return ", ".join(map(_shown, wrong))


def constant_parameters(view: LayerView) -> str:
    """Filters and biases must be constants in the file: freeze the model, or fold what computes them."""
    positions = (0, 1, 3) if view.op == "TRANSPOSE_CONV" else (1, 2)
    given = [view.optional_input(position) for position in positions]
    return ", ".join(f"{t.name!r} is computed" for t in given if t is not None and not t.is_constant)


def no_fused_activation(view: LayerView) -> str:
    """This op takes no fused activation on the Edge TPU: make the activation a layer of its own."""
    activation = view.text("fused_activation_function", "NONE")
    return "" if activation == "NONE" else f"fused {activation}"


def equal_dilation(view: LayerView) -> str:
    """Dilation must be equal in x and y: use the same factor for both."""
    x, y = view.integer("dilation_w_factor", 1), view.integer("dilation_h_factor", 1)
    return "" if x == y else f"{x} in x, {y} in y"


def default_weights_format(view: LayerView) -> str:
    """Fully connected weights must be in the default format: convert the model without shuffled weights."""
    found = view.text("weights_format", "DEFAULT")
    return "" if found == "DEFAULT" else found


def one_dimensional_output(view: LayerView) -> str:
    """The output must be a single vector: only its last dimension may be larger than 1."""
    wrong = [t for t in view.outputs if math.prod(t.shape[:-1]) > 1]
    return ", ".join(map(_shown, wrong))


def short_softmax(view: LayerView) -> str:
    """Softmax takes one vector of at most 16,000 values: leave a larger one, or one per pixel, to the CPU."""
    image = view.input(0)
    wrong = math.prod(image.shape[:-1]) > 1 or image.shape[-1] > MAX_SOFTMAX
    return _shown(image) if wrong else ""


def zero_constants(view: LayerView) -> str:
    """A constant input of a concatenation must be all zeros: pad instead, or add the constant."""
    wrong = [t for t in view.inputs if t is not None and t.data is not None and not _is_zero(t)]
    return ", ".join(f"{t.name!r} holds other values" for t in wrong)


def _is_zero(tensor: Tensor) -> bool:
    zero = 0 if tensor.quantization is None else tensor.zero_point
    return bool((np.asarray(tensor.data) == zero).all())


def over_x_and_y(view: LayerView) -> str:
    """The mean must be over x and y: reduce other dimensions on the CPU, or as an average pooling."""
    axes, rank = _constant_integers(view, 1), len(view.input(0).shape)
    if axes is None:
        return "its axes are computed"
    found = sorted(axis % rank for axis in axes) if rank else []
    return "" if found == [rank - 3, rank - 2] else f"axes {found} of {rank}"


def known_padding(view: LayerView) -> str:
    """Amounts of padding must be constants: give them as numbers when the model is built."""
    return "its amounts are computed" if _constant_integers(view, 1) is None else ""


def not_over_batch(view: LayerView) -> str:
    """A split must not be over the batch: split x, y or channels."""
    axes = _constant_integers(view, 0)
    if axes is None:
        return "its axis is computed"
    rank = len(view.input(1).shape)
    return "over dimension 0" if rank == 4 and any(axis % rank == 0 for axis in axes) else ""


def unit_strides(view: LayerView) -> str:
    """A strided slice must have strides of 1: subsample with a pooling or a convolution."""
    strides = _constant_integers(view, 3)
    if strides is None:
        return "its strides are computed"
    return "" if all(stride == 1 for stride in strides) else f"strides {strides}"


def one_alpha_per_channel(view: LayerView) -> str:
    """PReLU's slopes must be one per channel, or one for all: share them over x and y."""
    alpha = view.input(1)
    return "" if math.prod(alpha.shape) == (alpha.shape or (1,))[-1] else _shown(alpha)


def _constant_integers(view: LayerView, position: int) -> list[int] | None:
    tensor = view.optional_input(position)
    if tensor is None or tensor.data is None:
        return None
    return [int(value) for value in tensor.data.reshape(-1)]


@dataclass(frozen=True)
class Limits:
    """What holds for one op: the lowest runtime that takes it, its constraints beside those of all ops, and
    why it may stay on the CPU though it keeps them."""

    constraints: tuple[Constraint, ...] = ()
    runtime: int = 10
    doubt: str = ""


GENERAL: tuple[Constraint, ...] = (eight_bit_tensors, fixed_sizes, three_inner_dimensions)
"""Limits of every op."""

_CONVOLUTION = (constant_parameters, equal_dilation)
_RESIZE = Limits(doubt="depending on its sizes the compiler leaves it on the CPU, to avoid losing precision")

LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        "ADD": Limits(),
        "AVERAGE_POOL_2D": Limits((no_fused_activation,)),
        "CONCATENATION": Limits((no_fused_activation, zero_constants)),
        "CONV_2D": Limits(_CONVOLUTION),
        "DEPTHWISE_CONV_2D": Limits(_CONVOLUTION),
        "EXPAND_DIMS": Limits(runtime=13),
        "FULLY_CONNECTED": Limits((constant_parameters, default_weights_format, one_dimensional_output)),
        "L2_NORMALIZATION": Limits(),
        "LOGISTIC": Limits(),
        "MAXIMUM": Limits(),
        "MAX_POOL_2D": Limits((no_fused_activation,)),
        "MEAN": Limits((over_x_and_y,)),
        "MINIMUM": Limits(),
        "MUL": Limits(),
        "PAD": Limits((known_padding,)),
        "PRELU": Limits((one_alpha_per_channel,), runtime=13),
        "QUANTIZE": Limits(runtime=13),
        "REDUCE_MAX": Limits(runtime=14),
        "REDUCE_MIN": Limits(runtime=14),
        "RELU": Limits(),
        "RELU6": Limits(),
        "RELU_N1_TO_1": Limits(),
        "RESHAPE": Limits(),
        "RESIZE_BILINEAR": _RESIZE,
        "RESIZE_NEAREST_NEIGHBOR": _RESIZE,
        "RSQRT": Limits(runtime=14),
        "SLICE": Limits(),
        "SOFTMAX": Limits((short_softmax,)),
        "SPACE_TO_DEPTH": Limits(),
        "SPLIT": Limits((not_over_batch,)),
        "SQUARED_DIFFERENCE": Limits(runtime=14),
        "SQUEEZE": Limits(runtime=13),
        "STRIDED_SLICE": Limits((unit_strides,)),
        "SUB": Limits(),
        "SUM": Limits(runtime=13),
        "TANH": Limits(),
        "TRANSPOSE": Limits(runtime=14),
        "TRANSPOSE_CONV": Limits(
            (constant_parameters,), runtime=13, doubt="some have been reported to stay on the CPU"
        ),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": Limits(runtime=14),
    }
)
"""The ops the compiler maps. Any other stays on the CPU."""


def message(constraint: Constraint) -> str:
    """A constraint's docstring on one line, without its last stop."""
    return " ".join((constraint.__doc__ or "").split()).rstrip(".")
