"""karat: a golden oracle for int8 convolutional networks.

The public API, imported only when it is used::

    import karat

    graph = karat.read_model("model.tflite")
    program = karat.compile_graph(graph, "litert-2.3-ref")
    result = program.run({"input": array}, trace=True)

    with karat.delegate_named("litert-xnnpack") as delegate:
        report = karat.verify(Path("model.tflite"), graph, delegate, [feeds])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refimpl import __version__

if TYPE_CHECKING:
    from delegates import DELEGATES, delegate_named
    from export import read_model
    from export.quantize import PRESETS, quantize_model
    from export.tflite import read_tflite, write_tflite
    from golden.report import Report
    from golden.verify import verify
    from karat.compiling import compile_graph
    from refimpl.engine import Program
    from refimpl.errors import KaratError
    from refimpl.graph import Graph
    from refimpl.networks import network
    from refimpl.profiles import PROFILES
    from refimpl.trace import Trace

_HOMES = {
    "DELEGATES": "delegates",
    "Graph": "refimpl.graph",
    "KaratError": "refimpl.errors",
    "PROFILES": "refimpl.profiles",
    "Program": "refimpl.engine",
    "Report": "golden.report",
    "PRESETS": "export.quantize",
    "Trace": "refimpl.trace",
    "compile_graph": "karat.compiling",
    "delegate_named": "delegates",
    "network": "refimpl.networks",
    "quantize_model": "export.quantize",
    "read_model": "export",
    "read_tflite": "export.tflite",
    "verify": "golden.verify",
    "write_tflite": "export.tflite",
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
    "compile_graph",
    "delegate_named",
    "network",
    "quantize_model",
    "read_model",
    "read_tflite",
    "verify",
    "write_tflite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'karat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
