"""Pictures: similarity as boxes, the seam, sheets of slices, and marked inclusions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

from benchmarks.quality.cases import Case, load_slice
from benchmarks.quality.evaluate import Settings, image_path
from benchmarks.quality.inclusions import Truth
from benchmarks.quality.methods import METHODS
from benchmarks.quality.plans import TILE
from benchmarks.quality.summary import Entries, row
from karat24.refimpl.graph import Array

BOXES = (
    "noisy", "nlm", "tv", "float whole", "float tiles", "int8 whole", "int8 tiles", "int8 tiles repaired",
    "int8 blend repaired", "aware-int8 whole", "aware-int8 blend", "aware-int8 blend repaired",
    "uint8-2019 whole", "uint8-2019 tiles", "uint8-2019 tiles repaired", "uint8-2019 blend repaired",
    "aware-uint8-2019 whole", "aware-uint8-2019 blend", "aware-uint8-2019 blend repaired",
)  # fmt: skip
REPAIRED = ("aware-int8 blend repaired", "int8 tiles repaired")
"""The repaired slices to show; the first one that was measured is taken."""
SHORT = {"noisy": "noisy", "float whole": "float, whole", "int8 tiles": "int8, tiles",
         "int8 tiles repaired": "int8, tiles + Fine-Tune",
         "aware-int8 blend repaired": "int8, trained, blended\n+ Fine-Tune",
         "int8 halo": "int8, tiles with halo", "int8 whole": "int8, whole"}  # fmt: skip
GREYS = 40
"""Grey levels kept in a picture file: noise compresses badly."""

LOST, INVENTED = (255, 127, 14), (214, 39, 40)
"""Colours of the marks, red, green, blue."""


def draw_all(settings: Settings, entries: Entries, cases: Sequence[Case], folder: Path) -> list[Path]:
    """Draws every picture whose data exist, as PNG; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    first = [case for case in cases if case.number == 0]
    written = [boxes(entries, folder / "quality-ssim.png")]
    textured = next((case for case in first if case.family == "spheres"), first[0])
    written.append(seam(settings, textured, folder / "quality-seam.png"))
    for number, start in enumerate(range(0, len(first), 4), 1):
        written.append(
            sheet(settings, entries, first[start : start + 4], folder / f"quality-sheet-{number}.png")
        )
    written += [
        details(settings, entries, case, folder / f"quality-detail-{case.family}.png") for case in first
    ]
    return written


def boxes(entries: Entries, path: Path) -> Path:
    """SSIM over the test set, one box per method: quartiles, whiskers to 1.5 times their distance, the
    mean as a diamond."""
    names = [name for name in BOXES if name in entries]
    figure, axis = plt.subplots(figsize=(9.0, 0.36 * len(names) + 1.1), constrained_layout=True)
    values = [[entry["ssim"] for entry in entries[name].values()] for name in names]
    drawn = axis.boxplot(
        values, orientation="horizontal", showmeans=True, patch_artist=True, widths=0.6,
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "black", "markeredgecolor": "black"},
        medianprops={"color": "black"}, flierprops={"marker": ".", "markersize": 4},
    )  # fmt: skip
    for box, name in zip(drawn["boxes"], names, strict=True):
        box.set_facecolor(_colour(name))
    axis.set_yticks(range(1, len(names) + 1), [METHODS[name].title for name in names], fontsize=9)
    axis.invert_yaxis()
    for place, name in enumerate(names, 1):
        axis.annotate(
            f"{row(entries, name).ssim:.3f}", (1.0, place), (6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axis.set_xlabel(f"SSIM over {len(values[0])} slices; mean at the right")
    axis.grid(axis="x", alpha=0.4)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def seam(settings: Settings, case: Case, path: Path) -> Path:
    """Whole image, plain tiles and tiles with a halo around one tile corner, and the change by tiling."""
    images = {name: _load(settings, case, name) for name in ("int8 whole", "int8 tiles", "int8 halo")}
    side = min(3 * TILE, case.size)
    corner = _busiest(np.abs(images["int8 tiles"] - images["int8 whole"]), side)
    part = tuple(slice(start, start + side) for start in corner)
    figure, axes = plt.subplots(2, 3, figsize=(9.0, 6.3), constrained_layout=True)
    whole = images["int8 whole"][part]
    amplified = 0.1
    for axis, (name, image) in zip(axes[0], images.items(), strict=True):
        _show(axis, image[part], SHORT[name])
    shown = None
    for axis, name in zip(axes[1, 1:], ("int8 tiles", "int8 halo"), strict=True):
        difference = images[name][part] - whole
        shown = axis.imshow(difference, cmap="RdBu", vmin=-amplified, vmax=amplified, interpolation="nearest")
        axis.set_title(f"minus whole; largest {np.abs(difference).max():.3f}", fontsize=10)
        axis.set_axis_off()
    _show(axes[1, 0], load_slice(case, settings.folder).clean[part], "clean")
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes[1, 1:], orientation="horizontal", shrink=0.6, aspect=40)
    bar.set_ticks([-amplified, -amplified / 2, 0, amplified / 2, amplified])
    bar.set_label(f"grey, ten times amplified; tiles meet every {TILE} pixels", fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def sheet(settings: Settings, entries: Entries, cases: Sequence[Case], path: Path) -> Path:
    """One slice per row: noisy, float, int8, repaired, clean, with SSIM under each."""
    shown = ("noisy", "float whole", "int8 tiles", _repaired(entries))
    columns = len(shown) + 1
    figure, axes = plt.subplots(
        len(cases), columns, figsize=(2.0 * columns, 2.28 * len(cases) + 0.2), squeeze=False,
        constrained_layout=True,
    )  # fmt: skip
    for number, (line, case) in enumerate(zip(axes, cases, strict=True)):
        for axis, name in zip(line, shown, strict=False):
            _show(axis, _load(settings, case, name), SHORT[name] if number == 0 else "")
            axis.text(
                0.5, -0.03, f"SSIM {entries[name][case.name]['ssim']:.4f}",
                transform=axis.transAxes, ha="center", va="top", fontsize=9,
            )  # fmt: skip
        _show(line[-1], load_slice(case, settings.folder).clean, "clean" if number == 0 else "")
        line[-1].text(
            0.5, -0.03, case.family, transform=line[-1].transAxes, ha="center", va="top", fontsize=9
        )
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return _shrink(path)


def details(settings: Settings, entries: Entries, case: Case, path: Path) -> Path:
    """The middle of a slice, pixel by pixel: repaired beside clean, lost and invented inclusions marked."""
    name = _repaired(entries)
    restored, clean = _load(settings, case, name), load_slice(case, settings.folder).clean
    side = min(256, case.size)
    start = (case.size - side) // 2
    part = (slice(start, start + side),) * 2
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 4.5), constrained_layout=True)
    _show(axes[0], restored[part], SHORT[name])
    _show(axes[1], clean[part], f"clean ({case.family})")
    numbers = {"kept": 0, "lost": 0, "invented": 0}
    for places in Truth(clean).places(restored).values():
        lost, invented = _inside(places.lost, start, side), _inside(places.invented, start, side)
        numbers["lost"] += len(lost)
        numbers["invented"] += len(invented)
        numbers["kept"] += len(_inside(places.present, start, side)) - len(lost)
        axes[1].plot(lost[:, 1], lost[:, 0], "o", mfc="none", mec=_fraction(LOST), ms=11)
        axes[0].plot(invented[:, 1], invented[:, 0], "s", mfc="none", mec=_fraction(INVENTED), ms=11)
    figure.supxlabel(
        f"inclusions here: {numbers['kept']} kept, {numbers['lost']} lost (circles), "
        f"{numbers['invented']} invented (squares)", fontsize=9,
    )  # fmt: skip
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return _shrink(path)


def _repaired(entries: Entries) -> str:
    return next((name for name in REPAIRED if name in entries), REPAIRED[-1])


def _inside(places: Array, start: int, side: int) -> Array:
    moved = places - start
    return moved[((moved >= 0) & (moved < side)).all(axis=1)]


def _busiest(change: Array, side: int) -> tuple[int, int]:
    """The corner, half a tile off the grid, of the window in which tiling changed most."""
    height, width = change.shape
    starts = [
        (y, x)
        for y in range(TILE // 2, height - side + 1, TILE)
        for x in range(TILE // 2, width - side + 1, TILE)
    ]
    return max(starts or [(0, 0)], key=lambda c: change[c[0] : c[0] + side, c[1] : c[1] + side].mean())


def _show(axis: Any, image: Array, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def _colour(name: str) -> str:
    if name.startswith("float"):
        return "tab:green"
    if "uint8" in name:
        return "tab:orange"
    return "tab:blue" if "int8" in name else "lightgrey"


def _load(settings: Settings, case: Case, method: str) -> Array:
    image: Array = np.load(image_path(settings, case, method))
    return image


def _fraction(colour: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour)


def _shrink(path: Path) -> Path:
    """Stores the picture with a palette of greys and the colours of the marks."""
    greys = np.repeat(np.linspace(0, 255, GREYS).round().astype(np.uint8)[:, np.newaxis], 3, axis=1)
    # Marks are smoothed at their borders, so that the palette also mixes their colours with greys.
    shades = [mark + (np.array(grey) - mark) * part for mark in np.array([LOST, INVENTED])
              for grey in (0, 80, 160, 255) for part in (0.0, 0.4, 0.7)]  # fmt: skip
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([greys, np.array(shades).round().astype(np.uint8)]).tobytes())
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
    return path
