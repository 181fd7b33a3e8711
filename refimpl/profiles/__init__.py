"""Arithmetic profiles: each names a runtime *and its version*, and maps every layer to a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from refimpl.errors import UnsupportedOp, UsageError
from refimpl.graph import Format, Graph, LayerView
from refimpl.profiles.onnx import table as onnx
from refimpl.profiles.rules import METHODS, Rule
from refimpl.profiles.tflite import table as tflite
from refimpl.profiles.tflite.variants import variant_of
from refimpl.profiles.tflite.xnnpack import xnnpack_takes

__all__ = ["CANONICAL", "METHODS", "PROFILES", "Profile", "Rule", "profile_for", "profile_named"]


@dataclass(frozen=True)
class Profile:
    """A named arithmetic of one file format's ops.

    ``delegated`` is consulted first, for layers ``xnnpack_takes``; ``table`` says the rest.
    With ``open_ties`` the runtime does not settle which way an exact tie of an accumulator
    goes: a difference of one step there is explained by that. With ``fuses_qdq`` it turns ops
    between DequantizeLinear and QuantizeLinear into integer ops.
    """

    name: str
    runtime: str
    table: tflite.RuleTable
    delegated: tflite.RuleTable | None = None
    format: Format = "tflite"
    open_ties: bool = False
    fuses_qdq: bool = False

    def rule(self, view: LayerView) -> Rule:
        """How this profile rounds the layer. Raises UnsupportedOp when it says nothing about it."""
        if self.delegated is not None and xnnpack_takes(view):
            return self._look_up(self.delegated, view)
        return self._look_up(self.table, view)

    def _look_up(self, table: tflite.RuleTable, view: LayerView) -> Rule:
        variant = onnx.variant_of(view) if self.format == "onnx" else variant_of(view)
        rules = table.get(view.op, {})
        rule = rules.get(variant, rules.get("*"))
        if rule is None:
            raise UnsupportedOp(
                f"profile {self.name} has no rule for {view}, variant {variant!r}; "
                "add one to refimpl/profiles/"
            )
        return rule


CANONICAL = "litert-2.3-ref"
CANONICAL_ONNX = "ort-1.31"

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(CANONICAL, "LiteRT 2.3.0, BUILTIN_REF kernels", tflite.LITERT_2_3_REF),
            Profile(
                "litert-2.3-builtin",
                "LiteRT 2.3.0, optimised kernels on x86-64, one thread, no delegate",
                tflite.LITERT_2_3_BUILTIN,
            ),
            Profile(
                "litert-2.3-xnnpack",
                "LiteRT 2.3.0 with its XNNPACK delegate on x86-64",
                tflite.LITERT_2_3_BUILTIN,
                tflite.LITERT_2_3_XNNPACK,
            ),
            Profile("tflite-2.14-ref", "tflite-runtime 2.14.0, BUILTIN_REF kernels", tflite.TFLITE_2_14_REF),
            Profile(
                "tflite-2.14-builtin",
                "tflite-runtime 2.14.0, optimised kernels on x86-64",
                tflite.TFLITE_2_14_BUILTIN,
            ),
            Profile("tflm", "TensorFlow Lite Micro reference kernels, double rounding", tflite.TFLM),
            Profile(
                "ort-1.31",
                "ONNX Runtime 1.31, integer kernels, CPU with VNNI",
                onnx.ORT_1_31,
                format="onnx",
                fuses_qdq=True,
            ),
            Profile(
                "ort-1.31-avx2",
                "ONNX Runtime 1.31, integer kernels, x86-64 with AVX2 but no VNNI",
                onnx.ORT_1_31_AVX2,
                format="onnx",
                fuses_qdq=True,
            ),
            Profile("onnx-spec", "onnx.reference 1.23", onnx.ONNX_SPEC, format="onnx"),
            Profile(
                "tensorrt",
                "TensorRT 10, as documented",
                onnx.TENSORRT,
                format="onnx",
                open_ties=True,
                fuses_qdq=True,
            ),
        )
    }
)
"""Every profile by name."""


def profile_for(graph: Graph, profile: str | Profile | None = None) -> Profile:
    """``profile`` itself, or by name, or the canonical one of the graph's format when it is None.

    Raises UsageError when there is no such profile or it describes another format's ops.
    """
    if profile is None:
        profile = {"tflite": CANONICAL, "onnx": CANONICAL_ONNX}[graph.format]
    if isinstance(profile, str):
        profile = profile_named(profile)
    if profile.format != graph.format:
        fitting = [name for name, known in PROFILES.items() if known.format == graph.format]
        raise UsageError(
            f"profile {profile.name} describes .{profile.format} models, this one is {graph.format}; "
            f"choose one of {', '.join(fitting)}"
        )
    return profile


def profile_named(name: str) -> Profile:
    """The profile called ``name``. Raises UsageError listing the known names."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(f"no profile {name!r}; known: {', '.join(PROFILES)}") from None
