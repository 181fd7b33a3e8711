"""Batch normalization behind a layer of powers of two, without touching the powers.

``y = γ (W x + b - μ) / sqrt(σ² + ε) + β``. Multiplied into the weights, ``γ / sqrt(σ² + ε)`` would leave no
power of two. Its magnitude goes into the scale of its output channel instead, where quantized models have a
float anyway, and its sign into the weights' signs. A channel with ``γ = 0`` loses its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from karat24.export.quantize.powers_of_two.rounding import PowerFilter
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import Array


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Trained batch normalization, each array float ``[out_channel]``. Raises ModelError for arrays of
    different lengths, values that are not finite, or ``variance + epsilon`` that is not positive."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        arrays = (self.gamma, self.beta, self.mean, self.variance)
        if any(array.shape != (self.gamma.size,) for array in arrays):
            raise ModelError(
                f"batch normalization of {[array.shape for array in arrays]}: not one vector each"
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError("batch normalization holds NaN or infinite values")
        if (self.variance + self.epsilon <= 0).any():
            raise ModelError("batch normalization: variance + epsilon is not positive")

    @property
    def factors(self) -> Array:
        """``γ / sqrt(σ² + ε)``, float64 ``[out_channel]``."""
        factors: Array = self.gamma.astype(np.float64) / np.sqrt(
            self.variance.astype(np.float64) + self.epsilon
        )
        return factors


def fold(
    filter_: PowerFilter, bias: Array | None, norm: BatchNorm, channel_axis: int = 0
) -> tuple[PowerFilter, Array, Array]:
    """The filter with its signs flipped where γ < 0 and cleared where γ = 0; the positive factor of each
    output channel's scale (1 where γ = 0), float64; and the layer's new bias, float32 ``[out_channel]``.

    Raises ModelError when ``norm`` has another number of channels than the filter.
    """
    channels = filter_.signs.shape[channel_axis]
    if norm.gamma.size != channels:
        raise ModelError(f"batch normalization of {norm.gamma.size} channels behind a layer of {channels}")
    shape = [1] * filter_.signs.ndim
    shape[channel_axis] = -1
    turn = np.sign(norm.factors).astype(np.int8).reshape(shape)
    signs = filter_.signs * turn
    exponents = np.where(signs == 0, 0, filter_.exponents).astype(np.int16)
    old = np.zeros(channels) if bias is None else bias.astype(np.float64)
    new = norm.beta.astype(np.float64) + (old - norm.mean) * norm.factors
    scale = np.where(norm.factors == 0, 1.0, np.abs(norm.factors))
    return replace(filter_, signs=signs, exponents=exponents), scale, new.astype(np.float32)
