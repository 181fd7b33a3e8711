"""Post-training quantization: observe a float network, choose ranges, write it in 8 bits."""

from export.quantize.affine import Range
from export.quantize.calibration import calibrate, float_runner, observe, run_float
from export.quantize.overflow import check_accumulators
from export.quantize.quantize import quantize_graph, quantize_model
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
    "QuantizationScheme",
    "Range",
    "RangeMethod",
    "calibrate",
    "check_accumulators",
    "float_runner",
    "observe",
    "quantize_graph",
    "quantize_model",
    "run_float",
]
