"""Instruction sets: which ones this machine can run, and which one the kernels use.

The best one that runs here is taken: AMX, AVX512-VNNI, AVX2 or Arm dot-product,
then ``portable``, which needs nothing in particular. ``KARAT_ISA=avx2`` (say) forces one.
What counts is what Numba compiles for, so ``NUMBA_CPU_NAME`` and
``NUMBA_CPU_FEATURES`` are respected.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

from refimpl.errors import UsageError

VARIABLE = "KARAT_ISA"

FEATURES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "amx": frozenset({"amx-tile", "amx-int8", "avx512vnni"}),
        "avx512vnni": frozenset({"avx512f", "avx512vnni"}),
        "avx2": frozenset({"avx2"}),
        "dotprod": frozenset({"dotprod"}),
        "portable": frozenset(),
    }
)
"""Instruction set to the processor features it needs, by LLVM's names; best first."""

_ARCHITECTURES = {"dotprod": ("aarch64", "arm64"), "portable": ()}
_X86 = ("x86_64", "amd64", "i686", "i386")

_LOG = logging.getLogger(__name__)

# Linux, asm/prctl.h: ask for a processor state that must be asked for; 18 is the tiles' data.
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


def chosen_isa() -> str:
    """The instruction set kernels are compiled for: ``KARAT_ISA``, or the best that runs here.

    Raises UsageError when ``KARAT_ISA`` names none, or one this machine cannot run.
    """
    forced = os.environ.get(VARIABLE, "")
    if not forced:
        return _best()
    if forced not in FEATURES:
        raise UsageError(
            f"{VARIABLE}={forced} is no instruction set; known: {', '.join(FEATURES)}; "
            "unset it and karat chooses"
        )
    reason = why_not(forced)
    if reason is not None:
        runnable = ", ".join(isa for isa in FEATURES if why_not(isa) is None)
        raise UsageError(f"{VARIABLE}={forced} cannot run here: {reason}; what can: {runnable}")
    return forced


def why_not(isa: str) -> str | None:
    """Why the instruction set cannot run here; None when it can."""
    architecture, features = _compiled_for()
    wanted = _ARCHITECTURES.get(isa, _X86)
    if wanted and architecture not in wanted:
        return f"it belongs to {wanted[0]}, this is {architecture}"
    missing = sorted(FEATURES[isa] - features)
    if missing:
        return f"the processor (or what Numba compiles for) has no {', '.join(missing)}"
    return _tile_permission() if isa == "amx" else None


def compiles_for(feature: str) -> bool:
    """True if Numba compiles for processors with this feature, by LLVM's name."""
    return feature in _compiled_for()[1]


@functools.cache
def _best() -> str:
    """The first instruction set that runs here; says in the log why better ones do not."""
    for isa in FEATURES:
        reason = why_not(isa)
        if reason is None:
            _LOG.info("instruction set: %s", isa)
            return isa
        _LOG.info("instruction set %s not used: %s", isa, reason)
    raise AssertionError("portable runs everywhere")


@functools.cache
def _compiled_for() -> tuple[str, frozenset[str]]:
    """Architecture and features of Numba's target, from its triple and '+avx2,-sse4a,…'."""
    from numba.core.registry import cpu_target

    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = frozenset(name[1:] for name in features.split(",") if name.startswith("+"))
    return triple.split("-")[0].lower(), enabled


@functools.cache
def _tile_permission() -> str | None:
    """Asks Linux to let this process use AMX tiles, once; None when it may, else the reason."""
    if not sys.platform.startswith("linux"):
        return "only Linux is known to hand out tiles"
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA)
    if result != 0:
        error = os.strerror(ctypes.get_errno())
        return f"Linux refused permission for AMX tiles ({error}); needs kernel 5.16 or later"
    return None
