"""Selective networks of the experiments as int8 files: their accuracy on the oracle and LiteRT's verdict."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.papers.image_graph import image_graph, weights_by_name
from benchmarks.papers.nets import train
from benchmarks.papers.tasks import Record
from karat24.delegates import delegate_named
from karat24.delegates.selective import SelectiveNetwork, branch_of
from karat24.export import write_model
from karat24.export.quantize import Range, quantize_model
from karat24.export.quantize.powers_of_two import quantize_rounded, round_network
from karat24.golden.selective import verify_selective
from karat24.real_values import quantize_values
from karat24.refimpl.data_access import energy
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array, Graph
from training.incremental import prune_incrementally, quantize_incrementally

if TYPE_CHECKING:
    from benchmarks.papers.nets import ImageNet

JUDGED = 8
"""Number of images of each kind on which LiteRT is judged."""

MEASURED = 250
"""Number of images of each kind on which the accuracy in 8 bits is measured."""

BITS, MAX_SPAN, PRUNED, RATE = 5, 6, 0.8, 1e-3
SAMPLES = 64
UNIT = Range(0.0, 1.0)
"""The input range of all three networks, so that one quantized image serves all."""

Parts = dict[str, tuple[Array, Array, Array]]


def deployed(modules: dict[str, ImageNet], parts: Parts, epochs: int) -> Record:
    """For each way: the accuracy in percent of the selective network in 8 bits, the exit code and summary of
    LiteRT's verdict, and the energy of its weights as a share of the plain network's."""
    record: Record = {"ways": {}}
    plain = {name: graph_of(module) for name, module in modules.items()}
    base = sum(energy(graph) for graph in plain.values())
    for way in ("int8", "powers", "pruned"):
        changed = {
            name: module
            if way == "int8" or name == "selector"
            else trained_so(way, module, parts, name, epochs)
            for name, module in modules.items()
        }
        floats = {name: graph_of(module) for name, module in changed.items()}
        files = {
            name: write_model(quantized(graph, parts, name, way == "powers" and name != "selector"))
            for name, graph in floats.items()
        }
        network = SelectiveNetwork(files["selector"], files["clean"], files["distorted"])
        with delegate_named("litert-xnnpack") as delegate:
            judged = verify_selective(
                network, delegate, [image for image, _ in feeds(network, parts, JUDGED)]
            )
        record["ways"][way] = {
            "accuracy": right(network, parts),
            "exit_code": judged.exit_code,
            "summary": judged.summary(),
            "energy": float(sum(energy(graph, dense=way != "pruned") for graph in floats.values()) / base),
        }
    return record


def graph_of(module: ImageNet) -> Graph:
    """A module as a float32 graph."""
    channels = tuple(layer.out_channels for layer in module.convolutions)
    last = channels[-1]
    side = round((module.hidden.in_features / last) ** 0.5) * 2 ** len(channels)
    weights = weights_by_name(module)
    return image_graph(channels, module.hidden.out_features, side, module.output.out_features, weights)


def trained_so(way: str, module: ImageNet, parts: Parts, name: str, epochs: int) -> ImageNet:
    """A copy in powers of two, or pruned to a fifth, retrained on images of its kind."""
    clean, distorted, labels = parts["train"]
    images, changed = clean if name == "clean" else distorted, deepcopy(module)

    def retrain(inner: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        train(inner, images, labels, epochs, optimizer, 7)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, RATE)

    if way == "powers":
        quantize_incrementally(changed, BITS, retrain, optimizer, max_span=MAX_SPAN)
    else:
        prune_incrementally(changed, (0.5, PRUNED), retrain, optimizer, dense=["output.weight"])
    return changed


def quantized(graph: Graph, parts: Parts, name: str, powers: bool) -> Graph:
    """The graph in int8, calibrated on training images of its kind."""
    clean, distorted, _ = parts["train"]
    images = {"clean": clean, "distorted": distorted}.get(name, np.concatenate([clean[:32], distorted[:32]]))
    samples = [image.transpose(1, 2, 0)[None] for image in images[:SAMPLES]]
    if powers:
        return quantize_rounded(round_network(graph, BITS, MAX_SPAN), samples, given={"input": UNIT})
    return quantize_model(graph, samples, given={"input": UNIT})


def feeds(network: SelectiveNetwork, parts: Parts, number: int) -> list[tuple[Array, int]]:
    """Quantized test images, clean and distorted ones, with their labels."""
    graph = network.graphs["selector"]
    tensor = graph.tensors[graph.inputs[0]]
    clean, distorted, labels = parts["test"]
    return [
        (quantize_values(image.transpose(1, 2, 0)[None], tensor), int(label))
        for images in (clean, distorted)
        for image, label in zip(images[:number], labels, strict=False)
    ]


def right(network: SelectiveNetwork, parts: Parts) -> float:
    """Percent of test images that the selective network classifies correctly on the oracle."""
    programs = {name: compile_graph(graph, "litert-2.3-xnnpack", 1) for name, graph in network.graphs.items()}
    found = []
    for image, label in feeds(network, parts, MEASURED):
        branch = branch_of(programs["selector"].run([image]).outputs[0])
        found.append(int(programs[branch].run([image]).outputs[0].argmax()) == label)
    return 100 * float(np.mean(found))
