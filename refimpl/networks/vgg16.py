"""VGG16 for 32×32 images, in widths."""

from __future__ import annotations

from collections.abc import Mapping

from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing, check_width

SIZE = 32
"""Height and width of an image."""

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each block at width 1; a 2×2 max-pool ends each."""

HIDDEN = 512


def vgg16(
    width: float = 1.0, classes: int = 100, weights: Mapping[str, Array] | None = None, seed: int = 0
) -> Graph:
    """The network as a float32 graph: ``[1, 32, 32, 3]`` → ``[1, 1, 1, classes]``, before softmax.

    13 convolutions of 3×3 and three fully connected layers, the two hidden ones of 512. ``width`` scales
    every number of channels but the input's and the classes'; it is 1, 0.75, 0.5, 0.25 or whatever leaves
    whole numbers. Batch normalization of a trained network belongs into ``weights``, which, with ``seed`` and
    errors, are those of :func:`tomogan`.

    Source: "Selective Deep Convolutional Neural Network for Low Cost Distorted Image Classification"; the
    head is that of the public pytorch-vgg-cifar10, which alone fits the paper's counts.
    """
    check_width("VGG16", width, [channels for channels, _ in BLOCKS])
    net = Drawing("vgg16", weights, seed, f"VGG16 for 32×32 images, width {width:g}")
    x = net.input("input", SIZE, SIZE, 3)
    for number, (channels, layers) in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            x = net.conv(x, f"block{number}/conv{layer}", int(channels * width), size=3)
        x = net.max_pool(x, f"block{number}/pool")
    x = net.fully_connected(x, "head/hidden1", int(HIDDEN * width))
    x = net.fully_connected(x, "head/hidden2", int(HIDDEN * width))
    x = net.fully_connected(x, "output", classes, activation="NONE")
    return net.finish(x)
