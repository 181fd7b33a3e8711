"""Post-training quantization: observe a float network, choose ranges, correct it, write it in 8 bits."""

from export.quantize.affine import Range
from export.quantize.bias_correction import correct_biases
from export.quantize.calibration import calibrate, float_runner, observe, run_float
from export.quantize.equalization import equalize
from export.quantize.measure import Deviation, Gain, best_of, gains
from export.quantize.overflow import check_accumulators
from export.quantize.quantize import output_range, quantize_graph, quantize_learnt, quantize_model
from export.quantize.scheme import (
    MOBILE_INT8,
    PER_CHANNEL_INT8,
    PER_TENSOR_UINT8,
    PRESETS,
    SYMMETRIC_INT8,
    QuantizationScheme,
    RangeMethod,
)

__all__ = [
    "MOBILE_INT8",
    "PER_CHANNEL_INT8",
    "PER_TENSOR_UINT8",
    "PRESETS",
    "SYMMETRIC_INT8",
    "Deviation",
    "Gain",
    "QuantizationScheme",
    "Range",
    "RangeMethod",
    "best_of",
    "calibrate",
    "check_accumulators",
    "correct_biases",
    "equalize",
    "float_runner",
    "gains",
    "observe",
    "output_range",
    "quantize_graph",
    "quantize_learnt",
    "quantize_model",
    "run_float",
]
