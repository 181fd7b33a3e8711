"""The table of methods that restore a slice, and the code that applies them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.quality.cases import Slice
from benchmarks.quality.peers import PEERS, restore_by
from benchmarks.quality.plans import PLANS, SCHEMES, TILE, load_model
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.restoration import Network, on_onnx_runtime, on_oracle
from karat24.tomography.tiles import TileGrid

HALO = 16
"""Pixels by which tiles with a halo overlap their neighbours, at each side."""

BLEND = 39
"""Pixels by which tiles that are averaged overlap: 1600 of them for a slice of 1024×1024."""

Cover = Literal["whole", "tiles", "halo", "blend"]
COVERS: Mapping[Cover, str] = {
    "whole": "whole image", "tiles": "64×64 tiles", "halo": f"64×64 tiles, halo {HALO}",
    "blend": "64×64 tiles, blended",
}  # fmt: skip
COUNTED_COVER: Mapping[str, Cover] = {
    "int8": "tiles", "uint8-2019": "tiles", "aware-int8": "blend", "aware-uint8-2019": "blend",
}  # fmt: skip
"""Plan to the cover over which inclusions are counted."""

PROFILES = (
    "litert-2.3-builtin", "litert-2.3-xnnpack", "tflite-2.14-ref", "tflite-2.14-builtin", "tflm", "ort-1.31",
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One way to restore a slice.

    ``model`` is ``<plan>/<model>``, which the oracle under ``profile`` or, for float, ONNX Runtime runs over
    ``cover`` on the result of the method ``after`` (on the noisy slice if that is empty). Without a model the
    method is a peer, or no restoration at all. ``few``: only applied to the first slices of each family.
    ``counted``: its inclusions are counted.
    """

    name: str
    title: str
    model: str = ""
    cover: Cover = "whole"
    after: str = ""
    profile: str = CANONICAL
    few: bool = False
    counted: bool = False


def _with_repair(plan: str, title: str, covers: tuple[Cover, ...]) -> list[Method]:
    found = []
    for cover in covers:
        name = f"{plan} {cover}"
        counted = COUNTED_COVER.get(plan) == cover
        found.append(Method(name, f"{title}, {COVERS[cover]}", f"{plan}/tomogan", cover, counted=counted))
        repaired, said = f"{name} repaired", f"{title}, {COVERS[cover]} + Fine-Tune"
        if cover == "blend":  # Each tile is repaired before it is averaged with other tiles.
            found.append(Method(repaired, said, f"{plan}/chain", cover, counted=counted))
        else:
            found.append(Method(repaired, said, f"{plan}/fine-tune", after=name, counted=counted))
    return found


def _table() -> list[Method]:
    table = [
        Method("noisy", "noisy input", counted=True),
        Method("nlm", "non-local means, tuned", counted=True),
        Method("tv", "total variation, tuned", counted=True),
        Method("float whole", "float, whole image", "float/tomogan", counted=True),
        Method("float tiles", "float, 64×64 tiles", "float/tomogan", "tiles"),
        Method("float blend", f"float, {COVERS['blend']}", "float/tomogan", "blend"),
        Method(
            "float whole repaired", "float, whole image + Fine-Tune", "float/fine-tune", after="float whole"
        ),
    ]
    chained: tuple[Cover, ...] = ("whole", "tiles")
    for scheme in SCHEMES:
        table += _with_repair(scheme, scheme, tuple(COVERS))
        table += [
            Method(
                f"{scheme} chain {cover}", f"{scheme}, one graph, {COVERS[cover]}", f"{scheme}/chain", cover
            )
            for cover in chained
        ]
    for scheme in SCHEMES:
        covers: tuple[Cover, ...] = ("whole", "tiles", "blend")
        table += _with_repair(f"aware-{scheme}", f"{scheme}, quantization-aware", covers)
        table.append(
            Method(f"aware-{scheme} unrounded", f"{scheme}, quantization-aware, run in float",
                   f"aware-{scheme}/unrounded")
        )  # fmt: skip
    table.append(Method("transposed whole", "transposed, float, whole image", "transposed/tomogan"))
    table += _with_repair("transposed-int8", "transposed, int8", ("whole", "tiles"))
    table += [
        Method(f"{scheme} {profile}", profile, f"{scheme}/tomogan", profile=profile, few=True)
        for scheme in SCHEMES
        for profile in PROFILES
    ]
    steps = [plan.name for plan in PLANS if " " in plan.name]
    table += [Method(plan, plan.partition(" ")[2], f"{plan}/tomogan", few=True) for plan in steps]
    return table


METHODS: Mapping[str, Method] = {method.name: method for method in _table()}
"""Every method by name; a method that repairs comes after the method it repairs."""


@dataclass(frozen=True)
class Kitchen:
    """Applies methods to slices of one size, with the models of a folder."""

    folder: Path
    size: int

    def apply(
        self, method: Method, given: Slice, done: Mapping[str, Array]
    ) -> tuple[Array, dict[str, float]]:
        """The restored slice ``[y, x]`` float32, and the chosen parameters; ``done`` holds the results that
        ``after`` refers to."""
        if method.name in PEERS:
            return restore_by(method.name, given)
        if not method.model:
            return given.noisy[..., 1], {}
        image = done[method.after][..., np.newaxis] if method.after else given.noisy
        if method.cover == "whole":
            network = _network(self.folder, method.model, self.size, method.profile)
            return network(image[np.newaxis])[0, ..., 0], {}
        network = _network(self.folder, method.model, TILE, method.profile)
        halo, blend = HALO * (method.cover == "halo"), BLEND * (method.cover == "blend")
        grid = TileGrid(self.size, self.size, TILE, TILE, halo, blend)
        return grid.map(network, image)[..., 0], {}


@functools.lru_cache(maxsize=4)
def _network(folder: Path, model: str, size: int, profile: str) -> Network:
    """A model ready to run. Few programs are kept, since each holds its activations and can quickly be made
    again."""
    graph = load_model(folder, model, size)
    if graph.tensors[graph.inputs[0]].dtype == "float32":
        return on_onnx_runtime(graph)
    return _as_onnx(graph, profile) if profile.startswith("ort") else on_oracle(graph, profile)


def _as_onnx(graph: Graph, profile: str) -> Network:
    """The graph that ONNX Runtime makes of the exported one, as a function of NHWC images."""
    from karat24.export.onnx import lower_qdq, to_onnx
    from karat24.export.onnx.layout import from_onnx_layout, to_onnx_layout

    program = compile_graph(lower_qdq(to_onnx(graph, "qdq"), int8_allowed=True), profile)

    def run(values: Array) -> Array:
        (output,) = program.run([to_onnx_layout(values)]).outputs
        return from_onnx_layout(output)

    return Network(graph, run)
