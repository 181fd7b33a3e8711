"""From line integrals to what a detector reports: absorption, phase fringes, blur, photon noise, defects.

    I(t) = blur ∗ (1 - fringe·Δ²) exp(-p(t))        noise-free, open beam = 1, Δ² the second difference

The fringe term is near-field propagation (transport of intensity): bright and dark rims along every edge. The
Radon transform turns a second derivative into the Laplacian, so the reconstruction has the same rims.
The blur is the scintillator's point spread: photons are counted *before* it, so that noise in neighbouring
bins is correlated, as on a real detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array

_DARKEST = 1e-4  # transmission below this is reported as this: the detector's floor


@dataclass(frozen=True)
class Beam:
    """How a scan is taken.

    Parameters
    ----------
    dose : photons per bin and projection in the open beam. Noise variance in the counts equals their mean.
    blur : standard deviation of the detector's point spread, bins.
    fringe : strength of the phase fringes, bins²; 0 is pure absorption.
    hardening : spread of the beam's energies, 0 (one energy) to about 0.4; thick parts look thinner.
    read_noise : standard deviation of the electronics, in photons.
    ring : standard deviation of what flat-field correction leaves of each bin's sensitivity.
    dead : share of bins that do not respond; most are filled in from their neighbours, some are missed.
    spikes : share of readings hit by a stray gamma ray.
    """

    dose: float
    blur: float = 0.5
    fringe: float = 0.0
    hardening: float = 0.0
    read_noise: float = 0.0
    ring: float = 0.0
    dead: float = 0.0
    spikes: float = 0.0


def transmitted_intensity(path: Array, beam: Beam) -> Array:
    """Noise-free intensity in front of the scintillator: ``[angle, bin]`` → float32, open beam 1.

    ``path`` is the line integral of attenuation (no unit).
    """
    if beam.hardening > 0.0:
        soft, hard = np.exp(-path * (1.0 + beam.hardening)), np.exp(-path * (1.0 - beam.hardening))
        intensity: Array = 0.5 * (soft + hard)
    else:
        intensity = np.exp(-path)
    if beam.fringe > 0.0:
        sides = np.pad(intensity, ((0, 0), (1, 1)), mode="edge")
        intensity = intensity - beam.fringe * (sides[:, 2:] - 2.0 * intensity + sides[:, :-2])
    floored: Array = np.maximum(intensity, _DARKEST)
    return floored.astype(np.float32)


def noise_free_reading(intensity: Array, beam: Beam) -> Array:
    """The line integrals a perfect, noise-free measurement of ``intensity`` reports: float32."""
    return _log(_blur_rows(intensity, beam.blur))


def noisy_reading(rng: np.random.Generator, intensity: Array, beam: Beam) -> Array:
    """The line integrals one real measurement of ``intensity`` reports: float32 ``[angle, bin]``.

    Which bins and readings are bad is drawn before the photons are, so it does not depend on the dose.
    """
    angles, bins = intensity.shape
    gain = np.ones(bins)
    gain += beam.ring * rng.standard_normal(bins)
    # Most dead bins are known and filled in; the others still see, but weakly, and leave a sharp ring.
    dead = (rng.random(bins) < beam.dead) & (np.arange(bins) % (bins - 1) > 0)
    missed = dead & (rng.random(bins) < 0.25)
    gain[missed] *= rng.uniform(0.9, 0.99, int(missed.sum()))
    filled = np.flatnonzero(dead & ~missed)
    spikes = rng.integers(0, angles * bins, rng.poisson(beam.spikes * angles * bins))
    energies = beam.dose * rng.uniform(1.0, 4.0, len(spikes))

    counts = rng.poisson(beam.dose * intensity.astype(np.float64)).astype(np.float32)
    counts = _blur_rows(counts, beam.blur)
    counts += np.float32(beam.read_noise) * rng.standard_normal(counts.shape, dtype=np.float32)
    counts *= gain.astype(np.float32)
    counts.reshape(-1)[spikes] += energies.astype(np.float32)
    counts[:, filled] = 0.5 * (counts[:, filled - 1] + counts[:, filled + 1])
    # A reading of less than half a photon carries no more information than half a photon.
    return _log(np.maximum(counts, 0.5) / np.float32(beam.dose))


def _log(intensity: Array) -> Array:
    path: Array = -np.log(np.maximum(intensity, _DARKEST)).astype(np.float32)
    return path


def _blur_rows(rows: Array, deviation: float) -> Array:
    """Gaussian blur along each row, standard deviation in bins; float32."""
    if deviation <= 0.0:
        return rows.astype(np.float32)
    bins = rows.shape[1]
    length = 64 * ((bins + 48 + 63) // 64)
    # The rows end in open beam; continuing them by their end values keeps the wrapped-around end smooth.
    before = (length - bins) // 2
    padded = np.pad(rows.astype(np.float32), ((0, 0), (before, length - bins - before)), mode="edge")
    k = 2.0 * np.pi * np.fft.rfftfreq(length)
    response = np.exp(-0.5 * (deviation * k) ** 2).astype(np.float32)
    filtered = np.fft.irfft(np.fft.rfft(padded) * response, n=length)
    return np.ascontiguousarray(filtered[:, before : before + bins], np.float32)
