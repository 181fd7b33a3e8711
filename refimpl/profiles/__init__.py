"""Arithmetic profiles: each names a runtime *and its version*, and maps every layer to a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from karat24.refimpl.errors import RefusedByRuntime, UnsupportedOp, UsageError
from karat24.refimpl.graph import Format, Graph, LayerView
from karat24.refimpl.profiles import refusals
from karat24.refimpl.profiles.established import Established
from karat24.refimpl.profiles.file import read_profile
from karat24.refimpl.profiles.onnx import refusals as onnx_refusals
from karat24.refimpl.profiles.onnx import table as onnx
from karat24.refimpl.profiles.refusal import Refusals
from karat24.refimpl.profiles.rules import METHODS, Libm, Rule, RuleTable
from karat24.refimpl.profiles.tflite import arm64, edgetpu
from karat24.refimpl.profiles.tflite import table as tflite
from karat24.refimpl.profiles.tflite import variants as tflite_variants
from karat24.refimpl.profiles.tflite.xnnpack import xnnpack_takes

__all__ = [
    "CANONICAL",
    "METHODS",
    "PROFILES",
    "Established",
    "Profile",
    "Rule",
    "caveat_of",
    "profile_for",
    "profile_named",
    "rules_of",
    "variant_of",
    "variants",
]


@dataclass(frozen=True)
class Profile:
    """A named arithmetic of one file format's ops.

    ``delegated`` is consulted first, for layers ``xnnpack_takes``; ``table`` says the rest.
    With ``open_ties`` the runtime does not settle which way an exact tie of an accumulator
    goes: a difference of one step there is explained by that. With ``fuses_qdq`` it turns ops
    between DequantizeLinear and QuantizeLinear into integer ops, with ``int8_allowed`` those of int8
    activations as they are, which ONNX Runtime makes uint8 or leaves in float. Where one runtime
    computes differently on different machines, there is a profile for each kind: ``variant_of`` names the
    first of them, and ``here`` says what shows that a machine needs this one. ``established`` is None where
    nothing was run. ``refuses`` lists layers of ``table`` that the runtime itself refuses,
    ``delegated_refuses`` those of ``delegated``. A profile is ``silent`` on layers whose arithmetic nobody
    knows or which differs by processor, each with the reason, and on ops its table lacks. ``caveat`` is set
    where the rules were never held against the runtime; every verdict then says it. ``own_variants`` names
    the variants of the tables where the runtime has kernels for more than :func:`variant_of` tells apart.
    """

    name: str
    runtime: str
    table: RuleTable
    delegated: RuleTable | None = None
    format: Format = "tflite"
    open_ties: bool = False
    fuses_qdq: bool = False
    int8_allowed: bool = False
    variant_of: str = ""
    here: str = ""
    established: Established | None = None
    refuses: Refusals = ()
    delegated_refuses: Refusals = ()
    silent: Refusals = ()
    caveat: str = ""
    own_variants: Callable[[LayerView], str] | None = None

    def rule(self, view: LayerView) -> Rule:
        """How this profile rounds the layer.

        Raises RefusedByRuntime when the runtime itself refuses the layer, and UnsupportedOp when karat24
        does not know how the runtime rounds it.
        """
        if reason := self.refusal(view):
            raise RefusedByRuntime(
                f"the runtime of profile {self.name} ({self.runtime}) refuses {view}: {reason}"
                + self._elsewhere(view)
            )
        rule = self.known_rule(view)
        if rule is None and (self.caveat or self.silence(view)):
            unseen = f"nobody described how its runtime computes variant {self._variant(view)!r} of the op"
            raise UnsupportedOp(f"profile {self.name} says nothing of {view}: {self.silence(view) or unseen}")
        if rule is None:
            raise UnsupportedOp(
                f"profile {self.name} has no rule for {view}, variant {self._variant(view)!r}: karat24 lacks "
                "it, which says nothing against the model or the runtime" + self._elsewhere(view)
            )
        return rule

    def refusal(self, view: LayerView) -> str:
        """Why the runtime itself refuses a layer that its op's check has passed; '' where it does not."""
        refuses = self.delegated_refuses if self._delegates(view) else self.refuses
        return next((refusal.reason for refusal in refuses if refusal.covers(view)), "")

    def known_rule(self, view: LayerView) -> Rule | None:
        """The table's rule, whether the runtime refuses the layer or not; None where karat24 has none."""
        table = self.delegated if self.delegated is not None and self._delegates(view) else self.table
        if self.silence(view):
            return None
        rules, variant = table.get(view.op, {}), self._variant(view)
        return rules.get(variant, None if variant.startswith("hybrid") else rules.get("*"))

    def silence(self, view: LayerView) -> str:
        """Why the profile says nothing of a layer; '' where it speaks, or just lacks a rule."""
        return next((silence.reason for silence in self.silent if silence.covers(view)), "")

    def _delegates(self, view: LayerView) -> bool:
        return self.delegated is not None and xnnpack_takes(view)

    def _variant(self, view: LayerView) -> str:
        return variant_of(view, self.format) if self.own_variants is None else self.own_variants(view)

    def _elsewhere(self, view: LayerView) -> str:
        """The end of a message: the profiles that run a layer this one does not."""
        able = [
            profile.name
            for profile in PROFILES.values()
            if profile.format == self.format
            and not profile.variant_of
            and not profile.caveat
            and not profile.refusal(view)
            and profile.known_rule(view)
        ]
        return f"; profiles that run it: {', '.join(able)}" if able else ""


CANONICAL = "litert-2.3-ref"
CANONICAL_ONNX = "ort-1.31"

_VNNI = "x86-64 with AVX512-VNNI"
_AVX2 = "x86-64 with AVX2 and without VNNI"
_ARM = "64-bit Arm (emulated)"

_LITERT = Established("ai-edge-litert", ("2.3",), (_VNNI, _AVX2))
_TFLITE = Established("tflite-runtime", ("2.14.0",), (_VNNI, _AVX2))
_ORT = Established("onnxruntime", ("1.31", "1.32"), (_VNNI,))

_CALLING_LIBM = (
    Profile(
        CANONICAL,
        "LiteRT 2.3.0, BUILTIN_REF kernels",
        tflite.LITERT_2_3_REF,
        established=replace(_LITERT, processors=(*_LITERT.processors, _ARM)),
        refuses=refusals.LITERT_REF,
        silent=refusals.LITERT_SILENT,
    ),
    Profile(
        "litert-2.3-builtin",
        "LiteRT 2.3.0, optimised kernels on x86-64, one thread, no delegate",
        tflite.LITERT_2_3_BUILTIN,
        established=_LITERT,
        refuses=refusals.LITERT,
        silent=refusals.LITERT_SILENT,
    ),
    Profile(
        "litert-2.3-xnnpack",
        "LiteRT 2.3.0 with its XNNPACK delegate on x86-64",
        tflite.LITERT_2_3_BUILTIN,
        tflite.LITERT_2_3_XNNPACK,
        established=_LITERT,
        refuses=refusals.LITERT,
        delegated_refuses=refusals.XNNPACK,
        silent=refusals.XNNPACK_SILENT,
    ),
    Profile(
        "tflite-2.14-ref",
        "tflite-runtime 2.14.0, BUILTIN_REF kernels",
        tflite.TFLITE_2_14_REF,
        established=_TFLITE,
        refuses=refusals.TFLITE_2_14_REF,
    ),
    Profile(
        "tflite-2.14-builtin",
        "tflite-runtime 2.14.0, optimised kernels on x86-64",
        tflite.TFLITE_2_14_BUILTIN,
        established=_TFLITE,
        refuses=refusals.TFLITE_2_14,
    ),
)
"""Runtimes that make tables of TANH, ELU and GELU with the machine's C library: glibc's up to 2.40."""

_HERE_ARM64 = "this is a 64-bit Arm processor"


def _on_arm64(profile: Profile, table: RuleTable, delegated: RuleTable | None = None) -> Profile:
    """The profile of the same lane on 64-bit Arm."""
    return replace(
        profile,
        name=f"{profile.name}-arm64",
        runtime=f"{profile.runtime.replace(' on x86-64', '')}, on 64-bit Arm",
        table=table,
        delegated=delegated,
        variant_of=profile.name,
        here=_HERE_ARM64,
        silent=arm64.SILENT[profile.name],
        established=replace(_LITERT, processors=(_ARM,)),
        own_variants=arm64.variant_of,
    )


_ARM64_CALLING_LIBM = (
    replace(_on_arm64(_CALLING_LIBM[0], arm64.LITERT_2_3_REF_ARM64), own_variants=arm64.reference_variant_of),
    _on_arm64(_CALLING_LIBM[1], arm64.LITERT_2_3_BUILTIN_ARM64),
    _on_arm64(_CALLING_LIBM[2], arm64.LITERT_2_3_BUILTIN_ARM64, arm64.LITERT_2_3_XNNPACK_ARM64),
)


def _with_libm(profile: Profile, suffix: str, libm: Libm, library: str, here: str) -> Profile:
    """The profile on machines with another C library."""
    delegated = None if profile.delegated is None else tflite.with_libm(profile.delegated, libm)
    return replace(
        profile,
        name=f"{profile.name}-{suffix}",
        runtime=f"{profile.runtime}, {library}",
        table=tflite.with_libm(profile.table, libm),
        delegated=delegated,
        variant_of=profile.variant_of or profile.name,
        here=f"{profile.here}; {here}" if profile.here else here,
    )


_GLIBC_2_40 = "the C library's tanhf, expm1f and erfcf are those of glibc up to 2.40"
_GLIBC_2_41: tuple[str, Libm, str, str] = (
    "glibc-2.41", "correctly_rounded", "glibc 2.41 or later",
    "the C library rounds tanhf, expm1f and erfcf correctly, as glibc does from 2.41 on",
)  # fmt: skip
_OTHER_LIBC: tuple[str, Libm, str, str] = (
    "other-libc", "none", "a C library other than glibc",
    "the C library's tanhf or erfcf is not glibc's: TANH, ELU and GELU are not compared on this machine",
)  # fmt: skip

_ORT_VNNI = Profile(
    CANONICAL_ONNX,
    "ONNX Runtime 1.31 and 1.32, integer kernels, CPU with VNNI",
    onnx.ORT_1_31,
    format="onnx",
    fuses_qdq=True,
    here="sums of u8s8 products are exact here",
    established=_ORT,
    refuses=onnx_refusals.ORT,
    silent=onnx_refusals.ORT_SILENT,
)
_ORT_AVX2 = replace(
    _ORT_VNNI,
    name="ort-1.31-avx2",
    runtime="ONNX Runtime 1.31 and 1.32, integer kernels, x86-64 with AVX2 but no VNNI",
    table=onnx.ORT_1_31_AVX2,
    variant_of=CANONICAL_ONNX,
    here="u8s8 pairs saturate at 16 bits here",
    established=replace(_ORT, processors=(_AVX2,)),
)
_ORT_1_31 = (
    _ORT_VNNI,
    _ORT_AVX2,
    replace(
        _ORT_AVX2,
        name="ort-1.31-avx2-precise",
        runtime="ONNX Runtime 1.31 and 1.32 with session.x64quantprecision, x86-64 with AVX2 but no VNNI",
        table=onnx.ORT_1_31_AVX2_PRECISE,
        here="u8s8 pairs saturate at 16 bits here, in QLinearMatMul only",
    ),
    replace(
        _ORT_VNNI,
        name="ort-1.31-arm64",
        runtime="ONNX Runtime 1.32, integer kernels, 64-bit Arm",
        table=onnx.ORT_1_31_ARM64,
        variant_of=CANONICAL_ONNX,
        here=_HERE_ARM64,
        established=Established("onnxruntime", ("1.32",), (_ARM,)),
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            *(replace(profile, here=_GLIBC_2_40) for profile in _CALLING_LIBM),
            *(_with_libm(profile, *_GLIBC_2_41) for profile in _CALLING_LIBM),
            *(_with_libm(profile, *_OTHER_LIBC) for profile in _CALLING_LIBM),
            Profile(
                "tflm",
                "TensorFlow Lite Micro reference kernels, double rounding",
                tflite.TFLM,
                established=Established("tflite-micro", ("0.dev20261023182759",), (_VNNI,)),
                refuses=refusals.TFLM,
                silent=refusals.TFLM_SILENT,
            ),
            *(replace(profile, here=f"{_HERE_ARM64}; {_GLIBC_2_40}") for profile in _ARM64_CALLING_LIBM),
            *(_with_libm(profile, *_GLIBC_2_41) for profile in _ARM64_CALLING_LIBM),
            *(_with_libm(profile, *_OTHER_LIBC) for profile in _ARM64_CALLING_LIBM),
            Profile(
                "edgetpu",
                "Edge TPU, as far as compiled files show it",
                edgetpu.TABLE,
                silent=edgetpu.SILENT,
                caveat=edgetpu.CAVEAT,
            ),
            *_ORT_1_31,
            Profile(
                "onnx-spec",
                "onnx.reference 1.23",
                onnx.ONNX_SPEC,
                format="onnx",
                established=Established("onnx", ("1.23",), ("any processor",)),
            ),
            Profile(
                "tensorrt",
                "TensorRT 10, as documented",
                onnx.TENSORRT,
                format="onnx",
                open_ties=True,
                fuses_qdq=True,
                int8_allowed=True,
            ),
        )
    }
)
"""Every profile by name."""


def profile_for(graph: Graph, profile: str | Profile | None = None) -> Profile:
    """``profile`` itself, or by name, or the canonical one of the graph's format when it is None; UsageError
    where there is none, or it describes another format's ops."""
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
    """The profile called ``name``, or that of a file ``NAME.json``; UsageError where there is none."""
    if name.endswith(".json"):
        return _from_file(Path(name))
    if name not in PROFILES:
        raise UsageError(f"no profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def _from_file(path: Path) -> Profile:
    """A profile as ``karat24.refimpl.profiles.file`` describes it; layers XNNPACK takes depart, too."""
    found = read_profile(path)
    if found.base not in PROFILES:
        raise UsageError(f"{path}: no profile {found.base!r} to depart from; known: {', '.join(PROFILES)}")
    known = PROFILES[found.base]
    for op in found.rules:
        if (op.isupper()) != (known.format == "tflite"):
            raise UsageError(f"{path}: {op} is not an op of .{known.format} files, of which {found.base} is")

    def departing(table: RuleTable) -> RuleTable:
        return MappingProxyType(
            {**table, **{op: {**table.get(op, {}), **rules} for op, rules in found.rules.items()}}
        )

    return replace(
        known,
        name=str(path),  # profile_named finds the file again by this name
        runtime=f"{found.name}: {known.runtime}, departing as {path.name} says",
        table=departing(known.table),
        delegated=None if known.delegated is None else departing(known.delegated),
        variant_of="",
        established=found.established,
    )


def caveat_of(name: str) -> str:
    """What every verdict under a profile says of it, if anything; raises as :func:`profile_named` does."""
    return profile_named(name).caveat if name in PROFILES or name.endswith(".json") else ""


def variant_of(view: LayerView, format: Format) -> str:
    """The key of a layer's variant in rule tables of its format."""
    return onnx.variant_of(view) if format == "onnx" else tflite_variants.variant_of(view)


@cache
def rules_of(op: str) -> frozenset[Rule]:
    """The rules that profiles of the table have for an op, whatever the variant."""
    tables = [table for p in PROFILES.values() for table in (p.table, p.delegated) if table is not None]
    return frozenset(rule for table in tables for rule in table.get(op, {}).values())


def variants(name: str) -> tuple[Profile, ...]:
    """The profile called ``name`` and those of its runtime on other machines. Raises UsageError."""
    return (profile_named(name), *(known for known in PROFILES.values() if known.variant_of == name))
