"""Simulated scans: pairs of a noisy and a clean reconstruction of the same sample.

Clean target
    The filtered back projection of noise-free, densely sampled projections (at least π/2 per pixel of width,
    the Nyquist number) through the *same* blur, fringes and filter as the noisy one. That is the published
    data's own definition ("all projections, normal dose"), and it leaves a network one thing to do: remove
    noise, streaks and rings. The bare phantom would ask it to sharpen too, and to invent what the detector
    never saw. (Only a noisy image made by iteration is less sharp than its target.)

Seeds
    A sample depends on ``(split, family, seed, size)`` alone, its measurement also on dose and angles. The
    split enters the seed, so training and test samples differ for equal numbers, and a held-out family cannot
    be simulated for training at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.detector import Beam, noise_free_reading, noisy_reading, transmitted_intensity
from karat24.tomography.imaging.families import FAMILIES, TRAINING_FAMILIES
from karat24.tomography.imaging.fbp import back_project, filter_projections
from karat24.tomography.imaging.geometry import detector_bins, even_angles
from karat24.tomography.imaging.normalize import Normalization
from karat24.tomography.imaging.sirt import sirt

SPLITS: Mapping[str, int] = MappingProxyType({"train": 0, "validation": 1, "test": 2})
"""Seed spaces, disjoint by construction."""

SMALLEST_SIZE: Final = 32
WINDOW: Final = 3
"""Adjacent slices a network sees at once; the middle one is the one it restores."""

_ITERATIONS: Final = 20
_FILTERS: Final = ("ramp", "ramp", "shepp-logan", "shepp-logan", "hamming", "hann")


@dataclass(frozen=True)
class Stack:
    """Adjacent slices of one sample: ``noisy`` and ``clean`` grey, float32 ``[slice, row, column]``.

    ``normalization`` leads from 1/pixel to grey; ``beam`` and ``meta`` say how the scan was taken.
    """

    noisy: Array
    clean: Array
    normalization: Normalization
    beam: Beam
    meta: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """What a network is trained on: ``noisy`` float32 ``[N, H, W, 3]``, each three adjacent slices, and
    ``clean`` float32 ``[N, H, W]``, the middle one's target; both grey (see :class:`Normalization`)."""

    noisy: Array
    clean: Array
    normalization: Normalization
    beam: Beam
    meta: Mapping[str, int | float | str] = field(default_factory=dict)


def simulate_slices(
    family: str,
    size: int,
    seed: int,
    *,
    split: str = "train",
    count: int = 1,
    dose: float | None = None,
    angles: int | None = None,
    method: str | None = None,
    vary_grey: bool = False,
) -> Scan:
    """``count`` neighbouring windows of three slices from one sample; see :func:`simulate_stack`."""
    stack = simulate_stack(
        family, size, seed, split=split, slices=count + WINDOW - 1, dose=dose, angles=angles, method=method,
        vary_grey=vary_grey, clean_ends=False,
    )  # fmt: skip
    noisy = np.stack([stack.noisy[first : first + WINDOW] for first in range(count)])
    noisy = np.ascontiguousarray(noisy.transpose(0, 2, 3, 1))
    return Scan(noisy, stack.clean[1:-1], stack.normalization, stack.beam, stack.meta)


# Options with defaults follow `*`; a user names each of them, so that a record would not be shorter.
def simulate_stack(
    family: str,
    size: int,
    seed: int,
    *,
    split: str = "train",
    slices: int = 3,
    dose: float | None = None,
    angles: int | None = None,
    method: str | None = None,
    vary_grey: bool = False,
    clean_ends: bool = True,
) -> Stack:
    """Simulate ``slices`` adjacent slices of ``size`` × ``size`` pixels, noisy and clean.

    Parameters
    ----------
    family : a name in :data:`FAMILIES`; a held-out one is refused in the split "train".
    seed : at least 0; same arguments, same bits, whatever the number of threads.
    dose : photons per bin and projection in the open beam; None chooses it for a noise between 0.05 and 1.6
        times the sample's contrast.
    angles : projections over half a turn; drawn from the seed if None. Few projections give streaks.
    method : "fbp" or "sirt" for the noisy image; None draws "sirt" for about one in twenty.
    vary_grey : also draw a random contrast (0.6 … 1.15) and brightness (±0.1), as augmentation.
    clean_ends : False leaves the clean first and last slice zero, which saves most of their cost.

    Raises :class:`UsageError` for a name, size or number that cannot be used.
    """
    _check(family, size, seed, split, slices, dose, angles, method)
    entropy = [SPLITS[split], FAMILIES[family].code, seed, size]
    build_seed, settings_seed, noise_seed = np.random.SeedSequence(entropy).spawn(3)
    build, settings = np.random.default_rng(build_seed), np.random.default_rng(settings_seed)
    # One generator for each slice, so that no slice's photons shift another's defects.
    noises = noise_seed.spawn(slices)
    spacing = float(settings.choice([0.5, 1.0, 1.0, 1.0, 2.0]))
    heights = spacing * (np.arange(slices) - (slices - 1) / 2.0)
    sample_slices = FAMILIES[family].build(build, size, heights)
    beam, grain, views, attenuation, filter_name, drawn_method, start = _draw_settings(settings, size)
    contrast, brightness = settings.uniform(0.6, 1.15), settings.uniform(-0.1, 0.1)
    # A sample wider than the image: every projection has more structure to tell apart.
    wide = len(sample_slices[0].raster) > size
    views = angles if angles is not None else 2 * views if wide and views < 0.25 * size else views
    method = method if method is not None else "fbp" if wide else drawn_method

    # The dense angles contain the sparse ones, so that the middle slices are projected once.
    every = max(1, math.ceil(0.5 * math.pi * size / views))
    dense = even_angles(views * every, start)
    middle = sample_slices[slices // 2]
    canvas = len(middle.raster)
    bins = max(detector_bins(size), canvas)  # the detector sees the whole sample, even beyond the image
    middle_path = middle.project(dense, bins)
    scale = attenuation / max(float(middle_path.max()), 1e-6)
    if dose is None:
        dose = _dose_for(grain, scale * float(middle.rasterize(size).std()), scale * middle_path, views)
    beam = replace(beam, dose=float(dose))
    noisy, clean = [], []
    for index, sample_slice in enumerate(sample_slices):
        wanted = clean_ends or 0 < index < slices - 1
        degrees = dense if wanted else dense[::every]
        path = middle_path if sample_slice is middle else sample_slice.project(degrees, bins)
        intensity = transmitted_intensity(path * np.float32(scale), beam)
        sparse = intensity[::every] if wanted else intensity
        measured = noisy_reading(np.random.default_rng(noises[index]), sparse, beam)
        noisy.append(_reconstruct(measured, dense[::every], size, canvas, filter_name, method))
        if wanted:
            clean.append(
                _reconstruct(noise_free_reading(intensity, beam), dense, size, canvas, filter_name, "fbp")
            )
        else:
            clean.append(np.zeros((size, size), np.float32))

    normalization = Normalization.of(np.stack(noisy))
    if vary_grey:
        normalization = normalization.then(contrast, 0.5 - 0.5 * contrast + brightness)
    meta: dict[str, int | float | str] = {
        "family": family, "split": split, "seed": seed, "size": size, "angles": views,
        "dense_angles": len(dense), "method": method, "filter": filter_name, "spacing": spacing,
        "attenuation": attenuation,
    }  # fmt: skip
    clean_grey = normalization.grey(np.stack(clean))
    if not clean_ends:
        clean_grey[[0, -1]] = 0.0
    return Stack(normalization.grey(np.stack(noisy)), clean_grey, normalization, beam, meta)


def _dose_for(grain: float, contrast: float, path: Array, views: int) -> float:
    """The dose at which noise is ``grain`` times the sample's contrast (both standard deviations, 1/pixel).

    A reading of ``n`` photons has variance ``1 / n`` in its logarithm, and ramp-filtered back projection of
    ``views`` such readings has variance ``π² / (12·views·n)``: a sample that fills the field of view, or is
    faint, takes more photons, as it does in the laboratory.
    """
    variance = (grain * max(contrast, 1e-9)) ** 2
    return float(np.clip(math.pi**2 / 12.0 * float(np.exp(path).mean()) / (views * variance), 4.0, 1e6))


def _draw_settings(rng: np.random.Generator, size: int) -> tuple[Beam, float, int, float, str, str, float]:
    """Beam without dose, noise to contrast, views, largest line integral, filter, method, first angle."""
    regime = int(rng.integers(0, 3))
    # Three ways to save dose, as in the TomoGAN papers: few projections, a low dose in each, or both.
    fewest, most, least, worst = (
        (0.06, 0.20, 0.05, 0.4),
        (0.50, 1.30, 0.30, 1.6),
        (0.15, 0.50, 0.20, 1.0),
    )[regime]
    views = max(12, round(size * math.exp(rng.uniform(math.log(fewest), math.log(most)))))
    grain = math.exp(rng.uniform(math.log(least), math.log(worst)))
    beam = Beam(
        dose=1.0,
        blur=rng.uniform(0.25, 0.9),
        fringe=float(rng.choice([0.0, 1.0, 1.0])) * rng.uniform(0.3, 4.0),
        hardening=float(rng.choice([0.0, 1.0])) * rng.uniform(0.05, 0.4),
        read_noise=rng.uniform(0.0, 3.0),
        ring=math.exp(rng.uniform(math.log(2e-4), math.log(1.5e-2))),
        dead=rng.uniform(0.0, 0.008),
        spikes=rng.uniform(0.0, 1e-5),
    )
    attenuation = rng.uniform(0.7, 2.5)
    filter_name = _FILTERS[int(rng.integers(0, len(_FILTERS)))]
    # Iteration pays with few projections, and costs in proportion to them.
    method = "sirt" if rng.random() < 0.2 and views <= 0.25 * size else "fbp"
    return beam, grain, views, attenuation, filter_name, method, rng.uniform(0.0, 180.0)


def _reconstruct(path: Array, degrees: Array, size: int, canvas: int, filter_name: str, method: str) -> Array:
    if method == "sirt":
        # Iteration must explain every reading: its image holds the whole sample, and fringes below zero.
        whole = sirt(path, degrees, iterations=_ITERATIONS, output_size=canvas, nonnegative=False)
        first = canvas // 2 - size // 2
        return whole[first : first + size, first : first + size]
    filtered = filter_projections(path, filter_name)
    return back_project(filtered, degrees, size, scale=math.pi / (2 * len(degrees)))


def _check(
    family: str, size: int, seed: int, split: str, slices: int, dose: float | None, angles: int | None,
    method: str | None,
) -> None:  # fmt: skip
    if family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}; choose one of {', '.join(FAMILIES)}")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if split == "train" and FAMILIES[family].held_out:
        raise UsageError(
            f"family {family!r} is held out: it measures generalization and is never trained on; "
            f"train on {', '.join(TRAINING_FAMILIES)}, or use the split 'test'"
        )
    if size < SMALLEST_SIZE:
        raise UsageError(f"size is {size}; give at least {SMALLEST_SIZE} pixels")
    if seed < 0:
        raise UsageError(f"seed is {seed}; give 0 or more")
    if slices < WINDOW:
        raise UsageError(f"{slices} slices asked for; a window is {WINDOW} adjacent slices")
    if dose is not None and not (math.isfinite(dose) and dose > 0.0):
        raise UsageError(f"dose is {dose}; give a positive number of photons per bin")
    if angles is not None and angles < 2:
        raise UsageError(f"angles is {angles}; give at least 2 projections")
    if method not in (None, "fbp", "sirt"):
        raise UsageError(f"unknown method {method!r}; choose fbp or sirt")
