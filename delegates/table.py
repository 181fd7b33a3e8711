"""The table of delegates. Adding one: a class that keeps ``karat24.delegates.protocol``, a line here,
and a subclass of the conformance suite in tests/delegates. Other packages name theirs by an entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from karat24.delegates.edgetpu import EdgeTpuDelegate
from karat24.delegates.onnx_lanes import ONNX_LANES, OnnxLane
from karat24.delegates.onnxruntime import OnnxDelegate
from karat24.delegates.oracle import OracleDelegate
from karat24.delegates.protocol import Delegate
from karat24.delegates.tensorrt import TensorrtDelegate
from karat24.delegates.tflite import TFLITE_PYTHON, TfliteDelegate, TfliteLane
from karat24.delegates.workers import TFLM_WORKER
from karat24.refimpl.errors import DelegateUnavailable, UsageError

_LITERT: dict[str, Any] = {
    "packages": ("ai_edge_litert",),
    "remedy": "pip install 'ai-edge-litert==2.3.*'",
}
_TFLITE: dict[str, Any] = {
    "packages": ("tflite_runtime",),
    "exact_version": True,
    "remedy": "tflite-runtime 2.14.0 needs NumPy 1 and Python 3.9 to 3.11: make an environment of its own "
    f"with pip install tflite-runtime==2.14.0 'numpy<2', and name its interpreter in {TFLITE_PYTHON}",
}
_MEAN_BY_THREADS = (
    "the optimised MEAN gives each thread a slice of channels, and blocks of 16 start anew in each"
)

TFLITE_LANES = (
    TfliteLane("litert-ref", "litert-2.3-ref", resolver="BUILTIN_REF", **_LITERT),
    TfliteLane(
        "litert-builtin",
        "litert-2.3-builtin",
        resolver="BUILTIN_WITHOUT_DEFAULT_DELEGATES",
        one_thread=_MEAN_BY_THREADS,
        **_LITERT,
    ),
    TfliteLane(
        "litert-xnnpack", "litert-2.3-xnnpack", resolver="AUTO", one_thread=_MEAN_BY_THREADS, **_LITERT
    ),
    TfliteLane("tflite-2.14-ref", "tflite-2.14-ref", resolver="BUILTIN_REF", **_TFLITE),
    TfliteLane(
        "tflite-2.14-builtin",
        "tflite-2.14-builtin",
        resolver="BUILTIN_WITHOUT_DEFAULT_DELEGATES",
        **_TFLITE,
    ),
    TfliteLane(
        "tflm",
        "tflm",
        packages=("tflite_micro",),
        resolver="",
        one_thread="TensorFlow Lite Micro has no more",
        remedy="pip install 'karat24[tflm]' (a wheel exists for Linux on x86-64 with Python 3.10 to 3.13)",
        worker=TFLM_WORKER,
    ),
)
"""The lanes of the TFLite family.

``litert-xnnpack`` needs one thread as well: layers XNNPACK does not take run on the builtin kernels.
"""


EDGETPU_LANE = TfliteLane(
    "edgetpu",
    "edgetpu",
    packages=("ai_edge_litert", "tflite_runtime", "pycoral"),
    resolver="BUILTIN",
    remedy="install Google's Edge TPU runtime (the package libedgetpu1-std of "
    "https://packages.cloud.google.com/apt coral-edgetpu-stable, or a build from "
    "https://github.com/google-coral/libedgetpu that matches your TFLite runtime) and a TFLite runtime "
    "(pip install 'ai-edge-litert==2.3.*')",
)
"""Any installed runtime interprets the model; layers that the compiler mapped run on the device."""


def _tflite(lane: TfliteLane) -> Callable[..., Delegate]:
    def make(**options: Any) -> Delegate:
        return TfliteDelegate(lane, **options)

    return make


def _onnx(lane: OnnxLane) -> Callable[..., Delegate]:
    def make(**options: Any) -> Delegate:
        return OnnxDelegate(lane, **options)

    return make


FORMER_NAMES: Mapping[str, str] = MappingProxyType({"ort-exact": "ort-disable-all"})
"""Names that lanes had in earlier versions; they still work."""

DELEGATES: Mapping[str, Callable[..., Delegate]] = MappingProxyType(
    {
        OracleDelegate.name: OracleDelegate,
        **{lane.name: _tflite(lane) for lane in TFLITE_LANES},
        EDGETPU_LANE.name: partial(EdgeTpuDelegate, EDGETPU_LANE),
        **{lane.name: _onnx(lane) for lane in ONNX_LANES},
        "tensorrt": TensorrtDelegate,
    }
)
"""Delegate name to the function that makes it, which starts no process."""


def delegate_named(name: str, **options: Any) -> Delegate:
    """The delegate called ``name``, of the table or of another package.

    ``options`` go to its class: ``time_limit`` (seconds per request) for all that
    use a child process, ``device`` for the Edge TPU, ``profile`` for the oracle.
    Raises UsageError listing the known names, DelegateUnavailable where another package's cannot be imported.
    """
    make = DELEGATES.get(FORMER_NAMES.get(name, name)) or _of_another_package(name)
    return make(**options)


ENTRY_POINTS = "karat24.delegates"
"""The entry point group in which other packages name their delegates: each a class or function that takes
the options of :func:`delegate_named` and keeps ``karat24.delegates.protocol``."""


def delegate_names() -> tuple[str, ...]:
    """Every delegate of the table, then those of other packages, none of which takes a name of the table."""
    others = sorted({point.name for point in entry_points(group=ENTRY_POINTS)} - {*DELEGATES, *FORMER_NAMES})
    return (*DELEGATES, *others)


def _of_another_package(name: str) -> Callable[..., Delegate]:
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        raise UsageError(f"no delegate {name!r}; known: {', '.join(delegate_names())}")
    try:
        make: Callable[..., Delegate] = points[name].load()
    except Exception as error:  # noqa: BLE001 - what another package's import raises is the answer
        raise DelegateUnavailable(
            f"{name}: {points[name].value} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    return make
