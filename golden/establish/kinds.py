"""The kinds of layers that a runtime is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from karat24.refimpl.graph import Format
from karat24.refimpl.profiles.space import FROM_FLOAT, MICROSOFT, SPACES, Space


@dataclass(frozen=True)
class Kind:
    """A kind of layer: its op, the element type of its data, and what else makes a rule of its own.

    ``per_channel``: the filter has a scale for each channel. ``filter`` is the filter's element type, where
    it may be another one. ``form`` names a case of the op.
    """

    op: str
    dtype: str
    per_channel: bool = False
    filter: str = ""
    form: str = ""

    @property
    def format(self) -> Format:
        """The format of files that have the op."""
        return "tflite" if self.op.isupper() else "onnx"

    @property
    def space(self) -> Space:
        """The rules to choose from."""
        return FROM_FLOAT[self.op] if self.form == "from float" else SPACES[self.op]

    def __str__(self) -> str:
        words = (
            self.op, self.dtype, self.filter and f"by {self.filter}",
            "per channel" if self.per_channel else "", self.form and f"({self.form})",
        )  # fmt: skip
        return " ".join(filter(None, words))


BYTES = ("int8", "uint8")

WEIGHTED = (
    *(
        Kind(op, dtype, per_channel)
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
        for dtype, per_channel in (("int8", True), ("int8", False), ("uint8", False))
    ),
    Kind("CONV_2D", "int8", True, form="grouped"),
    *(
        Kind(op, dtype, filter_ == "int8", filter_, form)
        for op, form in (
            ("QLinearConv", ""),
            ("QLinearConv", "depthwise"),
            ("QLinearMatMul", ""),
            (f"{MICROSOFT}QGemm", ""),
        )
        for dtype, filter_ in (("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"))
    ),
)
"""Sums of products: their rule is sought beside the thresholds on which rules differ."""

TABLES = (
    *(
        Kind(op, dtype, form=form)
        for op, form in (
            ("ADD", ""), ("ADD", "scalar"), ("SUB", ""), ("MUL", ""), ("MUL", "scalar"), ("QUANTIZE", ""),
            ("DEQUANTIZE", ""), ("LEAKY_RELU", ""), ("LEAKY_RELU", "negative"), ("HARD_SWISH", ""),
            ("RELU", ""), ("RELU", "same scale"), ("RELU6", ""), ("LOGISTIC", ""),
            ("DequantizeLinear", ""), (f"{MICROSOFT}QLinearAdd", ""), (f"{MICROSOFT}QLinearAdd", "scalar"),
            (f"{MICROSOFT}QLinearMul", ""), (f"{MICROSOFT}QLinearLeakyRelu", ""),
            (f"{MICROSOFT}QLinearSigmoid", ""),
        )
        for dtype in BYTES
    ),
)  # fmt: skip
"""Ops of one or two bytes: all values, or all pairs."""

SAMPLED = (
    Kind("TANH", "int8"),
    Kind("BATCH_MATMUL", "int8"),
    Kind("CONCATENATION", "uint8"),
    Kind("EXP", "int8"),
    Kind("ELU", "int8"),
    *(
        Kind(op, dtype, form=form)
        for op, form in (
            ("QUANTIZE", "from float"), ("SOFTMAX", ""), ("LOG_SOFTMAX", ""), ("MEAN", "spatial"),
            ("MEAN", "general"), ("AVERAGE_POOL_2D", ""), ("MAX_POOL_2D", ""), ("RESIZE_BILINEAR", ""),
            ("PRELU", ""), ("L2_NORMALIZATION", ""),
            ("QuantizeLinear", ""), ("MaxPool", ""), ("Resize", "linear"),
            (f"{MICROSOFT}QLinearAveragePool", "windows"), (f"{MICROSOFT}QLinearAveragePool", "whole image"),
            (f"{MICROSOFT}QLinearGlobalAveragePool", ""), (f"{MICROSOFT}QLinearSoftmax", ""),
            (f"{MICROSOFT}QLinearConcat", ""),
        )
        for dtype in BYTES
    ),
    *(
        Kind(op, "uint8", filter=filter_)
        for op in ("ConvInteger", "MatMulInteger", f"{MICROSOFT}MatMulIntegerToFloat")
        for filter_ in ("int8", "uint8")
    ),
    Kind("Sigmoid", "float32"),
)  # fmt: skip
"""Ops without a finite description: values drawn, with ties and both ends among them."""


def _of(format: Format) -> tuple[Kind, ...]:
    return tuple(kind for kind in (*WEIGHTED, *TABLES, *SAMPLED) if kind.format == format)


KINDS: Mapping[Format, tuple[Kind, ...]] = MappingProxyType({"tflite": _of("tflite"), "onnx": _of("onnx")})
"""Everything that is asked of a runtime of each format."""
