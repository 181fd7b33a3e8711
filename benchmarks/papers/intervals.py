"""Means with their intervals as a picture: a panel for each data set, a colour for each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.papers.statistics import Estimate

LINEAR, MARKS = 2, (1, 2, 5, 10, 20, 50)
"""The value from which the scale is logarithmic, and the labels of the scale."""

Panels = Mapping[str, Mapping[str, Sequence[Estimate]]]
"""Title of a panel to its series: name to estimates, one at each place."""


def draw_intervals(
    panels: Panels,
    places: Sequence[float],
    shift: float,
    labels: tuple[str, str],
    panel_width: float,
    path: Path,
) -> Path:
    """Draws estimates at ``places``, each series ``shift`` beside the last one; ``labels`` are those of x and
    y.

    The scale is linear within ±2 and logarithmic beyond, so that a loss of 60 hides no difference of 1.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator

    figure, axes = plt.subplots(1, len(panels), figsize=(panel_width * len(panels), 3), squeeze=False)
    for panel, (title, series) in zip(axes[0], panels.items(), strict=True):
        for number, (name, found) in enumerate(series.items()):
            means = [estimate.mean for estimate in found]
            reach = [estimate.high - estimate.mean for estimate in found]
            panel.errorbar(
                np.array(places) + shift * number, means, reach, fmt="o", markersize=3, capsize=2, label=name
            )
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set_yscale("symlog", linthresh=LINEAR, linscale=0.7)
        panel.yaxis.set_major_locator(FixedLocator([*(-mark for mark in MARKS), 0, *MARKS]))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(labels[0])
    axes[0][0].set_ylabel(labels[1])
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path
