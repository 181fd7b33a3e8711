"""One table and one picture of TomoGAN and Fine-Tune in powers of two."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.markdown import table
from benchmarks.papers.bits import BATCH, PATCH, RATE
from benchmarks.papers.statistics import Estimate, paired
from benchmarks.papers.tasks import Record, effort

TITLES = {
    "float": "float32", "int8": "int8, calibrated",
    "int16x8": "int8, activations int16, calibrated", "direct": "powers, rounded at once",
    "exact": "powers, span ≤ 6, int8, exact", "control": "float32, retrained (control)",
    "incremental": "powers, incremental",
}  # fmt: skip
WEIGHT_BITS = {"int8": 8, "int16x8": 8}
HEADS = (
    "weights", "bits", "kB, fixed codes", "kB, variable", "SSIM", "less float32 [95 %]", "+ Fine-Tune",
    "ensemble of 2+", "its kB",
)  # fmt: skip


def write(records: Mapping[str, Record], options: argparse.Namespace, output: Path) -> list[Path]:
    """``powers-of-two-tomogan.md`` and ``.png``; nothing without the float network's record."""
    by_way = {(record["way"], record["bits"]): record for record in records.values()}
    if ("float", 0) not in by_way:
        return []
    base = column(by_way["float", 0], main_name(by_way["float", 0]))
    order = sorted(by_way.values(), key=lambda record: (list(TITLES).index(record["way"]), record["bits"]))
    text = document(order, base, by_way["float", 0], options.size, effort(records, options.left))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "powers-of-two-tomogan.md"
    path.write_text(text, encoding="utf-8")
    return [path, draw(order, output / "powers-of-two-tomogan.png")]


def column(record: Record, name: str) -> list[float]:
    """The SSIM of each slice, slices in order."""
    return [entry[name]["ssim"] for _, entry in sorted(record["slices"].items())]


def main_name(record: Record) -> str:
    """The network alone: the shipped bilinear one, or the first that was retrained."""
    return next(iter(record["memory"]))


def document(order: list[Record], base: list[float], reference: Record, size: int, took: str) -> str:
    """The table, and how it was measured."""
    rows = []
    for record in order:
        name = main_name(record)
        memory = record["memory"][name]
        alone = column(record, name)
        ensemble = "ensemble" in next(iter(record["slices"].values()))
        whole = sum(entry["variable"] for entry in record["memory"].values())
        rows.append(
            (
                TITLES[record["way"]], str(record["bits"] or WEIGHT_BITS.get(record["way"], 32)),
                kilobytes(memory["fixed"]), kilobytes(memory["variable"]), f"{np.mean(alone):.4f}",
                "" if alone == base else difference(paired(alone, base)),
                f"{np.mean(column(record, f'{name} + Fine-Tune')):.4f}",
                f"{np.mean(column(record, 'ensemble')):.4f}" if ensemble else "",
                kilobytes(whole) if ensemble else "",
            )
        )  # fmt: skip
    noisy = np.mean(column(reference, "noisy"))
    trained = [record for record in order if record["steps"]]
    steps = (
        f"Networks of {', '.join(str(record['bits']) for record in trained if record['bits'])} bits were "
        f"retrained, {trained[0]['steps']} steps after each of three parts; their ensembles have "
        f"{trained[0]['members']} members that saw different patches. A step is one of Adam at {RATE:g} on "
        f"{BATCH} patches of {PATCH}×{PATCH} out of 48 simulated training slices; the float network had "
        "thousands of steps."
        if trained
        else "No network was retrained yet."
    )
    return (
        "# TomoGAN in powers of two\n\n"
        f"`python -m benchmarks.papers bits --size {size} --slices {len(base)}` writes this table and "
        f"picture. They hold the mean SSIM of {len(base)} held-out simulated slices of {size}×{size}, "
        f"restored whole; that of the noisy slices is {noisy:.4f}. {took}\n\n"
        f"{table(HEADS, rows)}\n"
        f"{steps} Other ensembles are the mean of the bilinear and the transposed network. kB are those of "
        "TomoGAN's weights without biases; the code of variable length has one bit for a 0. Fine-Tune was "
        "rounded at once to the bits of TomoGAN. From 6 bits on wider codes hardly change a weight, so that "
        "their rows are equal.\n\n![SSIM against kB of weights](powers-of-two-tomogan.png)\n"
    )


def kilobytes(bits: int) -> str:
    """Bits as kB of 1000 bytes."""
    return f"{bits / 8000:,.0f}"


def difference(found: Estimate) -> str:
    """``-0.0012 [-0.0020, -0.0004]``."""
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def draw(order: list[Record], path: Path) -> Path:
    """SSIM against the memory of variable codes, a line for each way, ensembles dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for way, title in TITLES.items():
        records = [record for record in order if record["way"] == way]
        if not records:
            continue
        sizes = [record["memory"][main_name(record)]["variable"] / 8000 for record in records]
        alone = [np.mean(column(record, main_name(record))) for record in records]
        (line,) = axes.plot(sizes, alone, "o-" if len(records) > 1 else "s", label=title)
        for record, size, value in zip(records, sizes, alone, strict=True):
            if record["bits"] and record["bits"] <= 6:
                axes.annotate(str(record["bits"]), (size, value), textcoords="offset points", xytext=(4, 4))
        paired_up = [record for record in records if "ensemble" in next(iter(record["slices"].values()))]
        if paired_up:
            axes.plot(
                [sum(m["variable"] for m in record["memory"].values()) / 8000 for record in paired_up],
                [np.mean(column(record, "ensemble")) for record in paired_up],
                "^--", color=line.get_color(), alpha=0.6, label=f"{title}, ensemble",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("kB of weights (codes of variable length)")
    axes.set_ylabel("SSIM")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path
