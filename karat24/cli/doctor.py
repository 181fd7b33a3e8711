"""``karat24 doctor``: what karat24 finds on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HELP = "tell what karat24 finds on this machine, what is missing, and how to get it"
EPILOG = """example:
  karat24 doctor

Nothing is changed or compiled. A report of a bug is easier to answer with this text in it."""

EXTRAS = {
    "onnx": ("onnx", "models in .onnx files and the profile onnx-spec"),
    "onnxruntime": ("onnx", "the runtimes ort…"),
    "PIL": ("image", "pictures as --input"),
    "h5py": ("image", "tomography scans in HDF5"),
    "matplotlib": ("image", "the pictures of `karat24 demo`"),
    "skimage": ("image", "simulated scans and structural similarity"),
}
"""Optional modules: the extra that installs each, and what it is for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(options: argparse.Namespace) -> int:  # noqa: ARG001
    """Prints what was found."""
    from karat24.cli.delegates import probe_all, table

    for line in (*_versions(), *_processor(), *_cache(), *_extras()):
        print(line)
    print("runtimes:")
    for line in table(probe_all()):
        print(f"  {line}")
    return 0


def _versions() -> Iterator[str]:
    import platform

    import numba
    import numpy as np

    from karat24.delegates.c_library import NO_WHEELS, glibc_version
    from karat24.refimpl import __version__

    yield f"karat24 {__version__} on Python {platform.python_version()}, {platform.platform()}"
    yield f"NumPy {np.__version__}, Numba {numba.__version__}"
    if version := glibc_version():
        yield f"C library: glibc {version}"
    elif version == "":
        yield f"C library: {NO_WHEELS}"


def _processor() -> Iterator[str]:
    import numba

    from karat24.golden.provenance import cpu_name
    from karat24.refimpl.kernels.jit.isa import FEATURES, chosen_isa, why_not

    chosen = chosen_isa()
    yield f"processor: {cpu_name()}, {getattr(numba.config, 'NUMBA_NUM_THREADS')} threads"  # noqa: B009
    yield f"instruction set of the kernels: {chosen}"
    for isa in FEATURES:
        if isa == chosen:
            return
        if reason := why_not(isa):
            yield f"  not {isa}: {reason}"


def _cache() -> Iterator[str]:
    from karat24.refimpl.kernels.jit.compile_cache import VARIABLE, cache_directory

    folder = cache_directory()
    functions, size = cached(folder)
    yield f"compiled kernels: {functions} functions, {size / 2**20:.1f} MiB in {folder}; {VARIABLE} moves it"
    if not functions:
        yield "  none yet: `karat24 warmup` compiles them; small networks need none"


def cached(folder: Path) -> tuple[int, int]:
    """The number of functions that Numba keeps in a folder, and the bytes of all its files for them."""
    indices = list(folder.glob("*.nbi"))
    return len(indices), sum(path.stat().st_size for path in (*indices, *folder.glob("*.nbc")))


def _extras() -> Iterator[str]:
    missing = {name: found for name, found in EXTRAS.items() if find_spec(name) is None}
    if not missing:
        yield "optional packages: all here"
    for name, (extra, purpose) in missing.items():
        yield f"not installed: {name}, for {purpose}; pip install 'karat24[{extra}]'"
