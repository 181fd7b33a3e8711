"""Layers of float32 data with int8 filters that TFLite's runtimes refuse, or get wrong."""

from __future__ import annotations

from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.refusal import Refusal, Refusals
from karat24.refimpl.profiles.tflite.variants import variant_of


def _is_hybrid(view: LayerView) -> bool:
    return variant_of(view).startswith("hybrid")


def _unbiased(view: LayerView) -> bool:
    return _is_hybrid(view) and view.optional_input(2) is None


def _one_scale(view: LayerView) -> bool:
    return variant_of(view) == "hybrid"


def _stores_scales(view: LayerView) -> bool:
    quantization = view.input(1).quantization
    return _is_hybrid(view) and quantization is not None and quantization.per_channel


def _equal_scales(view: LayerView) -> bool:
    return _one_scale(view) and _stores_scales(view)


TFLITE: Refusals = (
    Refusal(
        frozenset({"DEPTHWISE_CONV_2D"}),
        _one_scale,
        "behind float32 data its kernel reads one scale per channel, past the end of this filter's only one; "
        "quantize the filter per channel",
    ),
    Refusal(
        frozenset({"CONV_2D"}),
        _unbiased,
        "behind float32 data its CONV_2D takes no layer without a bias; store a bias of zeros",
    ),
)
"""LiteRT 2.3 and tflite-runtime 2.14, where no delegate takes the layer."""

VECTOR = 16
"""Products that the kernel below sums at once."""


def loses_a_sign(view: LayerView) -> bool:
    """A weight of -128 where LiteRT's SSE kernel of float32 data takes it, in CONV_2D and FULLY_CONNECTED."""
    filter_ = view.input(1)
    if filter_.data is None or not _is_hybrid(view) or (view.op == "CONV_2D" and not _one_scale(view)):
        return False
    rows = filter_.data.reshape(filter_.shape[0], -1)
    return bool((rows[:, : rows.shape[1] // VECTOR * VECTOR] == -128).any())


LOST_SIGN = Refusal(
    frozenset({"CONV_2D", "FULLY_CONNECTED"}),
    loses_a_sign,
    "behind float32 data its kernel takes the negative of a weight of -128 for -128, so that products with "
    "negative values have the wrong sign; store it as -127",
)
"""LiteRT 2.3 on x86-64, where no delegate takes the layer. Source: TFLite ``sse_tensor_utils.cc``."""

UNBIASED_DEPTHWISE = Refusal(
    frozenset({"DEPTHWISE_CONV_2D"}),
    _unbiased,
    "behind float32 data its optimised DEPTHWISE_CONV_2D dies where there is no bias; store one of zeros",
)
"""The optimised kernels of both."""

TFLITE_2_14: Refusals = (
    Refusal(
        frozenset({"CONV_2D"}),
        _equal_scales,
        "behind float32 data it takes a filter with the same scale for each channel for one with a single "
        "scale, reads 0 for that and gives the bias alone; store the scale once",
    ),
    Refusal(
        frozenset({"FULLY_CONNECTED"}),
        _stores_scales,
        "behind float32 data it lists no FULLY_CONNECTED with a scale per channel; quantize the filter per "
        "tensor",
    ),
    Refusal(
        frozenset({"BATCH_MATMUL"}),
        _stores_scales,
        "behind float32 data it takes 0 for the scale of a BATCH_MATMUL with several, and gives zeros; "
        "quantize the second input per tensor",
    ),
    Refusal(
        frozenset({"TRANSPOSE_CONV"}),
        _is_hybrid,
        "its TRANSPOSE_CONV takes data and filter of one type; put a DEQUANTIZE behind the filter",
    ),
)
"""tflite-runtime 2.14, both kinds of kernels."""

TFLITE_2_14_REF = Refusal(
    frozenset({"BATCH_MATMUL"}),
    lambda view: _is_hybrid(view) and view.flag("asymmetric_quantize_inputs"),
    "its reference kernels list no BATCH_MATMUL with asymmetric_quantize_inputs; leave the attribute out, or "
    "run the builtin ones",
)

ANY = Refusal(
    frozenset({"BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}),
    _is_hybrid,
    "it runs no float32 data with an int8 filter; quantize activations, too",
)
"""TensorFlow Lite Micro."""
