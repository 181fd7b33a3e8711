"""The Fine-Tune network: repairs what quantization cost a restored slice."""

from __future__ import annotations

from collections.abc import Mapping

from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing, check_size


def fine_tune(
    height: int,
    width: int,
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Graph:
    """The network as a float32 graph: ``[1, height, width, 1]`` → ``[1, height, width, 1]``.

    593 operations per pixel (two per multiplication-addition, one per bias).
    Sizes, ``weights``, ``seed`` and errors are those of :func:`tomogan`.
    """
    check_size("Fine-Tune", height, width)
    net = Drawing("fine_tune", weights, seed, "Fine-Tune network")

    x = net.input("input", height, width, 1)
    x = net.conv(x, "repair", 16, size=3)
    x = net.conv(x, "output", 1, size=3, activation="NONE")
    return net.finish(x)
