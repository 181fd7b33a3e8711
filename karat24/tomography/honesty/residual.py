"""Whether what was removed from a slice is noise: three tests, in the bands in which streaks cannot mislead.

Spectrum (and with it autocorrelation, its transform)
    Noise of a reconstruction has a spectrum that its filter and the beam give, whatever the sample. It shows
    in how neighbouring slices differ, and towards low frequencies falls at least as ``f**2`` from band to
    band. The residual's energy in each coarse band over what its finest band lets expect is its *excess*,
    about 1 for noise. Structure is coarser than noise and raises it.
Persistence
    Structure goes on in the neighbouring slices; noise does not, or only as much as their finest bands show.
    The covariance of what was removed with what the neighbours have there, beyond that, in deviations of its
    own.
Edges
    Where the restored slice is strongest in a band, how much of it is in the residual: the *share of edges*
    taken away. It is 0 for noise, which does not know the sample, even where it is as strong as the sample.

Measured on simulated scans of enough views, for pure noise: excess 0.04 to 1.3, persistence at most 2, share
of edges within 0.055. Iterative reconstructions, missing views and drift are not noise, and are reported as
structure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.honesty.bands import BANDS, FRACTION, PEAK, covariance, energy, fixed_point, split
from karat24.tomography.honesty.views import resolved_below

COARSE = 2
"""The first band judged; finer ones hold more noise than structure."""
MARGIN, SPARSE_MARGIN = 1.5, 3.0
"""A band is judged if this many times its frequency is still free of streaks: more where streaks were seen,
since a sample may be wider than its image."""
LEAST_RATIO = (1.0, 0.09, 0.012, 0.0014, 0.0002, 0.00003)
"""Energy over that of band 0, of noise behind the sharpest filter and no blur: nothing is expected to be
less."""
MOST_RATIO = 0.35
"""The ratio of band 2 behind a Hann filter, expected where neighbouring slices are equal."""
FALL = 5.0
"""From band to band the energy of noise falls by 8 in theory, by at least this much in rings and drift."""
MOST_EXCESS, DOUBT = 1.4, 4.5
"""Excess that passes for noise, and beyond it this many times the excess's own statistical deviation."""
MODES = 0.28
"""Independent values per pixel in band 0, a quarter as many from band to band."""
MOST_PERSISTENT = 4.0
"""Deviations of a normal distribution."""
STRONGEST = 0.05
"""Share of the pixels that count as edges of a band."""
MOST_EDGES = 0.10
MATTERS = 0.0015
"""Grey: structure of less deviation than this in a band is not reported."""
TRIVIAL = 0.0005
"""Grey: where less than this was removed from the finest band, there is nothing to judge."""


@dataclass(frozen=True)
class Residual:
    """What the tests say of one slice, band by band from :data:`COARSE` on; None where streaks forbid.

    ``excess`` is the energy over the expected, ``limits`` the largest that passes, ``edges`` the share of
    edges taken away. ``persistence`` is in deviations, all bands together. ``deviation`` is that of the
    structure found, grey, all bands together.
    """

    excess: tuple[float | None, ...]
    limits: tuple[float, ...]
    edges: tuple[float | None, ...]
    persistence: float
    deviation: float
    spectral: bool
    persistent: bool
    smoothed: bool

    @property
    def judged(self) -> bool:
        """Whether any band could be looked at."""
        return any(value is not None for value in self.excess)

    @property
    def structured(self) -> bool:
        """Whether what was removed is more than noise."""
        return self.spectral or self.persistent or self.smoothed

    def describe(self) -> str:
        """For people, a line."""
        if not self.judged:
            return "not judged: too few views, all bands hold streaks"
        parts = []
        if self.spectral:
            worst = max(value for value in self.excess if value is not None)
            parts.append(f"{worst:.3g} times the energy that noise has in a coarse band")
        if self.persistent:
            parts.append(f"what was removed goes on in the neighbouring slices ({self.persistence:.0f} σ)")
        if self.smoothed:
            share = max(value for value in self.edges if value is not None)
            parts.append(f"{100 * share:.0f} % of the edges taken away")
        return "; ".join(parts) or "noise"


def judge_residual(window: Array, restored: Array, views: int, masked: Array | None = None) -> Residual:
    """Tests what ``restored`` ``[y, x]`` took from the middle of ``window`` ``[y, x, 3]``, both grey.

    ``views`` is their number, 0 if no spokes show (:func:`karat24.tomography.honesty.views.count_views`).
    Pixels that are ``masked`` count as unchanged.
    """
    measured = window[..., 1]
    removed = measured - restored
    beside = 0.5 * (window[..., 0] + window[..., 2]) - restored
    if masked is not None:
        removed, beside = (np.where(masked, np.float32(0), image) for image in (removed, beside))
    parts, others, image = (split(fixed_point(grey))[0] for grey in (removed, beside, restored))
    found = [energy(band) for band in parts]
    expected = expected_energies(found, [energy(b - a) for a, b in zip(parts, others, strict=True)])
    common = covariance(parts[0], others[0]) / max(found[0], 1e-18)
    free = resolved_below(views or None, min(restored.shape))
    excess: list[float | None] = []
    edges: list[float | None] = []
    deviations: list[float] = []
    limits, structure, persisting = [], 0.0, 0.0
    spectral = smoothed = False
    for band in range(COARSE, BANDS):
        limits.append(_limit(band, restored.size))
        if not is_resolved(band, free, views):
            excess.append(None)
            edges.append(None)
            continue
        ratio = found[band] / max(expected[band], 1e-18)
        share, strength = _edges_taken(parts[band], image[band])
        excess.append(ratio)
        edges.append(share)
        beyond = covariance(parts[band], others[band]) - common * found[band]
        usual = math.sqrt(max(found[band] * energy(others[band]), 1e-24) / values_of(band, restored.size))
        deviations.append(beyond / usual)
        persisting += max(beyond, 0.0)
        left = max(found[band] - expected[band], 0.0)
        told = found[0] > TRIVIAL**2 or left > MATTERS**2
        if told and ratio > limits[-1] and left > MATTERS**2:
            spectral = True
            structure += left
        if share > MOST_EDGES and share * strength > MATTERS:
            smoothed = True
    persistence = sum(deviations) / math.sqrt(max(len(deviations), 1))
    persistent = persistence > MOST_PERSISTENT and persisting > MATTERS**2
    return Residual(
        excess=tuple(excess),
        limits=tuple(limits),
        edges=tuple(edges),
        persistence=persistence,
        deviation=math.sqrt(max(structure, persisting if persistent else 0.0)),
        spectral=spectral,
        persistent=persistent,
        smoothed=smoothed,
    )


def expected_energies(found: list[float], between: list[float]) -> list[float]:
    """What noise as strong as the residual's finest band has in each band, grey².

    ``found`` is the residual's spectrum, ``between`` that of the difference of neighbouring slices.
    """
    finest = found[0]
    expected = [finest]
    second = found[COARSE] / max(finest, 1e-18)
    for band in range(1, BANDS):
        told = between[0] > 1e-3 * finest
        ratio = between[band] / between[0] if told else MOST_RATIO
        if band > COARSE:
            ratio = min(ratio, second * FALL ** (COARSE - band))
        expected.append(finest * max(ratio, LEAST_RATIO[band]))
    return expected


def is_resolved(band: int, free: float, views: int) -> bool:
    """Whether a band lies below ``free`` cycles per pixel, up to which there are no streaks."""
    return (SPARSE_MARGIN if views else MARGIN) * PEAK * 2.0**-band <= free


def _limit(band: int, pixels: int) -> float:
    """Two estimates of a band's energy are compared, each of half as many degrees of freedom as values."""
    return MOST_EXCESS + DOUBT * math.sqrt(2.0) * math.sqrt(2.0 / values_of(band, pixels))


def values_of(band: int, pixels: int) -> float:
    """About how many independent values of noise an image has in a band, at least 1."""
    return max(MODES * pixels * 4.0**-band, 1.0)


def _edges_taken(removed: Array, kept: Array) -> tuple[float, float]:
    """Share of a band's strongest pixels of ``kept`` that is in ``removed``, and their root mean square."""
    size = np.abs(kept).ravel()
    count = max(int(STRONGEST * size.size), 1)
    threshold = np.partition(size, size.size - count)[size.size - count]
    strong = (np.abs(kept) >= max(int(threshold), 1)).ravel()
    edges, taken = kept.ravel()[strong].astype(np.int64), removed.ravel()[strong].astype(np.int64)
    squares = int((edges * edges).sum())
    if not squares:
        return 0.0, 0.0
    share = int((edges * taken).sum()) / squares
    return share, math.sqrt(squares / len(edges)) / FRACTION
