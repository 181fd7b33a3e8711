"""The experiments' image networks as float32 graphs, which are counted, quantized and judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing

if TYPE_CHECKING:
    from benchmarks.papers.nets import ImageNet


def image_graph(
    channels: tuple[int, ...],
    hidden: int,
    side: int,
    classes: int,
    weights: Mapping[str, Array] | None = None,
) -> Graph:
    """:class:`benchmarks.papers.nets.ImageNet` for ``[1, side, side, 1]``; random weights unless given."""
    net = Drawing(
        "images", weights, 0, f"{len(channels)} convolutions and two layers, images of {side}×{side}"
    )
    x = net.input("input", side, side, 1)
    for number, width in enumerate(channels, 1):
        x = net.max_pool(net.conv(x, f"block{number}/conv", width, size=3), f"block{number}/pool")
    x = net.fully_connected(x, "hidden", hidden)
    return net.finish(net.fully_connected(x, "output", classes, activation="NONE"))


def weights_by_name(module: ImageNet) -> dict[str, Array]:
    """A trained module's weights in the graph's names and layouts."""
    found: dict[str, Array] = {}
    for number, layer in enumerate(module.convolutions, 1):
        found[f"block{number}/conv/filter"] = layer.weight.detach().numpy().transpose(0, 2, 3, 1).copy()
        found[f"block{number}/conv/bias"] = layer.bias.detach().numpy().copy()
    for name, layer, channels in (
        ("hidden", module.hidden, module.convolutions[-1].out_channels),
        ("output", module.output, module.output.in_features),
    ):
        side = round((layer.in_features / channels) ** 0.5)
        found[f"{name}/filter"] = layer.weight.detach().numpy().reshape(-1, side, side, channels).copy()
        found[f"{name}/bias"] = layer.bias.detach().numpy().copy()
    return found
