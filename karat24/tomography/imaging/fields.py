"""Random fields: the textures, shadings and rough surfaces of simulated samples.

A field is Gaussian with zero mean and unit variance before it is shaped. In depth it mixes two independent
planes, ``A·cos(z / depth) + B·sin(z / depth)``: stationary, and neighbouring slices correlate by
``cos(Δz / depth)``, so they differ slightly, as the slices of a real object do.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array


class Field:
    """A stationary random field over ``[size, size]`` pixels, sampled at any height.

    Parameters
    ----------
    length : correlation length in pixels: structure much larger than it fades away.
    roughness : exponent of the amplitude spectrum, ``(1 + (length·k)²) ** (-roughness / 2)``: 1 is grainy,
        2 cloudy, 4 smooth.
    period, spread : if ``period`` is given, keep a band of wavelengths around that many pixels instead, with
        relative width ``spread``: bubbly when narrow, mottled when wide.
    stretch, direction : structure is ``stretch`` times longer along ``direction`` (radians, x towards y).
    depth : correlation length along z in pixels (default: ``length`` or ``period``).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        *,
        length: float = 10.0,
        roughness: float = 2.0,
        period: float | None = None,
        spread: float = 0.25,
        stretch: float = 1.0,
        direction: float = 0.0,
        depth: float | None = None,
    ) -> None:
        self._size = size
        self._depth = max(1.0, depth or period or length)
        padded = 32 * math.ceil(size / 32)  # a size the transform is fast at
        ky = np.fft.fftfreq(padded)[:, np.newaxis]
        kx = np.fft.rfftfreq(padded)[np.newaxis, :]
        c, s = math.cos(direction), math.sin(direction)
        k2 = (stretch * (c * kx + s * ky)) ** 2 + (c * ky - s * kx) ** 2
        if period is not None:
            amplitude = np.exp(-0.5 * ((np.sqrt(k2) * period - 1.0) / spread) ** 2)
        else:
            amplitude = (1.0 + (2.0 * math.pi * length) ** 2 * k2) ** (-0.5 * roughness)
        amplitude[0, 0] = 0.0
        spectrum = amplitude.astype(np.float32)
        self._planes = [_shaped_noise(rng, padded, spectrum)[:size, :size] for _ in range(2)]

    def at(self, z: float) -> Array:
        """The plane at height ``z`` in pixels: float32 ``[size, size]``."""
        a, b = self._planes
        angle = z / self._depth
        plane: Array = np.float32(math.cos(angle)) * a + np.float32(math.sin(angle)) * b
        return plane


def _shaped_noise(rng: np.random.Generator, size: int, spectrum: Array) -> Array:
    noise = rng.standard_normal((size, size), dtype=np.float32)
    plane: Array = np.fft.irfft2(np.fft.rfft2(noise) * spectrum, s=(size, size)).astype(np.float32)
    deviation = float(plane.std())
    return plane / np.float32(deviation if deviation > 0.0 else 1.0)


def smooth_step(values: Array, edge: float = 0.0, width: float = 1.0) -> Array:
    """0 below ``edge - width / 2``, 1 above ``edge + width / 2``, a straight ramp between: float32."""
    ramp: Array = np.clip((values - edge) / width + 0.5, 0.0, 1.0).astype(np.float32)
    return ramp


def level_set(values: Array, level: float) -> Array:
    """Coverage of ``values > level`` with an edge one pixel wide: float32 in 0 … 1.

    The distance to the surface is ``(value - level) / |gradient|`` to first order.
    """
    rows, columns = np.gradient(values)
    steepness = np.sqrt(rows * rows + columns * columns)
    return smooth_step((values - level) / np.maximum(steepness, 1e-6))


def sample(plane: Array, points: Array) -> Array:
    """Read a plane at ``[n, 2]`` points (x, y from its centre), linear and clamped: ``[n]``."""
    size = plane.shape[0]
    x = np.clip(points[:, 0] + size // 2, 0.0, size - 1.001)
    y = np.clip(points[:, 1] + size // 2, 0.0, size - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    u, v = x - column, y - row
    upper = plane[row, column] * (1.0 - u) + plane[row, column + 1] * u
    lower = plane[row + 1, column] * (1.0 - u) + plane[row + 1, column + 1] * u
    result: Array = upper * (1.0 - v) + lower * v
    return result


def rough_profile(rng: np.random.Generator, count: int, length: float) -> Array:
    """A smooth random function of ``count`` samples with correlation ``length``: unit variance, float64."""
    frequency = np.fft.rfftfreq(2 * count)
    noise = rng.standard_normal(2 * count)
    shaped = np.fft.irfft(np.fft.rfft(noise) / (1.0 + (2.0 * math.pi * length * frequency) ** 2), n=2 * count)
    profile = shaped[:count]
    unit: Array = (profile - profile.mean()) / max(float(profile.std()), 1e-12)
    return unit
