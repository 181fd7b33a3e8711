"""What is valid in a model and still surprises people: differing scales, crushed ranges, odd biases."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from karat24.export.onnx.remarks import remarks_on
from karat24.inspection.scalings import FILTERED
from karat24.inspection.surroundings import Surroundings
from karat24.refimpl.errors import KaratError
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, Graph, LayerView, Tensor
from karat24.refimpl.ops import check_supported
from karat24.refimpl.profiles import PROFILES


@dataclass(frozen=True)
class Remark:
    """Something about one layer, in words; ``kind`` is one of the names of the functions below."""

    layer: int
    kind: str
    text: str

    def data(self) -> dict[str, Any]:
        """The remark as plain data."""
        return asdict(self)


def remarks(graph: Graph, kinds: Collection[str] = ()) -> tuple[Remark, ...]:
    """Every remark on a graph, in the order of its layers; only of ``kinds`` where some are named."""
    found: list[Remark] = []
    if graph.format == "onnx" and (not kinds or AXIS_LEFT_OUT in kinds):
        found += [Remark(layer, AXIS_LEFT_OUT, text) for layer, text in remarks_on(graph)]
    around = Surroundings(graph)
    for view in graph.views():
        for kind, look in LOOKS.items():
            if kinds and kind not in kinds:
                continue
            try:
                found += [Remark(view.layer.index, kind, f"{view}: {text}") for text in look(around, view)]
            except (KaratError, IndexError):
                continue  # a malformed layer is a problem, not a remark
    return tuple(sorted(found, key=lambda remark: remark.layer))


AXIS_LEFT_OUT = "axis left out"
"""Scales per channel without an axis, where ONNX's default is not the only one that fits."""

MOVING = (
    "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
)  # fmt: skip
"""TFLite ops that copy, choose or average quantized values without looking at their scales."""


def _scales_ignored(around: Surroundings, view: LayerView) -> Iterator[str]:
    """TFLite's pooling, padding and resizing hand the integers on, whatever the output's scale says."""
    if view.op not in MOVING or around.graph.format != "tflite":
        return
    given, written = view.input(0), view.output()
    if given.quantization is None or written.quantization is None:
        return
    if (given.scale, given.zero_point) != (written.scale, written.zero_point):
        yield (
            f"the op ignores that its output has scale {written.scale:.6g} and zero point "
            f"{written.zero_point} and its input {given.scale:.6g} and {given.zero_point}: values come out "
            f"times {written.scale / given.scale:.6g}, moved by {given.zero_point - written.zero_point} steps"
        )


CRUSHED_STEPS = 32
"""An output that keeps fewer steps for all that an input can hold has lost 3 bits of 8 or more."""


def _crushed(around: Surroundings, view: LayerView) -> Iterator[str]:  # noqa: ARG001 - each look is called alike
    """A requantization or concatenation whose output scale leaves an input only a few steps."""
    if view.op not in ("QUANTIZE", "CONCATENATION", "com.microsoft:QLinearConcat"):
        return
    written = view.output()
    if written.quantization is None or written.dtype not in QUANTIZED_RANGE:
        return
    for tensor in view.inputs:
        if tensor is None or tensor.quantization is None or tensor.dtype not in QUANTIZED_RANGE:
            continue
        low, high = QUANTIZED_RANGE[tensor.dtype]
        steps = (high - low) * tensor.scale / written.scale
        if steps < min(CRUSHED_STEPS, high - low):
            yield (
                f"all that {tensor.name!r} can hold, {(low - tensor.zero_point) * tensor.scale:.6g} to "
                f"{(high - tensor.zero_point) * tensor.scale:.6g}, falls on {int(steps) + 1} of the "
                f"{high - low + 1} steps of {written.name!r} (scale {written.scale:.6g}): give the parts "
                "scales of their own, or concatenate them in float"
            )


CLIPPED_PART = 0.05
"""Share of an input's range; rounding ranges to scales takes away less than this."""

COPYING = ("QUANTIZE", "CONCATENATION", "Concat", "com.microsoft:QLinearConcat")
"""Ops that put real values on the output's steps as they are."""


def _clipped(around: Surroundings, view: LayerView) -> Iterator[str]:
    """A copy whose output ends before what comes in does, as a calibration that saw less leaves it."""
    if view.op not in COPYING:
        return
    written = view.output()
    ends = _held(around.made_into.get(written.index, written))
    for tensor in view.inputs:
        held = None if tensor is None else _held(around.integers(tensor))
        if tensor is None or held is None or ends is None:
            continue
        lost = max(ends[0] - held[0], held[1] - ends[1])
        if lost > CLIPPED_PART * (held[1] - held[0]):
            yield (
                f"{tensor.name!r} holds {held[0]:.6g} to {held[1]:.6g}, and {written.name!r} "
                f"{ends[0]:.6g} to {ends[1]:.6g}: what lies beyond is clipped; calibrate with samples that "
                "reach further if such values occur"
            )


def _held(tensor: Tensor) -> tuple[float, float] | None:
    """The least and greatest real value a tensor with one scale can hold."""
    if tensor.quantization is None or tensor.quantization.per_channel or tensor.dtype not in QUANTIZED_RANGE:
        return None
    low, high = ((bound - tensor.zero_point) * tensor.scale for bound in QUANTIZED_RANGE[tensor.dtype])
    return low, high


BIAS_TOLERANCE = 1e-4
"""Relative tolerance: a float32 product rounds by 6e-8, and exporters keep a few more digits than four."""


def _bias_scale(around: Surroundings, view: LayerView) -> Iterator[str]:
    """A bias whose own scale is not ``s_in * s_filter``, which is what runtimes take its steps for."""
    if view.op not in FILTERED or view.op == "BATCH_MATMUL":
        return
    position = {"TRANSPOSE_CONV": 3}.get(view.op, 2)
    data, filter_ = (view.optional_input(place) for place in FILTERED[view.op])
    bias = view.optional_input(position) if "QLinear" not in view.op and "QGemm" not in view.op else None
    if bias is None:
        return
    given, weights, stored = (around.quantization(tensor) for tensor in (data, filter_, bias))
    if given is None or weights is None or stored is None:
        return
    expected = np.array(weights.scale) * given.scale[0]
    ratio = np.array(stored.scale) / (expected if len(stored.scale) == len(expected) else expected[:1])
    worst = int(np.argmax(np.abs(np.log(ratio))))
    if abs(float(ratio[worst]) - 1) <= BIAS_TOLERANCE:
        return
    found = f"bias {bias.name!r} has scale {stored.scale[worst]:.6g}" + (
        f" in channel {worst}" if stored.per_channel else ""
    )
    where = "ONNX Runtime runs the layer in float then" if around.graph.format == "onnx" else (
        "runtimes add its integers to the accumulator all the same, as if it had that"
    )  # fmt: skip
    product = stored.scale[worst] / ratio[worst]
    yield f"{found}, {ratio[worst]:.6g} times s_in * s_filter = {product:.6g}; {where}"


def _refused(around: Surroundings, view: LayerView) -> Iterator[str]:
    """Layers that some runtimes refuse, each reason once with all profiles it holds for."""
    try:
        check_supported(view)
    except KaratError:
        return
    reasons: dict[str, list[str]] = {}
    for profile in PROFILES.values():
        if profile.variant_of or profile.format != around.graph.format:
            continue
        if reason := profile.refusal(view):
            reasons.setdefault(reason, []).append(profile.name)
    for reason, names in reasons.items():
        yield f"the runtimes of {', '.join(names)} refuse it: {reason}"


def _saturating_pairs(around: Surroundings, view: LayerView) -> Iterator[str]:
    """Weights whose products with uint8 can pass 16 bits in pairs, which AVX2 without VNNI adds up."""
    if around.graph.format != "onnx" or view.op not in FILTERED:
        return
    data, filter_ = (view.optional_input(place) for place in FILTERED[view.op])
    stored = None if filter_ is None else around.integers(filter_).data
    if data is None or stored is None or stored.dtype != np.int8 or _is_depthwise(view, stored):
        return
    activations = around.integers(data).dtype
    if activations not in ("uint8", "int8"):
        return
    count = overflowing_pairs(_taps_last(view, stored))
    if count:
        turned = "" if activations == "uint8" else " (ONNX Runtime turns int8 activations into uint8)"
        yield (
            f"{count} pair{'s' * (count > 1)} of weights can pass 16 bits with uint8 activations{turned}: "
            "on x86-64 with AVX2 and without VNNI ONNX Runtime's sums saturate there; keep weights within "
            "-64 to 64 (reduce_range), or set session.x64quantprecision=1"
        )


def overflowing_pairs(taps: Array) -> int:
    """How many pairs of neighbouring int8 weights of ``taps`` ``[out_channel, tap]`` can pass 16 bits with
    uint8 values: ``255 * (a + b)``, both of one sign, above 32767 or below -32768."""
    padded = np.pad(taps.astype(np.int32), ((0, 0), (0, taps.shape[1] % 2)))
    pairs = padded.reshape(len(taps), -1, 2)
    high = 255 * np.maximum(pairs, 0).sum(axis=2)
    low = 255 * np.minimum(pairs, 0).sum(axis=2)
    return int(np.count_nonzero((high > 2**15 - 1) | (low < -(2**15))))


def _is_depthwise(view: LayerView, filter_: Array) -> bool:
    """One input channel per group: ONNX Runtime's depthwise kernel adds no pairs."""
    return view.op in ("Conv", "QLinearConv") and filter_.shape[1] == 1 and view.integer("group", 1) > 1


def _taps_last(view: LayerView, filter_: Array) -> Array:
    """``[out_channel, tap]`` in the order ONNX Runtime sums: tap_y, tap_x, channel."""
    if view.op in ("Conv", "QLinearConv"):
        return np.moveaxis(filter_, 1, -1).reshape(len(filter_), -1)
    transposed = view.op in ("Gemm", "com.microsoft:QGemm") and view.integer("transB", 0)
    matrix = filter_ if transposed else np.swapaxes(filter_, -1, -2)
    return matrix.reshape(-1, matrix.shape[-1])


LOOKS = {
    "scales ignored": _scales_ignored,
    "range crushed": _crushed,
    "range clipped": _clipped,
    "bias scale": _bias_scale,
    "refused by runtimes": _refused,
    "saturating pairs": _saturating_pairs,
}
"""Each kind of remark and what finds it in a layer."""
