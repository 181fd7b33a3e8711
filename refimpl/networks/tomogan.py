"""TomoGAN's generator: denoises a tomography slice given its two neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.drawing import Drawing, check_size

Upsampling: TypeAlias = Literal["bilinear", "transposed"]


def tomogan(
    height: int,
    width: int,
    upsampling: Upsampling = "bilinear",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Graph:
    """The generator as a float32 graph: ``[1, height, width, 3]`` → ``[1, height, width, 1]``.

    Input channels are three adjacent slices, the middle one being restored.
    ``height`` and ``width`` are positive multiples of 8. ``upsampling`` is bilinear
    with half-pixel centres (694,913 parameters) or a 4×4 stride-2 transposed
    convolution of the same width. ``weights`` maps every constant's name to a
    float32 array (:func:`load_weights` reads a file); None draws them from ``seed``.

    Raises UsageError for sizes or options, ModelError for weights that do not fit.

    Source: Liu et al., "TomoGAN: low-dose synchrotron x-ray tomography with
    generative adversarial networks", and the generator published with it.
    """
    check_size("TomoGAN", height, width)
    if upsampling not in ("bilinear", "transposed"):
        raise UsageError(f"TomoGAN: upsampling {upsampling!r} is neither 'bilinear' nor 'transposed'")
    net = Drawing("tomogan", weights, seed, f"TomoGAN generator, {upsampling} upsampling")
    upsample = net.upsample_bilinear if upsampling == "bilinear" else net.upsample_transposed

    x = net.input("input", height, width, 3)
    x = net.conv(x, "mix", 8, size=1)

    x = net.conv(x, "box1/conv1", 32, size=3)
    box1 = net.conv(x, "box1/conv2", 32, size=3)
    x = net.max_pool(box1, "box1/pool")

    x = net.conv(x, "box2/conv1", 64, size=3)
    box2 = net.conv(x, "box2/conv2", 64, size=3)
    x = net.max_pool(box2, "box2/pool")

    x = net.conv(x, "box3/conv1", 128, size=3)
    box3 = net.conv(x, "box3/conv2", 128, size=3)
    x = net.max_pool(box3, "box3/pool")

    x = net.conv(x, "bottom/conv", 128, size=3)

    x = upsample(x, "up3/upsample")
    x = net.concat(box3, x, "up3/concat")
    x = net.conv(x, "up3/conv1", 64, size=3)
    x = net.conv(x, "up3/conv2", 64, size=3)

    x = upsample(x, "up2/upsample")
    x = net.concat(box2, x, "up2/concat")
    x = net.conv(x, "up2/conv1", 32, size=3)
    x = net.conv(x, "up2/conv2", 32, size=3)

    x = upsample(x, "up1/upsample")
    x = net.concat(box1, x, "up1/concat")
    x = net.conv(x, "up1/conv1", 32, size=3)
    x = net.conv(x, "up1/conv2", 32, size=3)

    x = net.conv(x, "head", 16, size=1)
    x = net.conv(x, "output", 1, size=1, activation="NONE")
    return net.finish(x)
