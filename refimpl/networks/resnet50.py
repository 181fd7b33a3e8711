"""ResNet50 for 32×32 images, in widths."""

from __future__ import annotations

from collections.abc import Mapping

from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing, check_width

SIZE = 32
"""Height and width of an image."""

STEM = 64

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Inner channels and bottlenecks of each stage at width 1; from the second on a stage halves the image."""

EXPANSION = 4
"""Output channels of a bottleneck for each of its inner channels."""


def resnet50(
    width: float = 1.0, classes: int = 100, weights: Mapping[str, Array] | None = None, seed: int = 0
) -> Graph:
    """The network as a float32 graph: ``[1, 32, 32, 3]`` → ``[1, 1, 1, classes]``, before softmax.

    The stem is one 3×3 convolution with stride 1 and no pool. A bottleneck is 1×1, 3×3 (with the stride),
    1×1; the first of each stage has a 1×1 projection beside it. SAME padding at stride 2 is TensorFlow's: one
    pixel behind the image, none before it. ``width``, ``weights``, ``seed`` and errors are those of
    :func:`vgg16`.

    Source: as for :func:`vgg16`; the layers are those of the public pytorch-cifar100.
    """
    check_width("ResNet50", width, [STEM, *(channels for channels, _ in STAGES)])
    net = Drawing("resnet50", weights, seed, f"ResNet50 for 32×32 images, width {width:g}")
    x = net.input("input", SIZE, SIZE, 3)
    x = net.conv(x, "stem", int(STEM * width), size=3)
    for stage, (channels, blocks) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _bottleneck(net, x, f"stage{stage}/block{block}", int(channels * width), stride, block == 1)
    x = net.global_mean(x, "mean")
    return net.finish(net.fully_connected(x, "output", classes, activation="NONE"))


def _bottleneck(net: Drawing, x: int, name: str, channels: int, stride: int, project: bool) -> int:
    inner = net.conv(x, f"{name}/reduce", channels, size=1)
    inner = net.conv(inner, f"{name}/conv", channels, size=3, stride=stride)
    inner = net.conv(inner, f"{name}/expand", EXPANSION * channels, size=1, activation="NONE")
    if project:
        x = net.conv(x, f"{name}/project", EXPANSION * channels, size=1, activation="NONE", stride=stride)
    return net.add(inner, x, f"{name}/sum")
