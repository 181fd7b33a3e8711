"""What a layer's output stage must hold, by the source.

An :class:`Expected` lists values by the names of the fields of
``karat24.export.edgetpu.instructions.Stage``; a field it leaves out is not predicted. A layer may be compiled
in several ways; any one of them will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from karat24.export.edgetpu.instructions import Stage
from karat24.golden.edgetpu.arithmetic import (
    addition_factors,
    addition_multiplier,
    bits,
    clamps,
    multipliers,
    pool_multiplier,
    product_multiplier,
    reciprocal,
    unsigned_zero_point,
)
from karat24.golden.edgetpu.structure import last_size, require_filter, require_images
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import LayerView, Tensor

ONE = bits(1.0)
INFINITE = bits(-np.inf), bits(np.inf)


@dataclass(frozen=True)
class Expected:
    """One way a layer's stage may be. ``blocks`` holds pairs of block and last block, empty if any."""

    values: Mapping[str, int | str | bool]
    blocks: frozenset[tuple[int, int]] = frozenset()

    def without(self, names: Collection[str]) -> Expected:
        """Without these fields; ``channels`` stands for both blocks."""
        kept = {name: value for name, value in self.values.items() if name not in names}
        return Expected(kept, frozenset() if "channels" in names else self.blocks)

    def mismatches(self, stage: Stage) -> tuple[str, ...]:
        """Names of the fields that are not as expected; ``channels`` stands for both blocks."""
        wrong = [name for name, value in self.values.items() if getattr(stage, name) != value]
        if self.blocks and (stage.block, stage.last_block) not in self.blocks:
            wrong.append("channels")
        return tuple(wrong)


def expected_stages(view: LayerView) -> tuple[Expected, ...]:
    """Every way the layer's stage may be; none where it is not known how the layer is compiled.

    Raises ModelError where the layer's tensors lack the numbers to predict from.
    """
    describe = STAGES.get(view.op)
    if describe is None:
        return ()
    require_images(view)
    return tuple(describe(view))


def output_numbers(view: LayerView) -> Mapping[str, int | str | bool]:
    """Clamps and zero point that the last stage of any op must have that gives this output; empty where the
    layer's tensors do not say."""
    try:
        require_images(view)
        activation = view.op if view.op in ("RELU", "RELU6", "RELU_N1_TO_1") else None
        return _output(view, activation)
    except ModelError:
        return {}


def needs_stage(view: LayerView) -> bool:
    """Whether the layer must have a stage of its own; a layer that changes no value may need none."""
    return view.op not in OPTIONAL or not _same_numbers(view)


def _same_numbers(view: LayerView) -> bool:
    return all(
        t is None or t.is_constant or t.quantization is None or _numbers(t) == _numbers(view.output())
        for t in view.inputs
    )


def _numbers(tensor: Tensor) -> tuple[float, int] | None:
    return None if tensor.quantization is None else (tensor.scale, unsigned_zero_point(tensor))


def _output(view: LayerView, activation: str | None = None) -> dict[str, int | str | bool]:
    """Clamps and zero point of the layer's output."""
    if activation is None:
        activation = view.text("fused_activation_function", "NONE")
    lower, upper = clamps(view.output(), activation)
    return {"lower": lower, "upper": upper, "output_zero_point": unsigned_zero_point(view.output())}


def blocks_of(channels: int) -> frozenset[tuple[int, int]]:
    """Blocks of 64 and a last one, which may have a stage of its own; counts are multiples of 4."""
    filled = -(-channels // 4) * 4
    last = filled % 64 or 64
    if channels <= 64:
        return frozenset({(filled, filled)})
    return frozenset({(64, last), (64, 64), (last, last)})


def _weighted(view: LayerView) -> list[Expected]:
    require_filter(view)
    filter_ = view.input(1)
    factors = multipliers(view)
    depthwise = view.op == "DEPTHWISE_CONV_2D" and not (view.input(0).shape[-1] == 1 < filter_.shape[-1])
    channels = 4 if depthwise else last_size(view.output())
    values = {
        "unit": "multiply",
        "first_zero_point": unsigned_zero_point(view.input(0)),
        "constant": 0,
        **_output(view),
    }
    if len(np.unique(factors)) > 1:
        values |= {"multiplier": ONE, "per_channel": True}
    else:
        values |= {"multiplier": bits(factors[0]), "per_channel": False}
        if filter_.quantization is not None and not filter_.quantization.per_channel:
            zero_point = filter_.quantization.zero_point[0]
            values["second_zero_point"] = zero_point + (128 if filter_.dtype == "int8" else 0)
    return [Expected(values, blocks_of(channels))]


def _added(view: LayerView) -> list[Expected]:
    first, second = view.input(0), view.input(1)
    if first.is_constant or second.is_constant:
        return []
    a, b = addition_factors(first, second)
    values = {
        "unit": "add",
        "multiplier": bits(addition_multiplier(first, a, view.output())),
        "per_channel": False,
        **_output(view),
    }
    if (a, b) != (1, 1):
        values["constant"] = -(a * unsigned_zero_point(first) + b * unsigned_zero_point(second))
    return [Expected(values, blocks_of(last_size(view.output())) | {(4, 4)})]


def _multiplied(view: LayerView) -> list[Expected]:
    if view.input(0).is_constant or view.input(1).is_constant:
        return []
    return [Expected({"multiplier": bits(product_multiplier(view)), "per_channel": False, **_output(view)})]


def _averaged(view: LayerView) -> list[Expected]:
    image = view.input(0)
    if view.op == "MEAN":
        if not _is_over_the_image(view):
            return []
        window = math.prod(image.shape) // math.prod(view.output().shape)
        output = _output(view, "NONE")
    else:
        window = view.integer("filter_height") * view.integer("filter_width")
        output = _output(view)
    values = {
        "unit": "pool",
        "multiplier": bits(pool_multiplier(view, window)),
        "per_channel": False,
        "first_zero_point": 0,
        "second_zero_point": unsigned_zero_point(image),
        "constant": 0,
        **output,
    }
    return [
        Expected(values, blocks_of(last_size(image)) | {(4, 4)}),
        Expected({**values, "lower": INFINITE[0], "upper": INFINITE[1]}),
    ]


def _is_over_the_image(view: LayerView) -> bool:
    """Whether a mean is over y and x, as in every pair with one."""
    axes, rank = view.input(1).data, len(view.input(0).shape)
    found = () if axes is None or rank < 3 else sorted({int(axis) % rank for axis in axes.reshape(-1)})
    return list(found) == [rank - 3, rank - 2]


def _largest(view: LayerView) -> list[Expected]:
    return [Expected({"multiplier": ONE, "per_channel": False, **_output(view)})]


def _copied(view: LayerView) -> list[Expected]:
    """Copies that may change scale or zero point: one way per input."""
    ways = []
    for tensor in view.inputs:
        if tensor is not None and not tensor.is_constant and tensor.quantization is not None:
            scale = np.float32(tensor.scale)
            factor = (
                ONE
                if _numbers(tensor) == _numbers(view.output())
                else bits(scale * reciprocal(view.output()))
            )
            zero_point = unsigned_zero_point(tensor)
            values = {"unit": "move", "multiplier": factor, "per_channel": False, **_output(view, "NONE")}
            first = {"first_zero_point": zero_point, "second_zero_point": 0, "constant": 0}
            second = {"first_zero_point": 0, "second_zero_point": zero_point, "constant": -zero_point}
            ways += [Expected({**values, **first}), Expected({**values, **second})]
            # Channels may also be moved by a product with a matrix of 0 and 1.
            ways.append(Expected({**values, **first, "unit": "multiply"}))
    return ways


def _logistic(view: LayerView) -> list[Expected]:
    """The sigmoid's argument, as a real number."""
    return [Expected({"multiplier": bits(view.input(0).scale), "per_channel": False})]


STAGES: Mapping[str, Callable[[LayerView], list[Expected]]] = MappingProxyType(
    {
        "CONV_2D": _weighted,
        "DEPTHWISE_CONV_2D": _weighted,
        "FULLY_CONNECTED": _weighted,
        "ADD": _added,
        "MUL": _multiplied,
        "AVERAGE_POOL_2D": _averaged,
        "MEAN": _averaged,
        "MAX_POOL_2D": _largest,
        "CONCATENATION": _copied,
        "QUANTIZE": _copied,
        "RESHAPE": _copied,
        "SQUEEZE": _copied,
        "EXPAND_DIMS": _copied,
        "LOGISTIC": _logistic,
    }
)
"""The ops whose output stage is understood."""

OPTIONAL = frozenset({"CONCATENATION", "QUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
"""Ops that need no stage where they change no number."""

OPAQUE = frozenset({"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION", "RESIZE_BILINEAR", "RSQRT"})
"""Ops with inner stages, which are not understood."""

_MOVED = (
    "it has no numbers of its own, and no known field of a compiled file says which values it moves where"
)
_BETWEEN_PIXELS = "no known field of a compiled file holds its weights between pixels"

UNDESCRIBED: Mapping[str, str] = MappingProxyType(
    {
        "PAD": "its numbers are its input's; no known field of a compiled file holds its amounts of padding",
        **dict.fromkeys(("SLICE", "STRIDED_SLICE", "SPLIT", "TRANSPOSE", "SPACE_TO_DEPTH"), _MOVED),
        **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _BETWEEN_PIXELS),
        "TANH": "no public pair has one",
        "TRANSPOSE_CONV": "the order of a transposed convolution's taps in compiled files is not known",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "no known field of a compiled file holds its gates' multipliers",
    }
)
"""Why the output stage of an op cannot be held against the source."""
