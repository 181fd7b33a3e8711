"""The C library of this machine, as far as it decides whether a runtime can be installed here."""

from __future__ import annotations

import os
import sys

WITHOUT_WHEELS = (
    "numba", "llvmlite", "onnx", "onnxruntime", "ai-edge-litert", "tflite-runtime", "tflite-micro",
)  # fmt: skip
"""Packages whose wheels for Linux are all made for glibc (``manylinux``): none is for musl."""

NO_WHEELS = (
    "the C library of this machine is not glibc (Alpine has musl), and no wheel of "
    f"{', '.join(WITHOUT_WHEELS)} is made for it: use a system with glibc, such as Debian"
)


def glibc_version() -> str | None:
    """glibc's version, '' on a Linux with another C library, and None on other systems."""
    if sys.platform != "linux":
        return None
    try:
        library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):  # musl does not know the name
        return ""
    return version if library == "glibc" else ""


def remedy_here(remedy: str) -> str:
    """``remedy``, or why installing a package cannot help on this machine."""
    return NO_WHEELS if glibc_version() == "" and "pip install" in remedy else remedy
