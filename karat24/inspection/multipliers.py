"""A real multiplier in the forms that runtimes store it in.

Sources: TensorFlow Lite / LiteRT 2.3.0 ``QuantizeMultiplier``; CMSIS-NN ``arm_nnsupportfunctions.h``
(``LEFT_SHIFT``, ``RIGHT_SHIFT``, ``REDUCE_MULTIPLIER``); gemmlowp
``OutputStageQuantizeDownInt32ByFixedPoint``; ruy ``MulParams``; XNNPACK ``fp32`` requantization and
ONNX Runtime 1.31 ``QLinearConv``, one float32 scale; Edge TPU models, one float32 per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.spec.shared.primitives import effective_multiplier, quantize_multiplier


@dataclass(frozen=True)
class Product:
    """``input * filter / output``, three float32 scales: what an accumulator is multiplied with.

    A plain ratio has ``filter`` 1. ``wide`` says that the accumulator is of 16-bit activations, for which
    CMSIS-NN shortens its multipliers.
    """

    input: float
    filter: float
    output: float
    wide: bool = False

    def forms(self) -> dict[str, Any]:
        """The multiplier in every form; ``q31`` of another evaluation only where it is another number.

        ``real`` is evaluated in float64. A positive shift is a left shift, unless its name says otherwise.
        """
        real = float(effective_multiplier("float64", self.input, self.filter, self.output))
        rounded = float(effective_multiplier("float32_product", self.input, self.filter, self.output))
        single = effective_multiplier("float32", self.input, self.filter, self.output)
        forms: dict[str, Any] = {"real": real, "float32": float(single), "float32_bits": float32_bits(single)}
        forms |= {
            "edgetpu_float32": float(np.float32(real)),
            "edgetpu_float32_bits": float32_bits(np.float32(real)),
        }
        if (pair := _pair(real)) is not None:
            forms |= pair_forms(*pair, self.wide)
        if (other := _pair(rounded)) not in (None, pair):
            forms["q31_of_float32_product"] = _named(other)
        if (other := _pair(float(single))) not in (None, pair):
            forms["q31_of_float32"] = _named(other)
        return forms


def _pair(real: float) -> tuple[int, int] | None:
    """TFLite's multiplier and shift; None for what is not a finite number."""
    try:
        return quantize_multiplier(real)
    except UnsupportedOp:
        return None


def _named(pair: tuple[int, int] | None) -> dict[str, int] | None:
    return None if pair is None else {"multiplier": pair[0], "shift": pair[1]}


def float32_bits(value: Any) -> str:
    """The bits of a float32, as hexadecimal digits."""
    return f"0x{int(np.float32(value).view(np.uint32)):08x}"


def pair_forms(multiplier: int, shift: int, wide: bool = False) -> dict[str, Any]:
    """The forms of one Q0.31 multiplier and shift, ``multiplier * 2^(shift - 31)``."""
    cmsis = {
        "multiplier": multiplier,
        "shift": shift,
        "left_shift": max(shift, 0),
        "right_shift": max(-shift, 0),
    }
    if wide:
        cmsis["reduced_multiplier"] = min((multiplier + (1 << 15)) >> 16, 0x7FFF)
    return {
        "q31": {"multiplier": multiplier, "shift": shift},
        "cmsis_nn": cmsis,
        "ruy": {"multiplier_fixedpoint": multiplier, "multiplier_exponent": shift},
        "gemmlowp": {"result_fixedpoint_multiplier": multiplier, "result_shift": -shift},
    }
