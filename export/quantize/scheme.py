"""Quantization schemes: element types, granularity, and the choice of ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

from karat24.refimpl.errors import UsageError

Activations: TypeAlias = Literal["int8", "uint8", "int16"]
RangeMethodName: TypeAlias = Literal["minmax", "percentile", "mse"]


@dataclass(frozen=True)
class RangeMethod:
    """The way an activation's range follows from its values.

    ``minmax``: the least and greatest value seen. ``percentile``: the range that leaves
    ``100 - percentile`` percent of the values outside at either end. ``mse``: the range whose
    8-bit quantization has the least mean squared error over the values seen.
    """

    name: RangeMethodName = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.name not in ("minmax", "percentile", "mse"):
            raise UsageError(f"range method {self.name!r} is none of 'minmax', 'percentile', 'mse'")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile {self.percentile!r} is not above 50 and at most 100")


@dataclass(frozen=True)
class QuantizationScheme:
    """A way to quantize a network to 8 bits, or to activations of 16 bits with filters of 8 ("16x8").

    ``activations``: element type of activations. ``filters``: one scale per output channel, or
    one per tensor. ``biases``: element type of biases; int64 goes with int16 activations, whose sums no
    int32 may hold. ``input_output``: element type of the graph's inputs and outputs; where it is not
    ``activations``, a QUANTIZE stands at each end, as TensorFlow's converter puts it.
    ``symmetric_activations``: zero point 0 everywhere (int8, and always int16). ``range_method``: how
    activations' ranges are chosen. ``filter_ranges``: a filter's range is that of its weights
    (``minmax``), or the one inside it whose quantization has the least squared error (``mse``).
    ``equalize``: rescale channels between layers first (:mod:`karat24.export.quantize.equalization`).
    ``correct_bias``: take the mean error over the samples out of every layer's bias
    (:mod:`karat24.export.quantize.bias_correction`).

    Filters of int8 and int16 networks are symmetric int8 in -127..127; filters of uint8 networks are
    asymmetric uint8 in 1..255, per tensor only, since no runtime takes them per channel. Raises
    UsageError for combinations no runtime takes.
    """

    activations: Activations = "int8"
    filters: Literal["per_channel", "per_tensor"] = "per_channel"
    input_output: Activations = "int8"
    symmetric_activations: bool = False
    range_method: RangeMethod = field(default_factory=RangeMethod)
    filter_ranges: Literal["minmax", "mse"] = "minmax"
    equalize: bool = False
    correct_bias: bool = False
    biases: Literal["int32", "int64"] = "int32"

    def __post_init__(self) -> None:
        for name in ("activations", "input_output"):
            if getattr(self, name) not in ("int8", "uint8", "int16"):
                raise UsageError(f"{name} {getattr(self, name)!r} is none of 'int8', 'uint8', 'int16'")
        if self.filters not in ("per_channel", "per_tensor"):
            raise UsageError(f"filters {self.filters!r} is neither 'per_channel' nor 'per_tensor'")
        if self.filter_ranges not in ("minmax", "mse"):
            raise UsageError(f"filter ranges {self.filter_ranges!r} are neither 'minmax' nor 'mse'")
        if self.activations == "uint8" and self.filters == "per_channel":
            raise UsageError(
                "uint8 activations go with per-tensor filters only; use int8 for per-channel ones"
            )
        if self.activations == "uint8" and self.symmetric_activations:
            raise UsageError("symmetric activations (zero point 0) are int8; uint8 has no negative values")
        self._check_wide()

    def _check_wide(self) -> None:
        if self.biases not in ("int32", "int64"):
            raise UsageError(f"biases {self.biases!r} are neither 'int32' nor 'int64'")
        wide = self.activations == "int16"
        if wide != (self.input_output == "int16"):
            raise UsageError(
                "int16 activations go with int16 inputs and outputs, and 8-bit ones with 8-bit ones"
            )
        if self.biases == "int64" and not wide:
            raise UsageError("biases of int64 go with int16 activations only")
        if wide and not self.symmetric_activations:
            raise UsageError("int16 activations are symmetric (zero point 0): no runtime takes others")
        if wide and self.range_method.name == "mse":
            raise UsageError(
                "ranges of least error are searched for 8 bits; 16 bits have room for every value: use minmax"
            )

    def without_steps(self) -> QuantizationScheme:
        """This scheme's types and granularity, with min/max ranges and without corrections."""
        return replace(
            self, range_method=RangeMethod(), filter_ranges="minmax", equalize=False, correct_bias=False
        )


PER_CHANNEL_INT8 = QuantizationScheme(filter_ranges="mse", correct_bias=True)
"""Today's scheme: per-channel symmetric int8 filters, asymmetric int8 activations. (Equalization gained
nothing where each channel has a scale of its own.)"""

MOBILE_INT8 = replace(PER_CHANNEL_INT8, input_output="uint8")
"""``PER_CHANNEL_INT8`` with uint8 inputs and outputs, as mobile apps and the Edge TPU compiler expect."""

PER_TENSOR_UINT8 = QuantizationScheme(
    "uint8", "per_tensor", "uint8", filter_ranges="mse", equalize=True, correct_bias=True
)
"""The scheme of 2019, with which TomoGAN first ran on the Edge TPU: all uint8, one scale per tensor."""

SYMMETRIC_INT8 = QuantizationScheme(
    symmetric_activations=True, filter_ranges="mse", equalize=True, correct_bias=True
)
"""int8 with zero point 0 throughout, as TensorRT requires."""

INT16X8 = QuantizationScheme(
    "int16", input_output="int16", symmetric_activations=True, filter_ranges="mse", biases="int64"
)
"""int16 activations and int8 filters per channel, as TensorFlow's converter writes them ("16x8")."""

PRESETS: Mapping[str, QuantizationScheme] = MappingProxyType(
    {
        "int8": PER_CHANNEL_INT8,
        "int8-mobile": MOBILE_INT8,
        "uint8-2019": PER_TENSOR_UINT8,
        "int8-symmetric": SYMMETRIC_INT8,
        "int16x8": INT16X8,
    }
)
"""Schemes by the name the command line knows them by. What corrects each is what gained on trained TomoGAN
(:func:`karat24.export.quantize.gains`)."""
