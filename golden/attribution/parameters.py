"""Mistakes in zero points and scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.suspect import (
    WEIGHTED,
    Suspect,
    with_attributes,
    with_data,
    with_input,
    with_output,
)
from karat24.refimpl.graph import QUANTIZED_RANGE, Graph, LayerView, Quantization, Tensor

ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "Relu", "Clip")
"""Ops that are activations themselves."""

MOST_OTHERS = 64
"""Most other tensors whose scales are tried, the nearest in the file first."""

_ONNX = {
    "QLinearConv": {"input": (1, 2), "filter": (4, 5), "output": (6, 7)},
    "QLinearMatMul": {"left input": (1, 2), "right input": (4, 5), "output": (6, 7)},
    "com.microsoft:QGemm": {"left input": (1, 2), "right input": (4, 5), "output": (7, 8)},
    "com.microsoft:QLinearAdd": {"left input": (1, 2), "right input": (4, 5), "output": (6, 7)},
    "com.microsoft:QLinearMul": {"left input": (1, 2), "right input": (4, 5), "output": (6, 7)},
    **{
        f"com.microsoft:QLinear{op}": {"input": (1, 2), "output": (3, 4)}
        for op in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
    },
}
"""Positions of the scale and the zero point of each quantized part, for ops that take them as inputs."""

Scales = tuple[float, ...]
ZeroPoints = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """The quantization of one part of a layer; ``changed`` gives the layer with another one."""

    role: str
    scale: Scales
    zero_point: ZeroPoints
    dtype: str
    changed: Callable[[Scales, ZeroPoints], LayerView]


def slots(view: LayerView) -> Iterator[Slot]:
    """Each quantized part of a layer but its bias."""
    if view.op in _ONNX:
        yield from _onnx_slots(view)
        return
    seen = [(position, t) for position, t in enumerate(view.inputs) if t is not None and _quantized(t)]
    weighted = WEIGHTED.get(view.op)
    for position, tensor in seen:
        role = f"input {position}" if len(seen) > 1 else "input"
        if weighted is not None:
            role = "filter" if position == weighted.filter else "input"
        yield _slot(role, tensor, lambda new, at=position: with_input(view, at, new))  # type: ignore[misc]
    if view.outputs and _quantized(view.outputs[0]):
        yield _slot("output", view.outputs[0], lambda new: with_output(view, new))


def _quantized(tensor: Tensor) -> bool:
    return tensor.quantization is not None and tensor.dtype in ("int8", "uint8", "int16")


def _slot(role: str, tensor: Tensor, placed: Callable[[Tensor], LayerView]) -> Slot:
    quantization = tensor.quantization
    assert quantization is not None

    def changed(scale: Scales, zero_point: ZeroPoints) -> LayerView:
        return placed(replace(tensor, quantization=Quantization(scale, zero_point, quantization.axis)))

    return Slot(role, quantization.scale, quantization.zero_point, tensor.dtype, changed)


def _onnx_slots(view: LayerView) -> Iterator[Slot]:
    for role, (scale_at, zero_at) in _ONNX[view.op].items():
        scale, zero = view.optional_input(scale_at), view.optional_input(zero_at)
        if scale is None or scale.data is None or zero is None or zero.data is None:
            continue

        def changed(
            new_scale: Scales, new_zero: ZeroPoints, at: tuple[int, int] = (scale_at, zero_at)
        ) -> LayerView:
            result = view
            for position, numbers in zip(at, (new_scale, new_zero), strict=True):
                data = view.input(position).data
                assert data is not None
                result = with_data(result, position, np.array(numbers, data.dtype).reshape(data.shape))
            return result

        scales = tuple(float(value) for value in scale.data.reshape(-1))
        yield Slot(role, scales, tuple(int(v) for v in zero.data.reshape(-1)), zero.dtype, changed)


def zero_points(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """One off, left out, or 128 off, as after a change between int8 and uint8."""
    for slot in slots(suspect.view):
        low, high = QUANTIZED_RANGE[slot.dtype]
        own = slot.zero_point[0]
        for value in dict.fromkeys((own + 1, own - 1, 0, own + 128, own - 128)):
            if value == own or not low <= value <= high or len(set(slot.zero_point)) > 1:
                continue
            changed = slot.changed(slot.scale, (value,) * len(slot.zero_point))
            yield Hypothesis(f"that of the {slot.role} is {value} in place of {own}", changed)


def last_bits(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """A scale is the next float32 above or below."""
    channels = suspect.differing_channels
    for slot in slots(suspect.view):
        for word, limit in (("above", np.inf), ("below", 0.0)):
            if len(slot.scale) > 1 and len(channels) == 1:
                scale = list(slot.scale)
                scale[channels[0]] = _next(scale[channels[0]], limit)
                place = f"that of the {slot.role}'s channel {channels[0]} is the next float32 {word}"
                yield Hypothesis(place, slot.changed(tuple(scale), slot.zero_point))
            scales = tuple(_next(value, limit) for value in slot.scale)
            if all(value > 0 and np.isfinite(value) for value in scales):
                place = f"that of the {slot.role} is the next float32 {word}"
                yield Hypothesis(place, slot.changed(scales, slot.zero_point))


def _next(value: float, limit: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(limit)))


def scales_of_others(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """A scale, or scale and zero point, that belongs to another tensor of the model."""
    others = _parameters(suspect.graph, suspect.view.outputs[0].index)
    for slot in slots(suspect.view):
        if len(slot.scale) > 1:
            continue
        low, high = QUANTIZED_RANGE[slot.dtype]
        for scale, zero_point, label in others[:MOST_OTHERS]:
            if scale == slot.scale[0]:
                continue
            place = f"the {slot.role} has that of {label}"
            yield Hypothesis(place, slot.changed((scale,), slot.zero_point))
            if zero_point != slot.zero_point[0] and low <= zero_point <= high:
                changed = slot.changed((scale,), (zero_point,))
                yield Hypothesis(f"the {slot.role} has scale and zero point of {label}", changed)
    if len(others) > MOST_OTHERS:
        yield Cut(f"scales of {MOST_OTHERS} of {len(others)} other tensors were tried")


def _parameters(graph: Graph, near: int) -> list[tuple[float, int, str]]:
    """Distinct scales of the model with the zero points beside them, the nearest tensor first."""
    found: dict[tuple[float, int], str] = {}
    for tensor in sorted(graph.tensors, key=lambda tensor: abs(tensor.index - near)):
        quantization = tensor.quantization
        if quantization is not None and not quantization.per_channel and tensor.dtype != "int32":
            key = quantization.scale[0], quantization.zero_point[0]
            found.setdefault(key, graph.label(tensor.index))
    if graph.format == "onnx":
        for view in sorted(graph.views(), key=lambda view: abs(view.outputs[0].index - near)):
            for slot in slots(view) if view.op in _ONNX else ():
                if len(slot.scale) == 1:
                    found.setdefault((slot.scale[0], slot.zero_point[0]), f"the {slot.role} of {view}")
    return [(scale, zero_point, label) for (scale, zero_point), label in found.items()]


def activations(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """The activation is left out, or another one; ONNX has none that is fused, so one was added there."""
    name = "fused_activation_function"
    if suspect.view.op in ACTIVATIONS:
        data = suspect.inputs[0]
        yield Hypothesis("the layer is left out", outputs=None if data is None else (data,))
    if suspect.view.op in _ONNX:
        yield from _added(suspect)
    if name not in suspect.view.layer.attributes:
        return
    own = suspect.view.text(name)
    for other in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1"):
        if other != own:
            yield Hypothesis(f"{other} in place of {own}", with_attributes(suspect.view, **{name: other}))


def _added(suspect: Suspect) -> Iterator[Hypothesis]:
    """A ReLU behind an ONNX layer."""
    own = suspect.own.outputs[0]
    for slot in slots(suspect.view):
        if slot.role != "output" or len(slot.scale) > 1:
            continue
        _, high = QUANTIZED_RANGE[slot.dtype]
        zero_point = slot.zero_point[0]
        six = min(round(6 / slot.scale[0]) + zero_point, high)
        for name, most in (("RELU", high), ("RELU6", six)):
            clipped = np.clip(own, zero_point, most).astype(own.dtype)
            yield Hypothesis(f"{name} where there is none", outputs=(clipped,))
