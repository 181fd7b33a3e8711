"""Pictures for people: slices side by side with their similarity to the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class Panel:
    """A titled slice, float32 ``[y, x]``, grey (0 black, 1 white)."""

    title: str
    image: Array


def similarity(clean: Array, image: Array) -> float:
    """Structural similarity (scikit-image, data range 1) of two grey slices."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(clean, image, data_range=1.0))  # type: ignore[no-untyped-call]


def save_panels(panels: Sequence[Panel], clean: Array, folder: Path) -> list[Path]:
    """Writes ``restoration.png`` (all side by side, a detail below each, SSIM under each) and one
    full-size PNG per panel. Raises UsageError when matplotlib or scikit-image is missing."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise UsageError("pictures need matplotlib and scikit-image: pip install 'karat24[image]'") from error
    height, width = clean.shape
    detail = np.s_[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8]
    figure, axes = plt.subplots(2, len(panels), figsize=(3.4 * len(panels), 7.4), constrained_layout=True)
    written = []
    for column, panel in enumerate(panels):
        caption = "" if panel.image is clean else f"\nSSIM {similarity(clean, panel.image):.4f}"
        for row, part in enumerate((np.s_[:, :], detail)):
            axis = axes[row, column]
            axis.imshow(panel.image[part], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
        axes[0, column].set_title(panel.title + caption, fontsize=11)
        name = panel.title.lower().replace(" + ", "-").replace(" ", "-")
        path = folder / f"{name}.png"
        plt.imsave(path, panel.image, cmap="gray", vmin=0, vmax=1)
        written.append(path)
    path = folder / "restoration.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return [path, *written]
