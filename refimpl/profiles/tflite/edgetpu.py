"""What compiled files show of the Edge TPU's arithmetic, and what they do not.

Derived from 147 public pairs of a model and its compiled form (Google's compiler of 2019 to 2021, runtimes 10
to 14):
how multipliers, clamps and operand factors follow from scales, in float32 and bit for bit. No device was at
hand. What it does with these numbers is assumed: int32 sums that are exact, their float32 product clamped,
rounded half to even, and the zero point added.
"""

from __future__ import annotations

import math
from types import MappingProxyType

from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.profiles.refusal import Refusal, Refusals
from karat24.refimpl.profiles.rules import EXACT, Rule, RuleTable

CAVEAT = (
    "the rules of profile edgetpu are derived from compiled files and were held against no device: rounding "
    "half to even, exact sums and the padding of borders are assumed"
)

_STAGE = Rule("float32_half_even", "float32_reciprocal", clamp="reciprocal")
"""The output stage: accumulators times ``f32(f32(s_in * s_filter) * f32(1 / s_out))``, between clamps."""

_SUM = Rule("rational", "float32_reciprocal", clamp="reciprocal")
_LARGEST = Rule("exact", clamp="reciprocal")

_MOVES = (
    "EXPAND_DIMS", "PAD", "RESHAPE", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "STRIDED_SLICE",
    "TRANSPOSE",
)  # fmt: skip
"""Ops that move values, so that nothing is left to round."""


def _of_bytes(rule: Rule) -> dict[str, Rule]:
    return {"int8": rule, "uint8": rule}


TABLE: RuleTable = MappingProxyType(
    {
        **{op: _of_bytes(EXACT) for op in _MOVES},
        "ADD": _of_bytes(_SUM),
        "AVERAGE_POOL_2D": _of_bytes(_STAGE),
        "CONCATENATION": _of_bytes(_STAGE),
        "CONV_2D": _of_bytes(_STAGE),
        "DEPTHWISE_CONV_2D": _of_bytes(_STAGE),
        "FULLY_CONNECTED": {**_of_bytes(_STAGE), "int8_per_channel": _STAGE},
        "MAX_POOL_2D": _of_bytes(_LARGEST),
        "MEAN": {"spatial": _STAGE, "general": _STAGE},
        "MUL": _of_bytes(_STAGE),
        "QUANTIZE": {"requantize": _STAGE, "requantize_mixed": _STAGE},
    }
)


def _constant_operand(view: LayerView) -> bool:
    return any(tensor is not None and tensor.is_constant for tensor in view.inputs)


def _repeated_operand(view: LayerView) -> bool:
    return view.input(0).shape != view.input(1).shape


def _far_apart(view: LayerView) -> bool:
    """No fraction of two integers below 2^15 but 0 is near the ratio of the operands' scales."""
    if _unquantized(view):
        return False
    scales = sorted((view.input(0).scale, view.input(1).scale))
    return scales[0] * 2 * (2**15 - 1) <= scales[1]


def _numbers(tensor: Tensor) -> tuple[float, int] | None:
    return None if tensor.quantization is None else (tensor.scale, tensor.zero_point)


def _other_numbers(view: LayerView) -> bool:
    image = view.input(1 if view.op == "SPLIT" else 0)
    return any(_numbers(image) != _numbers(output) for output in view.outputs)


def _unquantized(view: LayerView) -> bool:
    return view.input(0).quantization is None or view.output().quantization is None


def _reaches_outside(view: LayerView) -> bool:
    """Some window has fewer values than others."""
    if view.text("padding") != "SAME":
        return False
    sizes = zip(view.input(0).shape[1:3], view.output().shape[1:3], "hw", ("height", "width"), strict=True)
    return any(
        (outputs - 1) * view.integer(f"stride_{short}") + view.integer(f"filter_{long}") > size
        for size, outputs, short, long in sizes
    )


def _not_over_the_image(view: LayerView) -> bool:
    axes, rank = view.input(1).data, len(view.input(0).shape)
    found = () if axes is None else sorted({int(axis) % rank for axis in axes.reshape(-1)})
    return rank < 3 or list(found) != [rank - 3, rank - 2] or math.prod(view.input(0).shape[:-3]) != 1


def _always(view: LayerView) -> bool:  # noqa: ARG001 - of every layer
    return True


SILENT: Refusals = (
    Refusal(
        frozenset({"ADD", "MUL"}),
        _constant_operand,
        "compiled files show the numbers it makes of a constant operand, not how their result is rounded",
    ),
    Refusal(frozenset({"ADD", "MUL"}), _repeated_operand, "no pair repeats an operand"),
    Refusal(frozenset({"ADD", "MUL"}), _unquantized, "its numbers follow from scales"),
    Refusal(
        frozenset({"ADD"}),
        _far_apart,
        "its operands' scales are further apart than the integers its compiler scales them by",
    ),
    Refusal(
        frozenset({*_MOVES, "MAX_POOL_2D"}),
        _other_numbers,
        "input and output have other scales or zero points, which no pair shows",
    ),
    Refusal(frozenset({"AVERAGE_POOL_2D"}), _unquantized, "its multiplier follows from scales"),
    Refusal(
        frozenset({"AVERAGE_POOL_2D"}),
        _reaches_outside,
        "windows at the border hold fewer values, and compiled files show one multiplier",
    ),
    Refusal(frozenset({"MEAN"}), _not_over_the_image, "no pair takes a mean but over y and x of one image"),
    Refusal(
        frozenset({"TRANSPOSE_CONV"}),
        _always,
        "it is compiled to several convolutions, and no pair shows which taps go where",
    ),
    Refusal(
        frozenset({"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "RSQRT"}),
        _always,
        "the device's function is in no compiled file, or in a form nobody has described",
    ),
    Refusal(
        frozenset({"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"}),
        _always,
        "no pair shows the weights and the rounding between pixels",
    ),
    Refusal(
        frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM"}),
        _always,
        "compiled files show its weights and biases, not its gates' multipliers",
    ),
)
"""Layers the profile says nothing of, each with the reason."""
