"""Scans simulated under the conditions of the field, of samples that no network was trained on.

There are nine scans of each held-out kind of sample (views times photons), every kind and family without
noise, a slice that is given three times in place of its neighbours, and faint aggregate that is planted into
a sample; the share of it that is kept is measured. Classical filters get the strength that is best for the
clean slice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.markdown import table
from benchmarks.quality.metrics import ssim
from benchmarks.quality.peers import non_local_means
from benchmarks.quality.total_variation import converged_total_variation
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.refimpl.networks import load_weights, tomogan, trained_weights
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.honesty.mixing import mix
from karat24.tomography.honesty.noise import measure_noise
from karat24.tomography.honesty.residual import judge_residual
from karat24.tomography.imaging.detector import Beam
from karat24.tomography.imaging.families import FAMILIES
from karat24.tomography.imaging.field.samples import HELD_OUT_KINDS, KINDS
from karat24.tomography.imaging.field.scans import Conditions, simulate_field
from karat24.tomography.imaging.fields import Field, level_set
from karat24.tomography.restoration import on_onnx_runtime
from karat24.tomography.scan.recipe import recipe_for
from karat24.tomography.scan.restorer import Restorer

SIZE = 384
VIEWS, DOSES = (60, 120, 360), (300, 1500, 8000)
KINDS_SEEN = (*HELD_OUT_KINDS, "bone")
BEAM = Beam(dose=1.0, blur=0.5, ring=1e-3, read_noise=1.0)
NLM = (1.3, 2.0, 3.0, 5.0)
TV = (0.05, 0.1, 0.2, 0.3, 0.45)
PLANTED, GRAIN = 0.02, 24.0
"""Contrast of the aggregate, a share of the grey span of 0.8, and its period, pixels."""

SAME = 1e-6
"""The similarity of equal inputs on two machines differs by less."""

Restore = Callable[[Array], Array]


@dataclass(frozen=True)
class Found:
    """One figure: ``what`` was measured on ``scan`` for ``method``; ``removed`` judges the residual."""

    what: str
    scan: str
    method: str
    value: float
    removed: str = ""


def measure(
    seed: int, weights: Mapping[str, Path], say: Callable[[str], None], before: Iterable[Found] = ()
) -> list[Found]:
    """All figures; ``weights`` are further float networks, bilinear, by name. ``before`` are figures of the
    same seed: those of the classical filters, which depend on no network, are taken from there."""
    methods = networks(weights)
    known = {(one.scan, one.method): one.value for one in before if one.what == "similarity"}
    found: list[Found] = []

    def add(what: str, scan: str, method: str, value: float, removed: str = "") -> None:
        found.append(Found(what, scan, method, value, removed))
        say(f"{what}, {scan}, {method}: {value:.4f} {removed}")

    for kind, views, dose in product(KINDS_SEEN, VIEWS, DOSES):
        name = f"{kind}, {views} views, {dose} photons"
        window, clean = scan_of(kind, seed, views, dose)
        given = ssim(clean, window[..., 1])
        if known and not abs(known.get((name, "input"), math.inf) - given) <= SAME:
            raise UsageError(f"{name}: the earlier figures are of other samples; give their --seed")
        add("similarity", name, "input", given)
        for title, method, strengths in (
            ("non-local means, tuned", non_local_means, NLM),
            ("total variation, converged, tuned", converged_total_variation, TV),
        ):
            best = known.get((name, title))
            if best is None:
                best = max(ssim(clean, method(window[..., 1], strength)) for strength in strengths)
            add("similarity", name, title, best)
        counted = measure_noise([window])
        repeated = np.repeat(window[..., 1:2], 3, axis=2)
        for title, restore in methods.items():
            image = restore(window)
            judged = judge_residual(window, image, counted.views).describe()
            add("similarity", name, title, ssim(clean, image), judged)
            if views == 360:
                add("slice three times", name, title, ssim(clean, restore(repeated)) - ssim(clean, image))
    for kind, dose in product(("concrete", *HELD_OUT_KINDS), DOSES):
        window, clean = scan_of(kind, seed, 360, dose)
        planted = aggregate()
        for title, restore in methods.items():
            kept = restore(window + planted[..., np.newaxis]) - restore(window)
            part = planted - planted.mean()
            share = float((kept * part).sum() / (part * part).sum())
            add("planted 2 % kept", f"{kind}, 360 views, {dose} photons", title, share)
    for kind in (*KINDS, *FAMILIES):
        window, clean = scan_of(kind, seed + 1, 640, 0.0)
        noise = measure_noise([window])
        for title, restore in methods.items():
            image = restore(window)
            add("without noise", kind, title, ssim(clean, image))
            add(
                "without noise", kind, f"{title}, as restore gives it", ssim(clean, mix(window, image, noise))
            )
    return found


def networks(weights: Mapping[str, Path]) -> dict[str, Restore]:
    """The shipped float network, the int8 one that ``karat24 restore`` runs, and the given ones."""
    found: dict[str, Restore] = {}
    for name, values in {
        "float": trained_weights("tomogan", "bilinear"),
        **{f"float, {name}": load_weights(path) for name, path in weights.items()},
    }.items():
        network = on_onnx_runtime(tomogan(SIZE, SIZE, "bilinear", values))
        found[name] = lambda window, network=network: network(window[np.newaxis])[0, ..., 0]
    found["int8"] = Restorer(recipe_for("fast", CANONICAL, (SIZE, SIZE), None), (SIZE, SIZE))
    return found


@lru_cache(maxsize=64)
def scan_of(kind: str, seed: int, views: int, dose: float) -> tuple[Array, Array]:
    """A window and its clean middle slice; a dose of 0 stands for no noise."""
    conditions = Conditions(views=views, dose=float(dose), beam=BEAM)
    scan = simulate_field(kind, SIZE, seed, split="test", conditions=conditions)
    return scan.noisy[0], scan.clean[0]


def aggregate() -> Array:
    """Patches of the planted contrast, grey ``[y, x]``."""
    field = Field(np.random.default_rng(0), SIZE, period=GRAIN, spread=0.3)
    patches: Array = np.float32(PLANTED * 0.8) * level_set(field.at(0.0), 0.3)
    return patches


def keep(found: Iterable[Found], path: Path) -> None:
    """Writes the figures."""
    path.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n", encoding="utf-8")


def kept(path: Path) -> list[Found]:
    """The figures that :func:`keep` wrote. Raises UsageError for another file."""
    try:
        return [Found(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: no figures of a field run ({error})") from error


def tables(found: list[Found]) -> dict[str, str]:
    """Markdown tables by the name of their place: one row per scan, one column per method."""
    texts = {}
    for what in dict.fromkeys(one.what for one in found):
        own = [one for one in found if one.what == what]
        methods = list(dict.fromkeys(one.method for one in own))
        lines = []
        for scan in dict.fromkeys(one.scan for one in own):
            values = {one.method: one.value for one in own if one.scan == scan}
            best = max(values.values())
            lines.append(
                (scan, *(f"**{v:.3f}**" if v == best and what == "similarity" else f"{v:.3f}"
                         for v in (values[m] for m in methods)))
            )  # fmt: skip
        texts[f"quality: field, {what}"] = table((what, *methods), lines)
    return texts
