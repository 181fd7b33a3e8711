"""Tables and a picture of the accuracy of networks trained in powers of two."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.markdown import table
from benchmarks.papers.intervals import draw_intervals
from benchmarks.papers.powers import BITS, DATA, WIDTHS, outputs_path
from benchmarks.papers.statistics import Estimate, holm, paired
from benchmarks.papers.tasks import Record, effort
from karat24.refimpl.graph import Array

MEMBERS = range(1, 8)
ENSEMBLED = ("float", "control", "4", "5")

ARITHMETIC = """These figures of the paper are arithmetic or noise and were not measured again. Memory
"4 to 6.4 times smaller" is 32 / b for b of 8 and 5 bits, without biases and batch normalization. 6 to 9 bits
are one quantizer for trained weights, since the values they add are smaller than all but a few weights; the
differences between them in its tables are those of two runs. Its "best" width is the best of several, and
each entry the best of four runs. Its data (MICCAI glands, ImageNet, TIMIT) are in no package and were not
measured here; `training/data_sets` reads them."""


def write(records: Mapping[str, Record], options: argparse.Namespace, output: Path) -> list[Path]:
    """``powers-of-two-accuracy.md`` and ``.png``; nothing before two seeds of one network are there."""
    groups = grouped(records)
    if not groups:
        return []
    output.mkdir(parents=True, exist_ok=True)
    path = output / "powers-of-two-accuracy.md"
    path.write_text(document(groups, records, options), encoding="utf-8")
    return [path, draw(groups, output / "powers-of-two-accuracy.png")]


Groups = dict[tuple[str, str], list[Record]]


def grouped(records: Mapping[str, Record]) -> Groups:
    """Records of at least two seeds, by data set and width."""
    found = {
        (data, width): [r for r in records.values() if (r["data"], r["width"]) == (data, width)]
        for data in DATA
        for width in WIDTHS
    }
    return {key: group for key, group in found.items() if len(group) > 1}


def to_control(group: list[Record]) -> dict[int, Estimate]:
    """The difference of each number of bits to the control, in points."""
    control = [record["accuracy"]["control"] for record in group]
    return {bits: paired([record["accuracy"][str(bits)] for record in group], control) for bits in BITS}


def better(group: list[Record]) -> list[int]:
    """The numbers of bits that beat the control, by Holm's correction over the eight."""
    found = to_control(group)
    rejected = holm({str(bits): estimate.p for bits, estimate in found.items()})
    return [bits for bits, estimate in found.items() if estimate.mean > 0 and rejected[str(bits)]]


def conclusion(groups: Groups) -> str:
    """The conclusion by the plan of the experiment: a gain for the wide network and none for the narrow
    one."""
    sentences = []
    for data in DATA:
        if not all((data, width) in groups for width in WIDTHS):
            sentences.append(f"{data}: not all networks have run twice, so there is no conclusion.")
            continue
        wide, narrow = (better(groups[data, width]) for width in WIDTHS)
        gained = f"{', '.join(map(str, wide))} bits beat the control for the wide network"
        if wide and not narrow:
            sentences.append(f"{data}: supported, {gained} and none for the narrow one.")
        elif wide:
            sentences.append(f"{data}: not as claimed, {gained}, but {narrow} also for the narrow one.")
        else:
            sentences.append(f"{data}: not seen, no number of bits beats the control for the wide network.")
    return "\n".join(f"* {sentence}" for sentence in sentences)


def document(groups: Groups, records: Mapping[str, Record], options: argparse.Namespace) -> str:
    """The whole text."""
    parts = [
        "# Does quantization to powers of two make networks more accurate?\n",
        "`python -m benchmarks.papers powers` measures it, resumes, and writes this page. "
        f"{effort(records, options.left)}\n",
        "Each network is trained, then goes through the schedule of 50, 75, 87.5 and 100 % at each number "
        "of bits; the control goes through it without rounding. Accuracy is in percent; differences are in "
        "points, paired by seed, with intervals of 95 %. ✓ marks differences that are significant by Holm's "
        "correction over the eight numbers of bits. No run was left out.\n",
        conclusion(groups),
        "\n" + ARITHMETIC + "\n",
    ]
    if options.quick:
        parts.insert(1, "**A tenth of the training (`--quick`): this only shows that the program runs.**\n")
    for (data, width), group in groups.items():
        means = {n: np.mean([r["accuracy"][n] for r in group]) for n in group[0]["accuracy"]}
        rejected = holm({str(bits): estimate.p for bits, estimate in to_control(group).items()})
        rows = [("float, before the schedule", f"{means['float']:.2f}", "")]
        rows.append(("control", f"{means['control']:.2f}", ""))
        rows += [
            (f"{bits} bits", f"{means[str(bits)]:.2f}", f"{found.text}{' ✓' if rejected[str(bits)] else ''}")
            for bits, found in to_control(group).items()
        ]
        first = group[0]
        parts += [
            f"## {data}, {width}: {first['weights']:,} weights, {len(group)} seeds, "
            f"{first['test']:,} test samples\n",
            table(("", "accuracy", "less the control"), rows),
            ensembles(group, options.folder),
        ]
    return "\n".join(parts) + "\n![Differences to the control](powers-of-two-accuracy.png)\n"


def ensembles(group: list[Record], folder: Path) -> str:
    """Accuracy of ensembles of 1 to 7 members; the members are the first seeds, in order."""
    outputs = []
    for record in sorted(group, key=lambda record: record["seed"]):
        path = outputs_path(folder, record["data"], record["width"], record["seed"], record["quick"])
        if path.is_file():
            with np.load(path) as stored:
                outputs.append({name: stored[name].astype(np.float32) for name in ENSEMBLED})
    if len(outputs) < 2:
        return ""
    labels = _labels(group[0]["data"])
    if labels is None:
        return ""
    sizes = [number for number in MEMBERS if number <= len(outputs)]
    rows = [
        (
            name if not name.isdigit() else f"{name} bits",
            *(f"{_right(sum(o[name] for o in outputs[:n]) / n, labels):.2f}" for n in sizes),
        )
        for name in ENSEMBLED
    ]  # fmt: skip
    return "Ensembles of the first seeds:\n\n" + table(("members", *map(str, sizes)), rows)


@functools.cache
def _labels(data: str) -> Array | None:
    from benchmarks.papers.data_sets import DATA_SETS
    from karat24.refimpl.errors import UsageError

    try:
        return DATA_SETS[data]().test[1]
    except UsageError:  # tables are also written where the packages are missing
        return None


def _right(given: Array, labels: Array) -> float:
    return 100 * float((given.argmax(1) == labels).mean())


def draw(groups: Groups, path: Path) -> Path:
    """Differences to the control with their intervals, a panel for each data set."""
    panels = {
        data: {
            width: list(to_control(groups[data, width]).values())
            for width in WIDTHS
            if (data, width) in groups
        }
        for data in DATA
        if any(key[0] == data for key in groups)
    }
    return draw_intervals(panels, BITS, 0.15, ("bits", "points over the control"), 3.2, path)
