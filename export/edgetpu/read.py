"""Reading a .tflite that was compiled for the Edge TPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from karat24.export.edgetpu.package import Package, read_package
from karat24.export.edgetpu.schema import CUSTOM_OP, FURTHER_EXECUTABLES_KEY, OPTIONS, PACKAGE_KEY
from karat24.export.tflite import read_tflite
from karat24.export.tflite.schema import CUSTOM, CUSTOM_OPTIONS
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.flexbuffer import FlexValue, read_flexbuffer_map
from karat24.refimpl.graph import Graph, LayerView


@dataclass(frozen=True)
class CompiledOp:
    """One custom op of the graph and the package it carries; ``options`` are those beside it, by their names
    in :data:`OPTIONS`."""

    view: LayerView
    package: Package
    options: Mapping[str, FlexValue] = field(default_factory=dict)


@dataclass(frozen=True)
class CompiledModel:
    """A compiled file: its graph, whose other layers run on the CPU, and one package per custom op.

    A file compiled with ``--intermediate_tensors`` or with several subgraphs allowed has several.
    """

    graph: Graph
    ops: tuple[CompiledOp, ...]

    @property
    def cpu_layers(self) -> tuple[LayerView, ...]:
        """The layers the compiler left on the CPU."""
        compiled = {op.view.layer.index for op in self.ops}
        return tuple(view for view in self.graph.views() if view.layer.index not in compiled)

    @property
    def caching_tokens(self) -> frozenset[int]:
        """One for all models compiled together, and for all segments of a pipeline."""
        return frozenset(token for op in self.ops for token in op.package.caching_tokens)


def is_compiled(graph: Graph) -> bool:
    """Whether the graph holds the Edge TPU's custom op."""
    return any(layer.op == CUSTOM + CUSTOM_OP for layer in graph.layers)


def read_compiled(source: str | Path | bytes) -> CompiledModel:
    """The compiled model in a file, given as a path or as its content.

    Raises UsageError when it cannot be opened, and ModelError or UnsupportedOp, naming the file,
    when it is malformed or was not compiled for the Edge TPU.
    """
    graph = read_tflite(source)
    label = "model in memory" if isinstance(source, bytes) else str(source)
    try:
        return compiled_from(graph)
    except ModelError as error:
        raise type(error)(f"{label}: {error}") from None


def compiled_from(graph: Graph) -> CompiledModel:
    """The packages of a graph already read. Raises ModelError and UnsupportedOp, naming the layer."""
    if not is_compiled(graph):
        raise ModelError(
            f"no layer is an {CUSTOM_OP}, so this model was not compiled for the Edge TPU; "
            "give the file the compiler wrote, usually NAME_edgetpu.tflite"
        )
    ops = []
    for view in graph.views():
        if view.op == CUSTOM + CUSTOM_OP:
            try:
                ops.append(CompiledOp(view, *_package(view)))
            except ModelError as error:
                raise type(error)(f"layer {view.layer.index} ({CUSTOM_OP}): {error}") from None
    return CompiledModel(graph, tuple(ops))


def _package(view: LayerView) -> tuple[Package, Mapping[str, FlexValue]]:
    options = view.layer.attributes.get(CUSTOM_OPTIONS, b"")
    if not isinstance(options, bytes):
        raise ModelError("its options are not a vector of bytes")
    stored = read_flexbuffer_map(options)
    if stored.get(FURTHER_EXECUTABLES_KEY):
        raise UnsupportedOp(
            "its options hold further executables beside the package; none are known, nor read"
        )
    package = stored.get(PACKAGE_KEY)
    if not isinstance(package, bytes):
        raise ModelError("its options hold no package")
    return read_package(package), {name: stored[key] for key, name in OPTIONS.items() if key in stored}
