"""Layers a runtime refuses by itself, each with its reason: no rule can say how it rounds them.

Established by giving models on both sides of every condition to LiteRT 2.3.0, tflite-runtime
2.14.0 and TensorFlow Lite Micro (PyPI ``tflite-micro``, October 2026) on x86-64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from karat24.refimpl.graph import LayerView
from karat24.refimpl.profiles.tflite.variants import COMPARISONS, comparison_scales, variant_of
from karat24.refimpl.profiles.tflite.xnnpack_tensors import product, ratio, same_parameters


@dataclass(frozen=True)
class Refusal:
    """One thing a runtime refuses: layers of ``ops`` (every op where it is empty) that ``applies`` to.

    ``reason`` completes the sentence "the runtime refuses the layer: ..." and says what helps.
    """

    ops: frozenset[str]
    applies: Callable[[LayerView], bool]
    reason: str

    def covers(self, view: LayerView) -> bool:
        """True when the runtime refuses this layer for this reason."""
        return (not self.ops or view.op in self.ops) and self.applies(view)


Refusals = tuple[Refusal, ...]


def axis_outside(view: LayerView) -> bool:
    """A tensor of the layer is quantized along a dimension that it does not have."""
    return any(
        tensor is not None
        and tensor.quantization is not None
        and tensor.quantization.per_channel
        and tensor.quantization.axis >= len(tensor.shape)
        for tensor in (*view.inputs, *view.outputs)
    )


def _rescaled(view: LayerView) -> bool:
    return variant_of(view) in ("int8_rescaled", "uint8_rescaled")


def _scale_of_one(view: LayerView) -> bool:
    return 1.0 in comparison_scales(view)


def _scale_from_one(view: LayerView) -> bool:
    return any(scale >= 1 for scale in comparison_scales(view))


def _other_parameters(view: LayerView) -> bool:
    return not same_parameters(view.input(0), view.output())


def _large_multiplier(view: LayerView) -> bool:
    """``s_in * s_filter / s_out`` in float32 is 256 or more for some output channel."""
    image, filter_, output = view.input(0), view.input(1), view.output()
    if image.dtype not in ("int8", "uint8") or filter_.quantization is None:
        return False
    return any(
        ratio(product(image.scale, scale), output.scale) >= 256 for scale in filter_.quantization.scale
    )


LITERT: Refusals = (
    Refusal(
        frozenset(),
        axis_outside,
        "a vector's scales are stored for a dimension that it does not have; set the tensor's "
        "quantized_dimension to 0",
    ),
    Refusal(
        frozenset({"LOGISTIC"}),
        _rescaled,
        "its LOGISTIC kernel takes an output scale of 1/256 only; quantize the output so",
    ),
    Refusal(
        COMPARISONS,
        _scale_of_one,
        "an input scale of exactly 1 ends its process; quantize the input with a scale below 1",
    ),
)
"""LiteRT 2.3 and tflite-runtime 2.14, where no delegate takes the layer."""


def _on_int8(view: LayerView) -> bool:
    return view.output().dtype == "int8"


_NO_ELU = Refusal(frozenset({"ELU"}), _on_int8, "its reference kernels have no ELU; run the builtin ones")

LITERT_REF: Refusals = (*LITERT, _NO_ELU)
"""LiteRT 2.3's reference kernels."""

TFLITE_2_14: Refusals = (
    *LITERT,
    Refusal(
        frozenset({"LOG", "NEG", "SQRT"}),
        _on_int8,
        "its kernel takes float32 only; put a DEQUANTIZE before and a QUANTIZE behind, or run LiteRT",
    ),
)
"""tflite-runtime 2.14's builtin kernels."""

TFLITE_2_14_REF: Refusals = (*TFLITE_2_14, _NO_ELU)
"""tflite-runtime 2.14's reference kernels."""

XNNPACK: Refusals = (
    LITERT[0],
    Refusal(
        frozenset({"MAX_POOL_2D", "PAD", "RESIZE_BILINEAR"}),
        _other_parameters,
        "its XNNPACK delegate takes the layer and cannot build it, since the output has another scale or "
        "zero point than the input; give both tensors one scale and zero point, or run without XNNPACK",
    ),
    Refusal(
        frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"}),
        _large_multiplier,
        "its XNNPACK delegate takes the layer and cannot build it, since s_in * s_filter / s_out is 256 or "
        "more; check the output's range, or run without XNNPACK",
    ),
)
"""LiteRT 2.3, layers that its XNNPACK delegate takes: the whole model does not load then."""

TFLM: Refusals = (
    Refusal(
        COMPARISONS,
        _scale_from_one,
        "an input scale of 1 or more stops it; quantize the input with a scale below 1",
    ),
    Refusal(
        frozenset({"EXP", "LOG", "NEG", "SQRT"}),
        _on_int8,
        "its kernel takes float32 only; put a DEQUANTIZE before and a QUANTIZE behind",
    ),
    Refusal(frozenset({"GELU"}), lambda _: True, "it has no GELU"),
)
"""TensorFlow Lite Micro. It does not look at ``quantized_dimension``."""
