"""karat24: a golden oracle for int8 convolutional networks.

The public API, imported only when it is used::

    import karat24

    graph = karat24.read_model("model.tflite")
    program = karat24.compile_graph(graph, "litert-2.3-ref")
    result = program.run({"input": array}, trace=True)

    with karat24.delegate_named("litert-xnnpack") as delegate:
        report = karat24.verify(Path("model.tflite"), graph, delegate, [feeds])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from karat24.refimpl import __version__

if TYPE_CHECKING:
    from karat24.compiling import compile_graph
    from karat24.delegates import DELEGATES, delegate_named
    from karat24.export import read_model
    from karat24.export.quantize import PRESETS, quantize_model
    from karat24.export.tflite import read_tflite, write_tflite
    from karat24.golden.recordings.judge import verify_recorded
    from karat24.golden.report import Report
    from karat24.golden.verify import verify
    from karat24.goldens import accept_golden, check_golden, record_golden
    from karat24.refimpl.engine import Program
    from karat24.refimpl.errors import KaratError
    from karat24.refimpl.graph import Graph
    from karat24.refimpl.networks import network
    from karat24.refimpl.profiles import PROFILES
    from karat24.refimpl.settling import resized
    from karat24.refimpl.trace import Trace

_HOMES = {
    "DELEGATES": "karat24.delegates",
    "Graph": "karat24.refimpl.graph",
    "KaratError": "karat24.refimpl.errors",
    "PROFILES": "karat24.refimpl.profiles",
    "Program": "karat24.refimpl.engine",
    "Report": "karat24.golden.report",
    "PRESETS": "karat24.export.quantize",
    "Trace": "karat24.refimpl.trace",
    "accept_golden": "karat24.goldens",
    "check_golden": "karat24.goldens",
    "compile_graph": "karat24.compiling",
    "delegate_named": "karat24.delegates",
    "network": "karat24.refimpl.networks",
    "quantize_model": "karat24.export.quantize",
    "read_model": "karat24.export",
    "read_tflite": "karat24.export.tflite",
    "record_golden": "karat24.goldens",
    "resized": "karat24.refimpl.settling",
    "verify": "karat24.golden.verify",
    "verify_recorded": "karat24.golden.recordings.judge",
    "write_tflite": "karat24.export.tflite",
}

__all__ = [
    "DELEGATES",
    "PRESETS",
    "PROFILES",
    "Graph",
    "KaratError",
    "Program",
    "Report",
    "Trace",
    "__version__",
    "accept_golden",
    "check_golden",
    "compile_graph",
    "delegate_named",
    "network",
    "quantize_model",
    "read_model",
    "read_tflite",
    "record_golden",
    "resized",
    "verify",
    "verify_recorded",
    "write_tflite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'karat24' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
