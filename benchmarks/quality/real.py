"""The tooth: a real scan, restored from a part of its views and compared with a row that no method saw.

The scan has two rows of the detector. Row 0 is reconstructed from every second, third, fourth or sixth view,
and restored. Row 1, from all views, has independent noise and shows nearly the slice of row 0. Methods that
read neighbours read row 0 three times, since row 1 must stay unseen. The classical filters get the strength
that is best for the reference, which is an upper bound. One grey scale, that of row 0 from all views, serves
all comparisons.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.markdown import table
from benchmarks.quality.corrected import References
from benchmarks.quality.inclusions import Truth
from benchmarks.quality.peers import non_local_means, total_variation
from benchmarks.quality.total_variation import converged_total_variation
from karat24.refimpl.graph import Array
from karat24.refimpl.networks import load_weights, tomogan, trained_weights
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.honesty.noise import NoiseModel, measure_noise
from karat24.tomography.honesty.residual import judge_residual
from karat24.tomography.imaging.fbp import fbp
from karat24.tomography.imaging.normalize import Normalization
from karat24.tomography.raw.axis import centred
from karat24.tomography.raw.correction import line_integrals, without_rings
from karat24.tomography.raw.scan import opened_scan
from karat24.tomography.restoration import on_onnx_runtime
from karat24.tomography.scan.recipe import recipe_for
from karat24.tomography.scan.restorer import Restorer

AXIS = 295.5
STEPS = (2, 3, 4, 6)
"""Every second, third, fourth and sixth view: 91, 61, 46 and 31 of 181."""
RADIUS = 290
RINGS = 9

NLM = (0.9, 1.3, 2.0, 3.0, 5.0, 8.0, 12.0)
TV = (0.03, 0.05, 0.08, 0.13, 0.2, 0.3, 0.45, 0.7)


@dataclass(frozen=True)
class Row:
    """One method on one input. ``lost`` and ``invented`` count inclusions, of ``present`` in the
    reference."""

    views: int
    method: str
    similarity: float
    error: float
    detail: float
    present: int
    lost: int
    invented: int
    removed: str = ""
    strength: float | None = None


def measure(scan: Path, weights: dict[str, Path], say: Callable[[str], None]) -> list[Row]:
    """Every method on every input. ``weights`` are further float networks, bilinear, by name."""
    rows = []
    full = reconstructed(scan, 1)
    scale = Normalization.of(full[0])
    first, second = (scale.grey(image) for image in full)
    side = len(first)
    y, x = np.mgrid[:side, :side] - side // 2
    references = References(first, second, x**2 + y**2 < RADIUS**2)
    # The mean of both rows is the best reference for inclusions.
    truth = Truth(np.where(references.inside, 0.5 * (first + second), 0.0).astype(np.float32))
    for step in STEPS:
        given = reconstructed(scan, step)[0]
        own = Normalization.of(given)
        image = own.grey(given)
        window = np.repeat(image[..., np.newaxis], 3, axis=2)
        views = -(-len(full_views(scan)) // step)
        noise = measure_noise([window])

        def score(
            name: str, restored: Array, judged: bool = False, strength: float | None = None,
            own: Normalization = own, views: int = views, window: Array = window, noise: NoiseModel = noise,
        ) -> Row:  # fmt: skip
            grey = scale.grey(own.value(restored))
            counts = truth.compare(np.where(references.inside, grey, 0.0).astype(np.float32)).values()
            said = judge_residual(window, restored, noise.views).describe() if judged else ""
            found = Row(
                views, name, references.similarity(grey), references.error(grey),
                references.detail_kept(grey), sum(c.present for c in counts), sum(c.lost for c in counts),
                sum(c.invented for c in counts), said, strength,
            )  # fmt: skip
            say(f"{views} views, {name}: similarity {found.similarity:.3f}, detail {found.detail:.2f} {said}")
            return found

        rows.append(score("input", image))
        for name, method, strengths in (
            ("non-local means, tuned", non_local_means, NLM),
            ("total variation of scikit-image, tuned", total_variation, TV),
            ("total variation, converged, tuned", converged_total_variation, TV),
        ):
            images = {strength: method(image, strength).astype(np.float32) for strength in strengths}
            best = max(strengths, key=lambda s: references.similarity(scale.grey(own.value(images[s]))))
            rows.append(score(name, images[best], judged=True, strength=best))
        shipped = trained_weights("tomogan", "bilinear")
        for name, found in {"shipped": shipped, **{n: load_weights(p) for n, p in weights.items()}}.items():
            network = on_onnx_runtime(tomogan(side, side, "bilinear", found))
            rows.append(score(f"float, {name}", network(window[np.newaxis])[0, ..., 0], judged=True))
        for quality, name in (("fast", "int8, whole image"), ("best", "int8, blended + Fine-Tune")):
            recipe = recipe_for(quality, CANONICAL, (side, side), None)
            rows.append(score(name, Restorer(recipe, (side, side))(window), judged=True))
    return rows


def full_views(scan: Path) -> Array:
    """The angles of the scan, degrees."""
    with opened_scan(scan) as opened:
        return opened.degrees


def reconstructed(scan: Path, step: int) -> Array:
    """Both rows from every ``step``-th view: ``[row, y, x]``."""
    with opened_scan(scan) as opened:
        integrals = line_integrals(opened.counts(0, 2), opened.flat[:2], opened.dark[:2])[::step]
        degrees = opened.degrees[::step]
    return np.stack(
        [
            fbp(centred(without_rings(integrals[:, row], RINGS), AXIS), degrees, filter_name="shepp-logan")
            for row in range(2)
        ]
    )


def keep(rows: Iterable[Row], path: Path) -> None:
    """Writes the figures, and the settings that made them."""
    value = {"python": platform.python_version(), "numpy": np.__version__, "rows": [asdict(r) for r in rows]}
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def table_of(rows: list[Row]) -> str:
    """Markdown; the best similarity of each input in bold."""
    lines = []
    for row in rows:
        best = max(other.similarity for other in rows if other.views == row.views)
        similarity = f"**{row.similarity:.3f}**" if row.similarity == best else f"{row.similarity:.3f}"
        lines.append(
            (f"{row.views}", row.method, similarity, f"{row.error:.4f}", f"{100 * row.detail:.0f} %",
             f"{row.present - row.lost} / {row.lost} / {row.invented}", row.removed)
        )  # fmt: skip
    heads = ("views", "method", "similarity", "error", "detail kept", "kept / lost / invented", "removed")
    return table(heads, lines)
