"""Layers a runtime refuses by itself, each with its reason: no rule can say how it rounds them.

Established by giving models on both sides of every condition to LiteRT 2.3.0, tflite-runtime
2.14.0 and TensorFlow Lite Micro (PyPI ``tflite-micro``, October 2026) on x86-64.
"""

from __future__ import annotations

from dataclasses import replace

from karat24.refimpl.graph import LayerView, Tensor
from karat24.refimpl.profiles.refusal import Refusal, Refusals
from karat24.refimpl.profiles.tflite import hybrid_refusals as hybrid
from karat24.refimpl.profiles.tflite.beyond_int32 import WEIGHTED, wraps_below
from karat24.refimpl.profiles.tflite.detection_options import options_of
from karat24.refimpl.profiles.tflite.lstm_variants import ALL_GATES_AND_NO_MORE, is_varied
from karat24.refimpl.profiles.tflite.powers_of_two import nearest_power
from karat24.refimpl.profiles.tflite.variants import COMPARISONS, comparison_scales, variant_of
from karat24.refimpl.profiles.tflite.xnnpack import xnnpack_takes
from karat24.refimpl.profiles.tflite.xnnpack_tensors import product, ratio, same_parameters


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


def _bias_of_int16(view: LayerView) -> Tensor | None:
    """The bias of a layer of int16 outputs, None where it has none."""
    bias = view.optional_input(3 if view.op == "TRANSPOSE_CONV" else 2)
    return bias if view.output().dtype == "int16" else None


def _int32_bias(view: LayerView) -> bool:
    bias = _bias_of_int16(view)
    return bias is not None and bias.dtype == "int32"


def _unnamed_int32_bias(view: LayerView) -> bool:
    return _int32_bias(view) and view.text("quantized_bias_type", "float32") == "float32"


def _named_bias(view: LayerView) -> bool:
    return _bias_of_int16(view) is not None and view.text("quantized_bias_type", "float32") != "float32"


def _widened_to_int16(view: LayerView) -> bool:
    return view.input(0).dtype in ("int8", "uint8") and view.output().dtype == "int16"


def _int4_filter(view: LayerView) -> bool:
    return view.input(1).dtype == "int4"


def _rescaled_int16(view: LayerView) -> bool:
    return _is_int16(view) and _other_parameters(view)


def _divides_int8_or_int16(view: LayerView) -> bool:
    return view.output().dtype in ("int8", "int16")


def _divides_uint8_or_int16(view: LayerView) -> bool:
    return view.output().dtype in ("uint8", "int16")


def _int16_slopes(view: LayerView) -> bool:
    return view.input(1).dtype == "int16"


def _sums_others(view: LayerView) -> bool:
    return view.output().dtype in ("int32", "int64", "uint8")


def _is_int16(view: LayerView) -> bool:
    return view.output().dtype == "int16"


def _other_output_scale(view: LayerView) -> bool:
    return _is_int16(view) and nearest_power(view.output().scale) != (-15, True)


def _broadcast_shifts(view: LayerView) -> bool:
    return variant_of(view) == "int16_shifted" and view.input(0).shape != view.input(1).shape


def _shifted(view: LayerView) -> bool:
    return variant_of(view) == "int16_shifted"


def _int16_to_uint8(view: LayerView) -> bool:
    return view.input(0).dtype == "int16" and view.output().dtype == "uint8"


_TFLITE: Refusals = (
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
        frozenset({"DEPTHWISE_CONV_2D"}),
        _int32_bias,
        "behind int16 activations its kernel takes an int64 bias only; store the bias as int64",
    ),
    Refusal(
        frozenset({"ADD"}),
        _broadcast_shifts,
        "adding int16 tensors of different shapes whose scales are powers of two ends its process; set "
        "pot_scale_int16 to false",
    ),
    Refusal(
        frozenset({"LOGISTIC", "TANH"}),
        _other_output_scale,
        "an int16 output has a scale of 2^-15, and this one has not; quantize it so",
    ),
    Refusal(
        frozenset({"RELU_N1_TO_1"}),
        _is_int16,
        "its RELU_N1_TO_1 kernel lacks int16; clamp with MINIMUM and MAXIMUM",
    ),
    Refusal(
        frozenset({"QUANTIZE"}),
        _int16_to_uint8,
        "it quantizes int16 values to int8, int16 and int32 only",
    ),
    *hybrid.TFLITE,
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

_READ_AS_INT64 = (
    "behind int16 activations its kernel reads this int32 bias as int64, past its end; set "
    "quantized_bias_type to int32, or store the bias as int64"
)
"""The runtime does run such a layer; what it adds is memory that is not the bias's."""

_READS_PAST_BIAS = Refusal(frozenset({"CONV_2D", "TRANSPOSE_CONV"}), _unnamed_int32_bias, _READ_AS_INT64)

LITERT: Refusals = (
    *_TFLITE,
    hybrid.UNBIASED_DEPTHWISE,
    _READS_PAST_BIAS,
)
"""LiteRT 2.3, where no delegate takes the layer."""

LITERT_REF: Refusals = (
    *_TFLITE,
    _READS_PAST_BIAS,
    Refusal(frozenset({"FULLY_CONNECTED"}), _unnamed_int32_bias, _READ_AS_INT64),
    Refusal(
        frozenset({"SUM"}),
        _is_int16,
        "its reference kernel reads int16 values as bytes, and leaves half of the output as it was; run the "
        "builtin kernels",
    ),
    _NO_ELU,
)
"""LiteRT 2.3's reference kernels."""

_TFLITE_2_14: Refusals = (
    *_TFLITE,
    *hybrid.TFLITE_2_14,
    Refusal(
        frozenset({"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}),
        _named_bias,
        "it lists no version of the op with a quantized_bias_type; leave the attribute out",
    ),
    Refusal(
        frozenset({"QUANTIZE"}),
        _widened_to_int16,
        "it quantizes 8-bit values to 8 bits only",
    ),
    Refusal(
        frozenset({"FULLY_CONNECTED"}),
        _int4_filter,
        "its FULLY_CONNECTED takes no int4 filter; store it as int8",
    ),
    Refusal(
        frozenset({"PRELU", "TILE"}),
        _is_int16,
        "its kernel lacks int16",
    ),
    Refusal(
        frozenset({"SUM"}),
        _rescaled_int16,
        "it adds int16 values of one scale only; give both tensors one scale",
    ),
    Refusal(
        frozenset({"DIV"}),
        _divides_int8_or_int16,
        "it divides float32, int32 and uint8 values only",
    ),
    Refusal(
        frozenset({"LOG", "NEG", "SQRT"}),
        _on_int8,
        "its kernel takes float32 only; put a DEQUANTIZE before and a QUANTIZE behind, or run LiteRT",
    ),
)

TFLITE_2_14: Refusals = (*_TFLITE_2_14, hybrid.UNBIASED_DEPTHWISE)
"""tflite-runtime 2.14's builtin kernels."""

TFLITE_2_14_REF: Refusals = (*_TFLITE_2_14, _NO_ELU, hybrid.TFLITE_2_14_REF)
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

LITERT_SILENT: Refusals = (hybrid.LOST_SIGN,)
"""LiteRT 2.3 on x86-64, where no delegate takes the layer."""

XNNPACK_SILENT: Refusals = (
    replace(hybrid.LOST_SIGN, applies=lambda view: not xnnpack_takes(view) and hybrid.loses_a_sign(view)),
    Refusal(
        WEIGHTED,
        lambda view: xnnpack_takes(view) and wraps_below(view),
        "it depends on the processor below -2^31, which a sum of products times its multiplier can reach: on "
        "AVX512 XNNPACK adds the negative zero point in int32, which wraps to the largest result, elsewhere "
        "in 16 bits, which saturate; check the scales, or run without XNNPACK",
    ),
)
"""LiteRT 2.3 with its XNNPACK delegate on x86-64."""


def _unbiased_svdf(view: LayerView) -> bool:
    return view.optional_input(3) is None


def _other_bias_scale(view: LayerView) -> bool:
    bias = view.optional_input(3)
    if bias is None:
        return False
    scale = 0.0 if bias.quantization is None else bias.scale
    return abs(scale - view.input(4).scale * view.input(2).scale) >= 1e-5


def _several_classes_of_a_box(view: LayerView) -> bool:
    options = options_of(view)
    return not options.regular and options.per_box_written > 1


TFLM: Refusals = (
    Refusal(
        frozenset({"CUSTOM:TFLite_Detection_PostProcess"}),
        _several_classes_of_a_box,
        "its fast suppression writes several classes of a box to wrong places, some behind its outputs; set "
        "max_classes_per_detection to 1",
    ),
    Refusal(
        frozenset({"SVDF"}),
        _unbiased_svdf,
        "an int8 SVDF without a bias ends its process; give it a bias of zeros",
    ),
    Refusal(
        frozenset({"SVDF"}),
        _other_bias_scale,
        "the scale of the bias is not that of the state times that of the time weights; make it so",
    ),
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
    hybrid.ANY,
    Refusal(frozenset({"GELU", "LSTM", "REDUCE_PROD"}), lambda _: True, "it lacks the op"),
    Refusal(frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM"}), is_varied, ALL_GATES_AND_NO_MORE),
    Refusal(
        frozenset({"PRELU"}),
        _int16_slopes,
        "behind int16 activations its slopes are int8; store them so",
    ),
    Refusal(frozenset({"SUM"}), _sums_others, "it adds float32, int8 and int16 values only"),
    Refusal(frozenset({"DIV"}), _divides_uint8_or_int16, "it divides float32, int32 and int8 values only"),
    Refusal(
        frozenset({"DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}),
        _int32_bias,
        "behind int16 activations it computes right with an int64 bias only; store the bias as int64",
    ),
)
"""TensorFlow Lite Micro. It does not look at ``quantized_dimension``."""

TFLM_SILENT: Refusals = (
    Refusal(frozenset({"ADD", "SUB"}), _shifted, "its int16 sums of scales that are powers of two differ"),
    Refusal(frozenset({"SOFTMAX"}), _is_int16, "its int16 softmax differs in single steps"),
)
"""Layers TensorFlow Lite Micro computes otherwise than the runtimes whose rules it shares."""
