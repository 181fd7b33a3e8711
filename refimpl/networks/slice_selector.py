"""The tiny network that says of a tomography slice whether it needs denoising."""

from __future__ import annotations

from collections.abc import Mapping

from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing, check_size

CHANNELS = 8


def slice_selector(
    height: int = 64, width: int = 64, weights: Mapping[str, Array] | None = None, seed: int = 0
) -> Graph:
    """The network as a float32 graph: ``[1, height, width, 3]`` → ``[1, 1, 1, 2]``: clean, noisy.

    It sees a crop of the middle one of three adjacent slices with its neighbours, as TomoGAN does. Two
    convolutions of 3×3 to 8 channels, each with a pool, a third one, the mean over the image and a fully
    connected layer: noise is a texture, so that its place says nothing. 1,410 weights and biases. Sizes,
    ``weights``, ``seed`` and errors are those of :func:`tomogan`.
    """
    check_size("slice selector", height, width)
    net = Drawing("slice_selector", weights, seed, "slice selector: clean or noisy")
    x = net.input("input", height, width, 3)
    for box in (1, 2):
        x = net.max_pool(net.conv(x, f"box{box}/conv", CHANNELS, size=3), f"box{box}/pool")
    x = net.global_mean(net.conv(x, "box3/conv", CHANNELS, size=3), "mean")
    return net.finish(net.fully_connected(x, "output", 2, activation="NONE"))
