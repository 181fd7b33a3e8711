"""Post-training quantization: observe a float network, choose ranges, correct it, write it in 8 bits."""

from karat24.export.quantize.affine import Range
from karat24.export.quantize.bias_correction import correct_biases
from karat24.export.quantize.calibration import calibrate, float_runner, observe, run_float
from karat24.export.quantize.equalization import equalize
from karat24.export.quantize.measure import Deviation, Gain, best_of, gains
from karat24.export.quantize.overflow import check_accumulators
from karat24.export.quantize.quantize import output_range, quantize_graph, quantize_learnt, quantize_model
from karat24.export.quantize.scheme import (
    INT16X8,
    MOBILE_INT8,
    PER_CHANNEL_INT8,
    PER_TENSOR_UINT8,
    PRESETS,
    SYMMETRIC_INT8,
    QuantizationScheme,
    RangeMethod,
)

__all__ = [
    "INT16X8",
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
