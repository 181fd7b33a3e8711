"""Simultaneous iterative reconstruction (SIRT), the method behind the published TomoGAN data sets.

    f ← max(0, g + C · Aᵀ · R · (p - A·g)),    R = 1 / row sums of A,  C = 1 / column sums of A

(Gregor & Benson, IEEE Trans. Med. Imaging 27, 2008), where ``g`` runs ahead of ``f`` by Nesterov's momentum:
``n`` steps reach what plain SIRT reaches in about n²/4. ``A`` is :func:`projector.splat` and
``Aᵀ`` its exact transpose, so a step descends on a weighted least-squares norm and the method converges.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fbp import back_project
from karat24.tomography.imaging.geometry import check_sinogram, even_angles
from karat24.tomography.imaging.projector import splat


def sirt(
    sinogram: Array,
    degrees: Array | None = None,
    *,
    iterations: int = 20,
    output_size: int | None = None,
    nonnegative: bool = True,
) -> Array:
    """Reconstruct ``[angle, bin]`` → float32 ``[output_size, output_size]`` in 1/pixel, starting from zero.

    More iterations sharpen and, beyond some count, only fit noise; 10 to 30 are usual. One iteration costs
    one projection and one back projection. The object must lie inside the image (``output_size``, default the
    number of bins). Raises as :func:`karat24.tomography.imaging.fbp.fbp`.
    """
    sinogram = np.asarray(sinogram)
    degrees = even_angles(len(sinogram)) if degrees is None else np.asarray(degrees, np.float64)
    check_sinogram(sinogram, degrees)
    if iterations < 1:
        raise UsageError(f"iterations is {iterations}; give at least 1")
    bins = sinogram.shape[1]
    size = bins if output_size is None else output_size
    if size < 1:
        raise UsageError(f"output_size is {size}; give at least 1 pixel")
    measured = sinogram.astype(np.float32)
    row_sums = splat(np.ones((size, size), np.float32), degrees, bins)
    column_sums = back_project(np.ones_like(measured), degrees, size)
    # A bin that no pixel's centre comes near weighs almost nothing; half a pixel keeps it from blowing up.
    row_weight = np.where(row_sums > 0.5, 1.0 / np.maximum(row_sums, 0.5), 0.0).astype(np.float32)
    column_weight = np.where(column_sums > 0.0, 1.0 / np.maximum(column_sums, 1.0), 0.0).astype(np.float32)
    image = np.zeros((size, size), np.float32)
    ahead, weight = image, 1.0
    for _ in range(iterations):
        residual = row_weight * (measured - splat(ahead, degrees, bins))
        step = ahead + column_weight * back_project(residual, degrees, size)
        if nonnegative:
            np.maximum(step, 0.0, out=step)
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * weight * weight))
        ahead = step + np.float32((weight - 1.0) / following) * (step - image)
        image, weight = step, following
    return image
