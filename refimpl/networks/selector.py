"""The tiny network that decides which of two dedicated networks an image is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing, check_size

SelectorLayers: TypeAlias = Literal["tiny-5", "tiny-3"]


def selector(
    layers: SelectorLayers = "tiny-5",
    height: int = 32,
    width: int = 32,
    channels: int = 3,
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Graph:
    """The network as a float32 graph: ``[1, height, width, channels]`` → ``[1, 1, 1, 2]``: clean, distorted.

    ``tiny-5``: 5×5 to 8, pool, 5×5 to 8, pool, fully connected 512, 16, 2. ``tiny-3``: 3×3 to 16, pool,
    3×3 to 16, pool, 256, 2. The paper does not print its layers: these two lie within the bounds that its
    totals leave (241,728 to 284,703 weights, 1,272,016 to 1,297,871 multiplications at 32×32). Sizes,
    ``weights``, ``seed`` and errors are those of :func:`tomogan`.
    """
    check_size("selector", height, width)
    if layers not in ("tiny-5", "tiny-3"):
        raise UsageError(f"selector: layers {layers!r} are neither 'tiny-5' nor 'tiny-3'")
    size, inner, hidden = (5, 8, (512, 16)) if layers == "tiny-5" else (3, 16, (256,))
    net = Drawing("selector", weights, seed, f"selector, {layers}")
    x = net.input("input", height, width, channels)
    for box in (1, 2):
        x = net.conv(x, f"box{box}/conv", inner, size)
        x = net.max_pool(x, f"box{box}/pool")
    for number, units in enumerate(hidden, 1):
        x = net.fully_connected(x, f"hidden{number}", units)
    return net.finish(net.fully_connected(x, "output", 2, activation="NONE"))
