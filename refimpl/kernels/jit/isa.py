"""Instruction sets: which ones this machine can run, and which one the kernels use.

The best one that runs here is taken: AMX, AVX512-VNNI, AVX2 or Arm dot-product,
then ``portable``, which needs nothing in particular. ``KARAT24_ISA=avx2`` (say) forces one.
What counts is what Numba compiles for, so ``NUMBA_CPU_NAME`` and
``NUMBA_CPU_FEATURES`` are respected.

On Arm, LLVM's list of the processor's features leaves the dot product out, so it is asked for:
of Linux, whether the processor has it, and of LLVM, whether it writes ``sdot`` for this target.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from karat24.refimpl.errors import UsageError

VARIABLE = "KARAT24_ISA"

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

# Linux, asm/hwcap.h for Arm: the processor's capabilities, and the one of dot products.
_AT_HWCAP, _HWCAP_ASIMDDP = 16, 1 << 20

_SUM_OF_PRODUCTS = """
target triple = "{triple}"
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
define i32 @sum_of_products(<16 x i8> %a, <16 x i8> %b) {{
  %wide_a = sext <16 x i8> %a to <16 x i32>
  %wide_b = sext <16 x i8> %b to <16 x i32>
  %products = mul <16 x i32> %wide_a, %wide_b
  %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %products)
  ret i32 %sum
}}
"""
"""What LLVM compiles to a dot product where there is one, and to something else where there is none."""


def chosen_isa() -> str:
    """The instruction set kernels are compiled for: ``KARAT24_ISA``, or the best that runs here.

    Raises UsageError when ``KARAT24_ISA`` names none, or one this machine cannot run.
    """
    forced = os.environ.get(VARIABLE, "")
    if not forced:
        return _best()
    if forced not in FEATURES:
        raise UsageError(
            f"{VARIABLE}={forced} is not an instruction set; known: {', '.join(FEATURES)}; "
            "unset it and karat24 chooses"
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

    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = frozenset(name[1:] for name in features.split(",") if name.startswith("+"))
    architecture = triple.split("-")[0].lower()
    arm = architecture in _ARCHITECTURES["dotprod"]
    if arm and _processor_has_dot_products() and _compiles_to_dot_products(triple, cpu, features):
        enabled |= FEATURES["dotprod"]
    return architecture, enabled


def _processor_has_dot_products() -> bool:
    """False if Linux says the processor has none; elsewhere the processor's name must do."""
    if not sys.platform.startswith("linux"):
        return True
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = [ctypes.c_ulong], ctypes.c_ulong
    return bool(ask(_AT_HWCAP) & _HWCAP_ASIMDDP)


def _compiles_to_dot_products(triple: str, cpu: str, features: str) -> bool:
    """True if LLVM writes sdot for this target: the processor's name may imply what the features omit."""
    import llvmlite.binding as llvm

    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    text: str = machine.emit_assembly(llvm.parse_assembly(_SUM_OF_PRODUCTS.format(triple=triple)))
    return "sdot" in text


def _name_dot_products() -> None:
    """Tells Numba of the dot product where LLVM does not know the processor by name (as in some virtual
    machines, or of processors newer than it), and so would compile none.

    Numba reads this when the first function is decorated: before the first kernel, unless
    the process used Numba for something else earlier. Then these processors run ``portable``.
    """
    if not sys.platform.startswith("linux") or os.uname().machine not in _ARCHITECTURES["dotprod"]:
        return
    import llvmlite.binding as llvm
    import numba
    from numba.core.codegen import get_host_cpu_features

    config: Any = numba.config  # its members are made at run time
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return
    if llvm.get_host_cpu_name() == "generic" and _processor_has_dot_products():
        config.CPU_FEATURES = ",".join(filter(None, (get_host_cpu_features(), "+dotprod")))


_name_dot_products()


@functools.cache
def _tile_permission() -> str | None:
    """Asks Linux to let this process use AMX tiles, once; None when it may, else the reason."""
    if not sys.platform.startswith("linux"):
        return "only Linux is known to hand out tiles"
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA)
    if result != 0:
        number = ctypes.get_errno()
        remedy = (
            "a thread's signal stack is too small to save them on"
            if number == errno.ENOSPC
            else "needs kernel 5.16 or later"
        )
        return f"Linux refused permission for AMX tiles ({os.strerror(number)}); {remedy}"
    return None
