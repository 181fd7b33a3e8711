"""Total variation denoising until convergence; scikit-image's stops earlier, when the energy hardly falls.

    min over u of  |u - f|² / 2 + weight · Σ |∇u|

by accelerated gradient projection on the dual (Beck and Teboulle, "Fast gradient-based algorithms for
constrained total variation image denoising and deblurring problems", 2009, algorithm FGP), isotropic.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array

MOST_STEPS = 400
SMALL = 2e-5
"""The iteration has converged when a step changes the image by less than this, root mean square."""


def converged_total_variation(image: Array, weight: float, steps: int = MOST_STEPS) -> Array:
    """An image ``[y, x]`` of grey values denoised: float32."""
    given = image.astype(np.float64)
    dual = np.zeros((2, *given.shape))
    ahead, momentum = dual, 1.0
    before = given
    for step in range(steps):
        result = given - weight * _divergence(ahead)
        following = ahead + _gradient(result) / (8.0 * weight)
        following /= np.maximum(1.0, np.sqrt((following**2).sum(axis=0)))
        next_momentum = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * momentum**2))
        ahead = following + (momentum - 1.0) / next_momentum * (following - dual)
        dual, momentum = following, next_momentum
        if step and math.sqrt(float(np.mean((result - before) ** 2))) < SMALL:
            break
        before = result
    return (given - weight * _divergence(dual)).astype(np.float32)


def energy(image: Array, given: Array, weight: float) -> float:
    """The function that is minimised."""
    steps = _gradient(image.astype(np.float64))
    variation = float(np.sqrt((steps**2).sum(axis=0)).sum())
    return 0.5 * float(((image - given).astype(np.float64) ** 2).sum()) + weight * variation


def _gradient(image: Array) -> Array:
    """Forward differences, zero at the far border: ``[2, y, x]``."""
    found = np.zeros((2, *image.shape))
    found[0, :-1] = image[1:] - image[:-1]
    found[1, :, :-1] = image[:, 1:] - image[:, :-1]
    return found


def _divergence(field: Array) -> Array:
    """The transpose of :func:`_gradient`: ``[y, x]``."""
    found = np.zeros(field.shape[1:])
    found[1:] += field[0, :-1]
    found[:-1] -= field[0, :-1]
    found[:, 1:] += field[1, :, :-1]
    found[:, :-1] -= field[1, :, :-1]
    return found
