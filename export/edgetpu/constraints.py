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
INNER = 3
"""The dimensions y, x and channel; what stands before them counts as the batch."""

NEWER = 13
"""The runtime from which on variants of older ops are taken, too."""


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
    wrong = math.prod(image.shape[:-1]) > 1 or _last_size(image) > MAX_SOFTMAX
    return _shown(image) if wrong else ""


def zero_constants(view: LayerView) -> str:
    """A constant input of a concatenation must be all zeros: pad instead, or add the constant."""
    wrong = [t for t in view.inputs if t is not None and t.data is not None and not _is_zero(t)]
    return ", ".join(f"{t.name!r} holds other values" for t in wrong)


def _is_zero(tensor: Tensor) -> bool:
    zero = 0 if tensor.quantization is None else tensor.zero_point
    return bool((np.asarray(tensor.data) == zero).all())


def two_inputs_with_a_constant(view: LayerView) -> str:
    """A concatenation with a constant must have only two inputs: join the others in a layer of their own."""
    constants = sum(t is not None and t.is_constant for t in view.inputs)
    return f"{len(view.inputs)} inputs" if constants and len(view.inputs) != 2 else ""


def constant_axes(view: LayerView) -> str:
    """The dimensions to reduce must be constants: give them as numbers when the model is built."""
    return "its axes are computed" if _axes(view) is None else ""


def no_reduction_of_the_batch(view: LayerView) -> str:
    """The batch must not be reduced: leave it out of the dimensions."""
    axes, rank = _axes(view) or [], len(view.input(0).shape)
    return f"axes {axes} of {rank}" if any(axis < rank - INNER for axis in axes) else ""


def channels_in_fours(view: LayerView) -> str:
    """A mean over channels needs a multiple of 4 channels: add channels, or average over x and y."""
    channels = _last_size(view.input(0))
    return f"{channels} channels" if _is_over_channels(view) and channels % 4 else ""


def known_padding(view: LayerView) -> str:
    """Amounts of padding must be constants: give them as numbers when the model is built."""
    return "its amounts are computed" if _constant_integers(view, 1) is None else ""


def no_padding_of_the_batch(view: LayerView) -> str:
    """The batch must not be padded: pad x, y or channels."""
    amounts = _padding(view)
    outer = amounts[: max(len(amounts) - INNER, 0)]
    return f"amounts {outer} before the inner {INNER} dimensions" if any(map(any, outer)) else ""


def not_along_the_batch(view: LayerView) -> str:
    """Tensors must not be packed along the batch: pack along x, y or channels."""
    rank = len(view.output().shape)
    axis = view.integer("axis", 0) % max(rank, 1)
    return f"along dimension 0 of {rank}" if rank > INNER and axis == 0 else ""


def no_masks(view: LayerView) -> str:
    """A strided slice must not add or skip dimensions: slice every dimension, and reshape the result."""
    masks = [name for name in ("ellipsis_mask", "new_axis_mask") if view.integer(name, 0)]
    return " and ".join(masks)


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


def _last_size(tensor: Tensor) -> int:
    return tensor.shape[-1] if tensor.shape else 1


def _axes(view: LayerView) -> list[int] | None:
    """Dimensions that a reduction takes away, counted from the front; None where they are computed."""
    axes, rank = _constant_integers(view, 1), len(view.input(0).shape)
    return None if axes is None else sorted({axis % rank for axis in axes}) if rank else []


def _padding(view: LayerView) -> list[tuple[int, int]]:
    """Amounts before and behind each dimension; none where they are computed."""
    amounts = _constant_integers(view, 1) or []
    return list(zip(amounts[::2], amounts[1::2], strict=False))


def _is_over_channels(view: LayerView) -> bool:
    return len(view.input(0).shape) - 1 in (_axes(view) or [])


def _pads_channels(view: LayerView) -> bool:
    return any(any(pair) for pair in _padding(view)[-1:])


def _is_dilated(view: LayerView) -> bool:
    return max(view.integer("dilation_w_factor", 1), view.integer("dilation_h_factor", 1)) > 1


def _constant_integers(view: LayerView, position: int) -> list[int] | None:
    tensor = view.optional_input(position)
    if tensor is None or tensor.data is None:
        return None
    return [int(value) for value in tensor.data.reshape(-1)]


@dataclass(frozen=True)
class Limits:
    """What holds for one op: the lowest runtime that takes it, its constraints beside those of all ops, and
    why it may stay on the CPU though it keeps them. ``newer`` tells variants that runtimes take from
    :data:`NEWER` on."""

    constraints: tuple[Constraint, ...] = ()
    runtime: int = 10
    doubt: str = ""
    newer: Callable[[LayerView], bool] | None = None

    def needs(self, view: LayerView) -> int:
        """The lowest runtime that takes this layer."""
        return max(self.runtime, NEWER) if self.newer is not None and self.newer(view) else self.runtime


GENERAL: tuple[Constraint, ...] = (eight_bit_tensors, fixed_sizes, three_inner_dimensions)
"""Limits of every op."""

_CONVOLUTION = (constant_parameters, equal_dilation)
_REDUCTION = (constant_axes, no_reduction_of_the_batch)
_RESIZE = Limits(doubt="depending on its sizes the compiler leaves it on the CPU, to avoid losing precision")

LIMITS: Mapping[str, Limits] = MappingProxyType(
    {
        "ADD": Limits(),
        "AVERAGE_POOL_2D": Limits((no_fused_activation,)),
        "CONCATENATION": Limits((no_fused_activation, zero_constants, two_inputs_with_a_constant)),
        "CONV_2D": Limits(_CONVOLUTION),
        "DEPTHWISE_CONV_2D": Limits(_CONVOLUTION, newer=_is_dilated),
        "EXPAND_DIMS": Limits(runtime=13),
        "FULLY_CONNECTED": Limits((constant_parameters, default_weights_format, one_dimensional_output)),
        "L2_NORMALIZATION": Limits(),
        "LOGISTIC": Limits(),
        "MAXIMUM": Limits(),
        "MAX_POOL_2D": Limits((no_fused_activation,)),
        "MEAN": Limits((*_REDUCTION, channels_in_fours), newer=_is_over_channels),
        "MINIMUM": Limits(),
        "MUL": Limits(),
        "PACK": Limits((not_along_the_batch,), runtime=13),
        "PAD": Limits((known_padding, no_padding_of_the_batch), newer=_pads_channels),
        "PRELU": Limits((one_alpha_per_channel,), runtime=13),
        "QUANTIZE": Limits(runtime=13),
        "REDUCE_MAX": Limits(_REDUCTION, runtime=14),
        "REDUCE_MIN": Limits(_REDUCTION, runtime=14),
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
        "STRIDED_SLICE": Limits((unit_strides, no_masks)),
        "SUB": Limits(),
        "SUM": Limits(_REDUCTION, runtime=13),
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
