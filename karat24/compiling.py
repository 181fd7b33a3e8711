"""Compiling a model: the same for the public API and every command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from karat24.refimpl.engine import Missing, Program
    from karat24.refimpl.graph import Graph
    from karat24.refimpl.profiles import Profile
    from karat24.refimpl.step import Implementation


def compile_graph(
    graph: Graph,
    profile: str | Profile | None = None,
    threads: int | None = None,
    implementation: Implementation = "kernels",
    share_small: bool = False,
    missing: Missing = "refuse",
    runs: int = 1,
) -> Program:
    """The program of the layers that a runtime of ``profile`` runs for a model file read as ``graph``.

    ONNX Runtime makes integer layers of a QDQ file, and so does this function for every profile that says so
    (``karat24.export.graph_under``); ``Program.graph`` holds them, under the tensor indices of ``graph``.
    Everything else is as in :func:`karat24.refimpl.engine.compile_graph`, which compiles exactly the layers
    it is given.
    """
    from karat24.export import graph_under
    from karat24.refimpl.engine import compile_graph as compile_layers
    from karat24.refimpl.profiles import profile_for

    named = profile_for(graph, profile)
    layers = graph_under(graph, named)
    return compile_layers(layers, named, threads, implementation, share_small, missing, runs)
