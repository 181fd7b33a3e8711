"""Draws ``golden/certify/staircase.png``: ``python -m benchmarks.staircase_picture``.

One channel of a small layer under two profiles, by the same code that ``karat24 diverge`` and
``karat24 verify --certify`` use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, LayerView, Quantization
from karat24.refimpl.profiles import profile_named
from karat24.refimpl.staircase import requantization, staircase

TARGET = Path(__file__).parent.parent / "golden" / "certify" / "staircase.png"
PROFILES = ("litert-2.3-ref", "litert-2.3-xnnpack")
FIRST, LAST = -44, 44
"""The accumulators in the picture; with a multiplier of 1/16 a step is 16 wide, with a tie in its middle."""


def layer() -> LayerView:
    """A CONV_2D of one input and one output channel with multiplier 1/16 and zero point 0."""
    builder = GraphBuilder("picture")
    image = builder.input("image", (1, 1, 1, 1), "int8", Quantization.per_tensor(0.25))
    weights = np.ones((1, 1, 1, 1), np.int8)
    filter_ = builder.constant("filter", weights, Quantization.per_tensor(0.125))
    bias = builder.constant("bias", np.zeros(1, np.int32), Quantization.per_tensor(0.25 * 0.125))
    output = builder.tensor("output", (1, 1, 1, 1), "int8", Quantization.per_tensor(0.5))
    builder.layer(
        "CONV_2D", [image, filter_, bias], [output], 3, padding="VALID", stride_h=1, stride_w=1,
        fused_activation_function="NONE",
    )  # fmt: skip
    return builder.build([output]).view(0)


def steps(view: LayerView, profile: str) -> tuple[Array, Array]:
    """Thresholds within the picture, and the output of each of its accumulators."""
    rule = profile_named(profile).rule(view)
    rounding = requantization(view, rule)
    assert rounding is not None
    stairs = staircase(rounding, rule.method, np.array([FIRST]), np.array([LAST]))
    shown = stairs.thresholds[:, 0]
    accumulators = np.arange(FIRST, LAST + 1)
    return shown[(shown > FIRST) & (shown <= LAST)], stairs.outputs(accumulators[:, np.newaxis])[:, 0]


def draw(target: Path) -> None:
    """Writes the picture as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    view = layer()
    accumulators = np.arange(FIRST, LAST + 1)
    (thresholds, outputs), (_, other_outputs) = (steps(view, profile) for profile in PROFILES)
    figure, axes = pyplot.subplots(figsize=(7.2, 3.4), dpi=110)
    axes.step(accumulators, outputs, where="mid", color="#1f4e79", label=f"output under {PROFILES[0]}")
    beside = np.union1d(thresholds, thresholds - 1)
    axes.plot(
        beside, outputs[beside - FIRST], "o", color="#1f4e79", markersize=5,
        label="what --certify meets: both sides of each threshold",
    )  # fmt: skip
    apart = np.flatnonzero(outputs != other_outputs)
    axes.plot(
        accumulators[apart], other_outputs[apart], "s", color="#c0504d", markersize=4,
        label=f"where {PROFILES[1]} differs",
    )  # fmt: skip
    drawn = np.random.default_rng(1).integers(FIRST, LAST + 1, 12)
    axes.plot(drawn, np.full(12, -3.6), "|", color="#777777", markersize=9, label="12 random inputs")
    axes.set_xlabel("accumulator of one channel: bias plus the sum of products")
    axes.set_ylabel("int8 output")
    axes.set_yticks(range(-3, 4))
    axes.set_ylim(-3.9, 4.6)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(target, metadata={"Software": None})


if __name__ == "__main__":
    draw(TARGET)
