"""The networks that are measured: trained weights, quantized in several ways, for every image size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import karat24.export.quantize
import karat24.refimpl.networks
from benchmarks.quality.cases import source_digest
from karat24.export import read_model, write_model
from karat24.export.quantize import (
    PRESETS,
    QuantizationScheme,
    measure,
    output_range,
    quantize_learnt,
    quantize_model,
)
from karat24.refimpl.errors import KaratError, ModelError, UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import Upsampling, chain, fine_tune, learnt_ranges, load_weights, tomogan
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography import calibration_inputs, imaging
from karat24.tomography.calibration_inputs import simulated, tiles_of
from karat24.tomography.restoration import on_oracle
from karat24.tomography.tiles import TileGrid

TILE = 64
"""Side of a tile in pixels: the input size of the paper's accelerator."""

CALIBRATION_SIZE = 512
TRAINED = Path(karat24.refimpl.networks.__file__).parent / "trained"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """TomoGAN and Fine-Tune in one arithmetic.

    ``scheme`` is None for float. ``weights`` names TomoGAN's weights, ``repair`` Fine-Tune's in order of
    preference. ``alone``: TomoGAN only, no Fine-Tune. ``aware``: TomoGAN is rounded in the ranges it learnt,
    not calibrated.
    """

    name: str
    scheme: QuantizationScheme | None
    weights: str = "tomogan-bilinear"
    repair: tuple[str, ...] = ("fine-tune", "fine-tune-int8")
    upsampling: Upsampling = "bilinear"
    alone: bool = False
    aware: bool = False


STEPS: Mapping[str, Callable[[QuantizationScheme], QuantizationScheme]] = {
    f"min/max {name}" if name.startswith("+") else name: change for name, change in measure.STEPS.items()
}
"""Steps of post-training quantization, each on its own."""

SCHEMES = ("int8", "uint8-2019")
PLANS: tuple[Plan, ...] = (
    Plan("float", None),
    Plan("int8", PRESETS["int8"], repair=("fine-tune-int8", "fine-tune")),
    Plan("uint8-2019", PRESETS["uint8-2019"], repair=("fine-tune-uint8-2019", "fine-tune")),
    *(
        Plan(
            f"aware-{scheme}", PRESETS[scheme],
            repair=(f"fine-tune-aware-{scheme}", f"fine-tune-{scheme}", "fine-tune"), aware=True,
        )
        for scheme in SCHEMES
    ),
    Plan("transposed", None, "tomogan-transposed", upsampling="transposed", alone=True),
    Plan(
        "transposed-int8", PRESETS["int8"], "tomogan-transposed",
        ("fine-tune-transposed", "fine-tune-int8", "fine-tune"), "transposed",
    ),
    *(
        Plan(f"{scheme} {step}", STEPS[step](PRESETS[scheme].without_steps()), alone=True)
        for scheme in SCHEMES
        for step in STEPS
    ),
)  # fmt: skip
"""Every plan; those called ``<scheme> <step>`` are one step of post-training quantization on its own."""


@dataclass(frozen=True)
class WeightFiles:
    """Weight files by name: given ones first, else ``<name>.npz`` in the folder."""

    folder: Path = TRAINED
    given: Mapping[str, Path] = field(default_factory=dict)

    def find(self, *names: str) -> Path | None:
        """The file of the first name that has one. Raises UsageError for a given file that is missing."""
        for name in names:
            path = self.given.get(name)
            if path is not None and not path.is_file():
                raise UsageError(f"weights {name}: {path} does not exist")
            path = path or self.folder / f"{name}.npz"
            if path.is_file():
                return path
        return None

    def refuse_unread(self, plans: Sequence[Plan]) -> None:
        """Raises UsageError for a given file under a name that none of ``plans`` reads: the shipped one would
        be measured in its place."""
        known = sorted({name for plan in plans for name in (plan.weights, *plan.repair)})
        for name in sorted(self.given.keys() - set(known)):
            raise UsageError(f"weights {name}: no plan reads this name; known: {', '.join(known)}")


def prepare(folder: Path, files: WeightFiles, say: Say, plans: Sequence[Plan] = ()) -> dict[str, str]:
    """Writes ``<plan>/tomogan.tflite``, ``fine-tune.tflite`` and ``chain.tflite``, all for 64×64 tiles;
    for plans with learnt ranges also ``unrounded.tflite``, those weights in float.

    Returns SHA-256 by ``<plan>/<model>``. A plan whose weights are missing, or that cannot be quantized, is
    left out with a printed reason. A file on disk is used again if it was made from those weights by that
    source. Raises UsageError for given files that no plan reads.
    """
    files.refuse_unread((*PLANS, *plans))
    sources = source_digest(
        *(
            Path(package.__file__).parent
            for package in (karat24.export.quantize, karat24.refimpl.networks, imaging)
        ),
        Path(calibration_inputs.__file__),
        Path(__file__),
    )
    digests: dict[str, str] = {}
    images: list[Array] = []
    for plan in plans or PLANS:
        weights, repair = files.find(plan.weights), files.find(*plan.repair)
        if weights is None:
            say(f"{plan.name}: left out, no weights called {plan.weights}")
            continue
        origin = _origin(plan, sources, weights, repair)
        place = folder / plan.name.replace("/", "-").replace(" ", "-")
        record = place / "made.json"
        if not record.is_file() or json.loads(record.read_text())["origin"] != origin:
            say(f"{plan.name}: preparing …")
            if not images and plan.scheme is not None:
                images.append(simulated(CALIBRATION_SIZE, 3, 0))
            try:
                graphs = _graphs(plan, load_weights(weights), repair, images[0] if images else None)
            except KaratError as error:
                say(f"{plan.name}: left out: {error}")
                continue
            place.mkdir(parents=True, exist_ok=True)
            made = {}
            for name, graph in graphs.items():
                content = write_model(graph)
                (place / f"{name}.tflite").write_bytes(content)
                made[name] = hashlib.sha256(content).hexdigest()
            record.write_text(json.dumps({"origin": origin, "models": made}, indent=1) + "\n")
        for name, digest in json.loads(record.read_text())["models"].items():
            digests[f"{plan.name}/{name}"] = digest
    return digests


def model_path(folder: Path, model: str) -> Path:
    """The file of ``<plan>/<model>`` that :func:`prepare` wrote."""
    plan, _, name = model.rpartition("/")
    return folder / plan.replace("/", "-").replace(" ", "-") / f"{name}.tflite"


def load_model(folder: Path, model: str, size: int = TILE) -> Graph:
    """``<plan>/<model>`` for square images of ``size`` pixels."""
    return resized(read_model(model_path(folder, model)), size // TILE)


def resized(graph: Graph, factor: int) -> Graph:
    """A copy of a network of convolutions for images ``factor`` times as high and wide.

    Raises ModelError for an op that is not known to scale with the image.
    """
    sizes: dict[int, tuple[int, ...]] = {}
    for view in graph.views():
        if view.op == "RESIZE_BILINEAR":
            sizes[view.input(1).index] = (factor, factor)
        elif view.op == "TRANSPOSE_CONV":
            sizes[view.input(0).index] = (1, factor, factor, 1)
        elif view.op not in {"CONV_2D", "MAX_POOL_2D", "CONCATENATION", "RELU", "QUANTIZE"}:
            raise ModelError(f"{view}: it is not known how {view.op} scales with the image")
    tensors = []
    for tensor in graph.tensors:
        if tensor.index in sizes and tensor.data is not None:
            data = (tensor.data * np.array(sizes[tensor.index], np.int32)).astype(tensor.data.dtype)
            tensor = replace(tensor, data=data)
        elif not tensor.is_constant:
            batch, height, width, channels = tensor.shape
            tensor = replace(
                tensor, shape=(batch, height * factor, width * factor, channels), shape_signature=None
            )
        tensors.append(tensor)
    return replace(graph, tensors=tuple(tensors))


def _origin(plan: Plan, sources: str, weights: Path, repair: Path | None) -> str:
    digest = hashlib.sha256(f"{plan} {sources}".encode())
    for path in (weights, None if plan.alone else repair):
        digest.update(b"none" if path is None else path.read_bytes())
    return digest.hexdigest()


def _graphs(
    plan: Plan, weights: Mapping[str, Array], repair: Path | None, images: Array | None
) -> dict[str, Graph]:
    """The plan's graphs for tiles, calibrated on ``images`` ``[slice, y, x, 3]``."""
    exact = tomogan(TILE, TILE, plan.upsampling, weights)
    fixes = None if plan.alone or repair is None else fine_tune(TILE, TILE, load_weights(repair))
    if plan.scheme is None:
        return {"tomogan": exact} | ({} if fixes is None else {"fine-tune": fixes})
    assert images is not None
    if plan.aware:
        first = quantize_learnt(exact, learnt_ranges(weights), plan.scheme)
    else:
        first = quantize_model(exact, tiles_of(images, TILE, TILE), plan.scheme)
    if fixes is None:
        return {"tomogan": first}
    learnt = learnt_ranges(load_weights(repair)) if repair is not None else {}
    if learnt:
        second = quantize_learnt(fixes, learnt, plan.scheme)
    else:
        # Fine-Tune is calibrated on its later input: slices restored by the quantized TomoGAN, in tiles.
        network, grid = on_oracle(first, CANONICAL), TileGrid(*images.shape[1:3], TILE, TILE)
        restored = tiles_of([grid.map(network, image) for image in images], TILE, TILE)
        second = quantize_model(fixes, restored, plan.scheme, {"input": output_range(first)})
    graphs = {"tomogan": first, "fine-tune": second, "chain": chain(first, second)}
    return graphs | ({"unrounded": exact} if plan.aware else {})
