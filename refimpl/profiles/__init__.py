"""Arithmetic profiles: each names a runtime *and its version*, and maps every layer to a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from refimpl.errors import RefusedByRuntime, UnsupportedOp, UsageError
from refimpl.graph import Format, Graph, LayerView
from refimpl.profiles import onnx, refusals, tflite
from refimpl.profiles.rules import METHODS, Rule
from refimpl.profiles.variants import variant_of
from refimpl.profiles.xnnpack import xnnpack_takes

__all__ = ["CANONICAL", "METHODS", "PROFILES", "Profile", "Rule", "profile_for", "profile_named"]


@dataclass(frozen=True)
class Profile:
    """A named arithmetic of one file format's ops.

    ``delegated`` is consulted first, for layers ``xnnpack_takes``; ``table`` says the rest.
    With ``open_ties`` the runtime does not settle which way an exact tie of an accumulator
    goes: a difference of one step there is explained by that. With ``fuses_qdq`` it turns ops
    between DequantizeLinear and QuantizeLinear into integer ops. ``refuses`` lists layers of ``table``
    that the runtime itself refuses, ``delegated_refuses`` those of ``delegated``.
    """

    name: str
    runtime: str
    table: tflite.RuleTable
    delegated: tflite.RuleTable | None = None
    format: Format = "tflite"
    open_ties: bool = False
    fuses_qdq: bool = False
    refuses: refusals.Refusals = ()
    delegated_refuses: refusals.Refusals = ()

    def rule(self, view: LayerView) -> Rule:
        """How this profile rounds the layer.

        Raises RefusedByRuntime when the runtime itself refuses the layer, and UnsupportedOp when karat
        does not know how the runtime rounds it.
        """
        reason = self.refusal(view)
        if reason:
            raise RefusedByRuntime(
                f"the runtime of profile {self.name} ({self.runtime}) refuses {view}: {reason}"
                + self._elsewhere(view)
            )
        rule = self.known_rule(view)
        if rule is None:
            raise UnsupportedOp(
                f"profile {self.name} has no rule for {view}, variant {self._variant(view)!r}: karat lacks "
                "it, which says nothing against the model or the runtime" + self._elsewhere(view)
            )
        return rule

    def refusal(self, view: LayerView) -> str:
        """Why the runtime itself refuses a layer that its op's check has passed; '' where it does not."""
        refuses = self.delegated_refuses if self._delegates(view) else self.refuses
        return next((refusal.reason for refusal in refuses if refusal.covers(view)), "")

    def known_rule(self, view: LayerView) -> Rule | None:
        """The table's rule, whether the runtime refuses the layer or not; None where karat has none."""
        table = self.delegated if self.delegated is not None and self._delegates(view) else self.table
        rules = table.get(view.op, {})
        return rules.get(self._variant(view), rules.get("*"))

    def _delegates(self, view: LayerView) -> bool:
        return self.delegated is not None and xnnpack_takes(view)

    def _variant(self, view: LayerView) -> str:
        return onnx.variant_of(view) if self.format == "onnx" else variant_of(view)

    def _elsewhere(self, view: LayerView) -> str:
        """The end of a message: the profiles that run a layer this one does not."""
        able = [
            profile.name
            for profile in PROFILES.values()
            if profile.format == self.format and not profile.refusal(view) and profile.known_rule(view)
        ]
        return f"; profiles that run it: {', '.join(able)}" if able else ""


CANONICAL = "litert-2.3-ref"
CANONICAL_ONNX = "ort-1.31"

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                CANONICAL,
                "LiteRT 2.3.0, BUILTIN_REF kernels",
                tflite.LITERT_2_3_REF,
                refuses=refusals.LITERT,
            ),
            Profile(
                "litert-2.3-builtin",
                "LiteRT 2.3.0, optimised kernels on x86-64, one thread, no delegate",
                tflite.LITERT_2_3_BUILTIN,
                refuses=refusals.LITERT,
            ),
            Profile(
                "litert-2.3-xnnpack",
                "LiteRT 2.3.0 with its XNNPACK delegate on x86-64",
                tflite.LITERT_2_3_BUILTIN,
                tflite.LITERT_2_3_XNNPACK,
                refuses=refusals.LITERT,
                delegated_refuses=refusals.XNNPACK,
            ),
            Profile(
                "tflite-2.14-ref",
                "tflite-runtime 2.14.0, BUILTIN_REF kernels",
                tflite.TFLITE_2_14_REF,
                refuses=refusals.LITERT,
            ),
            Profile(
                "tflite-2.14-builtin",
                "tflite-runtime 2.14.0, optimised kernels on x86-64",
                tflite.TFLITE_2_14_BUILTIN,
                refuses=refusals.LITERT,
            ),
            Profile(
                "tflm",
                "TensorFlow Lite Micro reference kernels, double rounding",
                tflite.TFLM,
                refuses=refusals.TFLM,
            ),
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
            f"profile {profile.name} describes runtimes of .{profile.format} files, and this model is "
            f".{graph.format}; choose one of {', '.join(fitting)}"
        )
    return profile


def profile_named(name: str) -> Profile:
    """The profile called ``name``. Raises UsageError listing the known names."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(f"no profile {name!r}; known: {', '.join(PROFILES)}") from None
