"""Scans of such samples, under the conditions that the field has.

Clean target: the reconstruction of noise-free, dense, complete projections by the same method and filter,
through the same detector, as in :mod:`karat24.tomography.imaging.simulate`. What noise-free, dense
projections give is its own target, so that a network learns to leave it alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.imaging.detector import Beam, noise_free_reading, noisy_reading, transmitted_intensity
from karat24.tomography.imaging.families import FAMILIES
from karat24.tomography.imaging.fbp import back_project, filter_projections
from karat24.tomography.imaging.field.samples import KINDS
from karat24.tomography.imaging.fields import rough_profile
from karat24.tomography.imaging.geometry import detector_bins, even_angles
from karat24.tomography.imaging.normalize import Normalization
from karat24.tomography.imaging.projector import project
from karat24.tomography.imaging.simulate import SPLITS, WINDOW, Scan
from karat24.tomography.imaging.sirt import sirt

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")
ITERATIONS = 20
MOST_VIEWS_OF_ITERATION = 120
"""Iteration costs in proportion to the views."""


@dataclass(frozen=True)
class Conditions:
    """How a scan is taken.

    ``dose`` is in photons per bin and view; 0 takes the limit of no noise at all. ``attenuation`` is the
    largest line integral. ``correlation`` (0 … 1) is that of the noise of neighbouring slices, ``spacing``
    their distance in pixels: 0 repeats the sample. ``bad`` is the share of views during which something
    moved, ``missing`` the degrees at the end of the half turn that were not taken. ``drift`` is the deviation
    of the slow changes of flux along the detector, view by view: noise of low frequency. ``local`` cuts off
    the detector at the image, and continues what it saw by its last value.
    """

    views: int
    dose: float
    beam: Beam
    attenuation: float = 1.5
    filter_name: str = "shepp-logan"
    method: str = "fbp"
    spacing: float = 1.0
    correlation: float = 0.0
    bad: float = 0.0
    missing: float = 0.0
    drift: float = 0.0
    local: bool = False
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.views < 2:
            raise UsageError(f"views is {self.views}; give at least 2 projections")
        if not (math.isfinite(self.dose) and self.dose >= 0):
            raise UsageError(f"dose is {self.dose}; give photons per bin, or 0 for no noise")
        if not (0 <= self.correlation <= 1 and 0 <= self.bad < 1 and 0 <= self.missing < 180):
            raise UsageError(f"{self}: correlation, bad or missing out of range")

    @property
    def nearly_perfect(self) -> bool:
        """Whether nothing but the number of views parts the scan from its target."""
        return self.dose == 0 and not (self.bad or self.missing or self.drift)


def draw_conditions(rng: np.random.Generator, size: int) -> Conditions:
    """Conditions from all that the field has: a tenth without noise, 0.03 to 2 views per pixel."""
    views = max(12, round(size * math.exp(rng.uniform(math.log(0.03), math.log(2.0)))))
    noise_free = rng.random() < 0.12
    dense = noise_free and rng.random() < 0.7
    views = max(views, math.ceil(0.5 * math.pi * size)) if dense else views
    method = "sirt" if views <= MOST_VIEWS_OF_ITERATION and rng.random() < 0.05 else "fbp"
    rare = rng.random(4) < (0.15, 0.1, 0.3, 0.2)
    if noise_free:
        rare[:3] = False
    beam = Beam(
        dose=1.0,
        blur=rng.uniform(0.0, 1.1),
        fringe=float(rng.choice([0.0, 1.0])) * rng.uniform(0.3, 4.0),
        hardening=float(rng.choice([0.0, 0.0, 1.0])) * rng.uniform(0.05, 0.4),
        read_noise=rng.uniform(0.0, 3.0),
        ring=math.exp(rng.uniform(math.log(1e-4), math.log(1e-2))),
        dead=rng.uniform(0.0, 0.004),
        spikes=rng.uniform(0.0, 1e-5),
    )
    return Conditions(
        views=views,
        # Noise follows from the total of all views: this spans noise/contrast of 0.01 to about 2.
        dose=0.0 if noise_free else math.exp(rng.uniform(math.log(1e4), math.log(6e7))) / views / 2,
        beam=beam,
        attenuation=rng.uniform(0.5, 2.5),
        filter_name=str(rng.choice(FILTERS)),
        method=method,
        spacing=float(rng.choice([0.0, 0.3, 0.5, 1.0, 1.0, 2.0])),
        correlation=float(rng.choice([0.0, 0.0, rng.uniform(0.2, 0.9), 1.0])),
        bad=rng.uniform(0.01, 0.1) if rare[0] else 0.0,
        missing=rng.uniform(5.0, 40.0) if rare[1] else 0.0,
        drift=math.exp(rng.uniform(math.log(3e-3), math.log(8e-2))) if rare[2] else 0.0,
        local=bool(rare[3]),
        start=rng.uniform(0.0, 180.0),
    )


def simulate_field(
    kind: str,
    size: int,
    seed: int,
    *,
    split: str = "train",
    conditions: Conditions | None = None,
    vary_grey: bool = False,
) -> Scan:
    """One window of three slices of a sample of a kind or family, ``[1, size, size, 3]``, and its target.

    Same arguments, same bits, whatever the number of threads. ``conditions`` are drawn from the seed unless
    given. Raises :class:`UsageError` for an unknown name or split, and for a held-out kind in "train".
    """
    code, held_out = _known(kind)
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if split == "train" and held_out:
        raise UsageError(f"kind {kind!r} is held out: it measures generalization and is never trained on")
    if seed < 0 or size < 32:
        raise UsageError(f"seed {seed} and size {size}: give at least 0 and 32")
    seeds = np.random.SeedSequence([SPLITS[split], code, seed, size]).spawn(3)
    build, settings, noise = (np.random.default_rng(one) for one in seeds)
    chosen = conditions or draw_conditions(settings, size)
    heights = chosen.spacing * np.array([-1.0, 0.0, 1.0])
    if kind in KINDS:
        planes = KINDS[kind].build(build, size, heights)
    else:
        planes = _rasters(kind, build, size, heights)
    noisy, clean = take_scan(planes, size, chosen, noise)
    normalization = Normalization.of(noisy)
    if vary_grey:
        gain, shift = settings.uniform(0.6, 1.15), settings.uniform(-0.1, 0.1)
        normalization = normalization.then(gain, 0.5 - 0.5 * gain + shift)
    window = np.ascontiguousarray(normalization.grey(noisy).transpose(1, 2, 0))
    meta: dict[str, int | float | str] = {"kind": kind, "split": split, "seed": seed, "size": size}
    meta |= {name: value for name, value in asdict(chosen).items() if name != "beam"}
    return Scan(window[None], normalization.grey(clean)[None], normalization, chosen.beam, meta)


def take_scan(
    planes: list[Array], size: int, conditions: Conditions, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Three densities ``[canvas, canvas]`` scanned: noisy ``[3, size, size]``, and the clean middle one."""
    canvas = len(planes[0])
    bins = size if conditions.local else max(detector_bins(size), canvas)
    every = max(1, math.ceil(0.5 * math.pi * size / conditions.views))
    dense = even_angles(conditions.views * every, conditions.start)
    degrees = dense[::every]
    degrees = degrees[: max(2, round(len(degrees) * (1 - conditions.missing / 180)))]
    whole = project(planes[1], dense, bins)
    scale = np.float32(conditions.attenuation / max(float(whole.max()), 1e-6))
    dense_reading = noise_free_reading(transmitted_intensity(whole * scale, conditions.beam), conditions.beam)
    clean = _reconstruct(dense_reading, dense, size, canvas, conditions)
    beam = replace(conditions.beam, dose=conditions.dose)
    readings, noises = [], []
    for number in range(WINDOW):
        same = number != 1 and conditions.spacing == 0.0
        path = (
            whole[::every][: len(degrees)] if number == 1 or same else project(planes[number], degrees, bins)
        )
        intensity = transmitted_intensity(path * scale, beam)
        exact = noise_free_reading(intensity, beam)
        measured = noisy_reading(rng, intensity, beam) if conditions.dose > 0 else exact
        readings.append(exact)
        noises.append(measured - exact)
    common, own = conditions.correlation, math.sqrt(1.0 - conditions.correlation**2)
    shared = noises[1]
    noisy = []
    moved = _moved(rng, len(degrees), conditions)
    drift = _drift(rng, len(degrees), bins, conditions)
    for number in range(WINDOW):
        part = shared if number == 1 else np.float32(common) * shared + np.float32(own) * noises[number]
        reading = readings[number] + part + drift
        for view in np.flatnonzero(moved):
            reading[view] = np.roll(reading[view], moved[view])
        noisy.append(_reconstruct(reading, degrees, size, canvas, conditions))
    if conditions.nearly_perfect and len(degrees) == len(dense):
        noisy[1] = clean
    return np.stack(noisy), clean


def _moved(rng: np.random.Generator, views: int, conditions: Conditions) -> Array:
    """Bins by which each view is shifted: 0 but for the bad ones."""
    bad = rng.random(views) < conditions.bad
    return np.where(bad, rng.choice([-3, -2, -1, 1, 2, 3], views), 0)


def _drift(rng: np.random.Generator, views: int, bins: int, conditions: Conditions) -> Array:
    """What slow changes of flux add to the line integrals ``[view, bin]``, alike in neighbouring slices."""
    wrong = np.zeros((views, bins), np.float32)
    if conditions.drift:
        for view in range(views):
            wrong[view] = conditions.drift * rough_profile(rng, bins, bins * 0.05)
    return wrong


def _reconstruct(path: Array, degrees: Array, size: int, canvas: int, conditions: Conditions) -> Array:
    # A truncated detector's rows go on at their last value, which keeps the middle free of cupping's edge.
    margin = size // 2 if conditions.local else 0
    path = np.pad(path, ((0, 0), (margin, margin)), mode="edge")
    if conditions.method == "sirt" and not conditions.local:
        whole = sirt(path, degrees, iterations=ITERATIONS, output_size=canvas, nonnegative=False)
        first = canvas // 2 - size // 2
        return whole[first : first + size, first : first + size]
    filtered = filter_projections(path, conditions.filter_name)
    return back_project(filtered, degrees, size, scale=math.pi / (2 * len(degrees)))


def _known(kind: str) -> tuple[int, bool]:
    """Code of a kind or family, and whether it is held out. Raises UsageError."""
    if kind in KINDS:
        return KINDS[kind].code, KINDS[kind].held_out
    if kind in FAMILIES:
        return 200 + FAMILIES[kind].code, FAMILIES[kind].held_out
    raise UsageError(f"unknown kind {kind!r}; choose one of {', '.join((*KINDS, *FAMILIES))}")


def _rasters(family: str, rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """The densities of one of the older families."""
    return [one.rasterize(len(one.raster)) for one in FAMILIES[family].build(rng, size, heights)]
