"""Which variant of an op a layer is, as far as it matters to any runtime's arithmetic.

Rule tables are keyed by op and variant: ``("CONV_2D", "int8")``,
``("CONV_2D", "uint8_grouped")``, ``("QUANTIZE", "requantize")``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from karat24.refimpl.graph import QUANTIZED_RANGE, LayerView
from karat24.refimpl.profiles.tflite.broadcast import inner_loop
from karat24.refimpl.profiles.tflite.lstm_variants import LSTMS, has_peephole
from karat24.refimpl.profiles.tflite.powers_of_two import shifts_input, shifts_operands

COMPARISONS = frozenset({"EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"})


def variant_of(view: LayerView) -> str:
    """The table key of a layer's variant; the output's element type unless the op needs more."""
    if view.outputs and view.output().dtype == "int16" and view.op in _OF_INT16:
        return "int16" + _OF_INT16[view.op](view)
    if view.op in _DATA and view.input(_DATA[view.op]).dtype == "float32" != view.input(1).dtype:
        return _hybrid(view)
    if view.op in ("ADD", "MUL"):
        return _broadcast(view)
    if view.op in COMPARISONS:
        return "bool_scale_from_1" if any(scale >= 1 for scale in comparison_scales(view)) else "bool"
    if view.op == "CONV_2D":
        return view.output().dtype + ("_grouped" if conv_groups(view) > 1 else "")
    if view.op == "FULLY_CONNECTED":
        return _fully_connected(view)
    if view.op == "QUANTIZE":
        return _quantize(view)
    if view.op == "DEQUANTIZE":
        return view.input(0).dtype
    if view.op == "LEAKY_RELU":
        return view.output().dtype + ("_negative" if view.real("alpha") < 0 else "")
    if view.op == "LOGISTIC":
        return _logistic(view)
    if view.op in LSTMS:
        return view.output().dtype + ("_peephole" if has_peephole(view) else "")
    if view.op == "MEAN":
        return _mean(view)
    if view.op == "REDUCE_PROD" and view.output().dtype == "int8":
        return "int8" + _of_one(view)
    if view.op == "RESIZE_BILINEAR":
        return view.output().dtype + ("_overrun" if overruns(view) else "")
    if view.op == "REVERSE_V2":
        return "one_axis" if math.prod(view.input(1).shape) == 1 else "several_axes"
    return view.output().dtype


_DATA: Mapping[str, int] = MappingProxyType(
    {"BATCH_MATMUL": 0, "CONV_2D": 0, "DEPTHWISE_CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2}
)
"""The position of the data of ops whose input 1 is a filter, or can be one."""


def _hybrid(view: LayerView) -> str:
    """Of float32 data with an int8 filter: whether that has a scale per channel; groups, or zero points.

    A DEPTHWISE_CONV_2D of one channel has its scale, and a CONV_2D without groups whose scales are all the
    same is taken for one with a single scale.
    """
    filter_ = view.input(1)
    scales = () if filter_.quantization is None else filter_.quantization.scale
    grouped = view.op == "CONV_2D" and conv_groups(view) > 1
    per_channel = len(scales) > 1
    if view.op == "CONV_2D" and not grouped:
        per_channel = len(set(scales)) > 1
    elif view.op == "DEPTHWISE_CONV_2D":
        per_channel = per_channel or filter_.shape[-1:] == (1,)
    return (
        "hybrid"
        + ("_per_channel" if per_channel else "")
        + ("_grouped" if grouped else "")
        + ("_asymmetric" if view.flag("asymmetric_quantize_inputs") else "")
    )


def has_one_tap(view: LayerView) -> bool:
    """Whether a CONV_2D without groups takes each pixel of its input once, by itself."""
    strides = view.integer("stride_h"), view.integer("stride_w")
    return view.input(1).shape[1:] == (1, 1, view.input(0).shape[3]) and strides == (1, 1)


def _bias(view: LayerView) -> str:
    """The bias type of an int16 layer, or that it has no bias; for FULLY_CONNECTED whether per channel."""
    bias = view.optional_input(3 if view.op == "TRANSPOSE_CONV" else 2)
    kind = "_unbiased" if bias is None else f"_bias{bias.dtype.removeprefix('int')}"
    filter_ = view.input(1)
    per_channel = filter_.quantization is not None and filter_.quantization.per_channel
    return kind + ("_per_channel" if view.op == "FULLY_CONNECTED" and per_channel else "")


def _shifted_operands(view: LayerView) -> str:
    if shifts_operands(view):
        return "_shifted"
    return "" if view.input(0).shape == view.input(1).shape else "_broadcast"


def _shifted_input(view: LayerView) -> str:
    return "_shifted" if shifts_input(view) else ""


def _slopes(view: LayerView) -> str:
    return "_slopes16" if view.input(1).dtype == "int16" else ""


def _of_one(view: LayerView) -> str:
    """Whether a reduction has one value to reduce for each of its outputs."""
    return "_of_one" if math.prod(view.input(0).shape) == math.prod(view.output().shape) else ""


def _plain(view: LayerView) -> str:  # noqa: ARG001 - one variant
    return ""


_OF_INT16: Mapping[str, Callable[[LayerView], str]] = MappingProxyType(
    {
        "ADD": _shifted_operands,
        "CONV_2D": _bias,
        "DEPTHWISE_CONV_2D": _bias,
        "FULLY_CONNECTED": _bias,
        "LOGISTIC": _shifted_input,
        "MEAN": _plain,
        "MUL": _plain,
        "PRELU": _slopes,
        "REDUCE_PROD": _of_one,
        "SUB": _shifted_operands,
        "TANH": _shifted_input,
        "TRANSPOSE_CONV": _bias,
    }
)
"""What tells variants of ops with int16 outputs apart, behind ``int16``; others are called by their type."""


def comparison_scales(view: LayerView) -> tuple[float, ...]:
    """The scales of a comparison's 8-bit inputs; none where it compares other types."""
    return tuple(
        tensor.scale for tensor in view.inputs if tensor is not None and tensor.dtype in ("int8", "uint8")
    )


def _broadcast(view: LayerView) -> str:
    """``int8``, ``int8_scalar`` or ``int8_general``, by the inner loop of an optimised kernel."""
    kind = inner_loop(view).kind
    return view.output().dtype + ("" if kind == "elementwise" else f"_{kind}")


def conv_groups(view: LayerView) -> int:
    """Groups of a CONV_2D: input channels over the filter's (OHWI) input channels, at least 1."""
    input_shape, filter_shape = view.input(0).shape, view.input(1).shape
    if len(input_shape) != 4 or len(filter_shape) != 4 or filter_shape[3] == 0:
        return 1
    return max(input_shape[3] // filter_shape[3], 1)


def _fully_connected(view: LayerView) -> str:
    filter_ = view.input(1)
    per_channel = filter_.quantization is not None and filter_.quantization.per_channel
    dtype = "int4" if filter_.dtype == "int4" else view.output().dtype
    return dtype + ("_per_channel" if per_channel else "")


def _logistic(view: LayerView) -> str:
    """TFLite's own kernels insist on an output of scale 1/256 from the type's minimum; XNNPACK does not."""
    output = view.output()
    low = QUANTIZED_RANGE.get(output.dtype, (0, 0))[0]
    usual = output.quantization is not None and output.scale == 1 / 256 and output.zero_point == low
    return output.dtype if usual else output.dtype + "_rescaled"


def overruns(view: LayerView) -> bool:
    """True for an int8 or int16 RESIZE_BILINEAR whose last output lies behind the image when TFLite rounds
    the step between outputs to 1/1024 pixel: its kernels then read memory that is not the image's."""
    image, output = view.input(0), view.output()
    if output.dtype not in ("int8", "int16") or len(image.shape) != 4 or len(output.shape) != 4:
        return False
    corners, centers = view.flag("align_corners"), view.flag("half_pixel_centers")
    for size, outputs in zip(image.shape[1:3], output.shape[1:3], strict=True):
        corner = 1 if corners and outputs > 1 else 0
        if outputs == corner:
            continue
        step = (1024 * (size - corner) + (outputs - corner) // 2) // (outputs - corner)
        if (outputs - 1) * step + (step // 2 - 512 if centers else 0) >= 1024 * size:
            return True
    return False


def _quantize(view: LayerView) -> str:
    source, target = view.input(0).dtype, view.output().dtype
    if source == "float32":
        return f"{target}_from_float"
    if "int16" in (source, target):
        return f"{source}_to_{target}"
    return "requantize" if source == target else "requantize_mixed"


def _mean(view: LayerView) -> str:
    """``spatial_repeated`` names an axis more than once, which tflite-runtime 2.14 does not see through."""
    if not is_spatial_mean(view):
        return "general"
    return "spatial" if view.input(1).shape == (2,) else "spatial_repeated"


def is_spatial_mean(view: LayerView) -> bool:
    """True for a MEAN over exactly y and x of a 4-D tensor that keeps its dimensions."""
    data, axes = view.input(0), view.input(1).data
    if axes is None or len(data.shape) != 4 or not view.flag("keep_dims"):
        return False
    return sorted({int(axis) % 4 for axis in axes.reshape(-1)}) == [1, 2]
