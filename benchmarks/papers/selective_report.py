"""Tables and a picture of selective networks beside single ones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.markdown import table
from benchmarks.papers.image_graph import image_graph
from benchmarks.papers.intervals import draw_intervals
from benchmarks.papers.selective import (
    DEPLOYED_WIDTH,
    DISTORTIONS,
    SIDES,
    TINY,
    TINY_HIDDEN,
    WIDTHS,
    shape,
)
from benchmarks.papers.statistics import Estimate, paired
from benchmarks.papers.tasks import Record, effort
from karat24.refimpl.data_access import Counted, counted, stored_weights

NEAR = 1.0
"""Points that a selective network may lose to the widest single one: the paper's own rule."""

ARITHMETIC = """These figures of the paper are arithmetic and were not measured again. All 18 selective
accuracies of its Tables 3 and 4 are the mean of two entries of Table 1, which holds for a selector without
errors. Weights, multiplications and energy follow from the layers alone, and this project's graphs give them.
The paper counts the selector and one dedicated network, while a device stores both. Its data (CIFAR-100) are
in no package and were not measured here; `training/data_sets` reads them."""


def write(records: Mapping[str, Record], options: argparse.Namespace, output: Path) -> list[Path]:
    """``selective-networks.md`` and ``.png``; nothing before two seeds of one distortion are there."""
    groups = grouped(records)
    if not groups:
        return []
    output.mkdir(parents=True, exist_ok=True)
    path = output / "selective-networks.md"
    path.write_text(document(groups, records, options), encoding="utf-8")
    return [path, draw(groups, output / "selective-networks.png")]


Groups = dict[tuple[str, str], list[Record]]


def grouped(records: Mapping[str, Record]) -> Groups:
    """Records of at least two seeds, by data set and distortion."""
    found = {
        (data, distortion): [
            r
            for r in records.values()
            if "widths" in r and (r["data"], r["distortion"]) == (data, distortion)
        ]
        for data in SIDES
        for distortion in DISTORTIONS
    }
    return {key: group for key, group in found.items() if len(group) > 1}


def column(group: list[Record], width: float, name: str) -> list[float]:
    """One figure of each seed."""
    return [record["widths"][str(width)][name] for record in group]


def against_narrow(group: list[Record], width: float) -> Estimate:
    """The selective network's accuracy less that of the single one of equal width: the missing control."""
    return paired(column(group, width, "selective"), column(group, width, "both"))


def against_wide(group: list[Record], width: float) -> Estimate:
    """The selective network's accuracy less that of the widest single one."""
    return paired(column(group, width, "selective"), column(group, 1.0, "both"))


def conclusion(groups: Groups) -> str:
    """The conclusion by the rule of the plan: an interval above 0 to the narrow one, and near the widest."""
    lines = []
    for (data, distortion), group in groups.items():
        good = [
            width
            for width in WIDTHS[1:]
            if against_narrow(group, width).low > 0 and against_wide(group, width).mean > -NEAR
        ]
        said = f"supported at width {', '.join(map(str, good))}" if good else "not seen at any width"
        lines.append(f"* {data}, {distortion}: {said}.")
    return "\n".join(lines)


def document(groups: Groups, records: Mapping[str, Record], options: argparse.Namespace) -> str:
    """The whole text."""
    parts = [
        "# Is a selector with two narrow networks better than one network?\n",
        "`python -m benchmarks.papers selective` measures it, resumes, and writes this page. "
        f"{effort(records, options.left)}\n",
        "Accuracy is in percent, over equal numbers of clean and distorted test images; differences are in "
        "points, paired by seed, with intervals of 95 %. *Single* is one network trained on both kinds in "
        "as many steps as the two dedicated ones together. *Perfect* is the paper's selector without "
        "errors; *formula* puts the measured rates into its accuracies as if errors were independent. No "
        "run was left out.\n",
        "*Supported* means that the interval of the gain over the single network of equal width is above 0, "
        f"and that the loss to the single one of width 1 is below {NEAR:g} point.\n",
        conclusion(groups),
        "\n" + ARITHMETIC + "\n",
    ]
    if options.quick:
        parts.insert(1, "**A tenth of the training (`--quick`): this only shows that the program runs.**\n")
    parts += [costs(data) for data in SIDES if any(key[0] == data for key in groups)]
    for (data, distortion), group in groups.items():
        rates = ", ".join(
            f"{name} {100 * np.mean([r[key] for r in group]):.2f} %"
            for name, key in (("false alarms", "false_alarms"), ("misses", "misses"))
        )
        rows = [
            (
                f"{width:g}",
                *(f"{np.mean(column(group, width, name)):.2f}"
                  for name in ("both", "selective", "perfect", "formula")),
                against_narrow(group, width).text,
                against_wide(group, width).text,
            )
            for width in WIDTHS
        ]  # fmt: skip
        heads = (
            "width",
            "single",
            "selective",
            "perfect",
            "formula",
            "less single",
            "less single of width 1",
        )
        parts += [f"\n## {data}, {distortion}: {rates}, {len(group)} seeds\n", table(heads, rows)]
    return "\n".join([*parts, deployments(records)]) + "\n![Selective and single](selective-networks.png)\n"


def costs(data: str) -> str:
    """Weights and multiplications of each width, single and selective; weights loaded, and weights stored."""
    side = SIDES[data]
    tiny = image_graph(TINY, TINY_HIDDEN, side, 2)
    rows = []
    for width in WIDTHS:
        graph = image_graph(*shape(width), side, 10)
        alone, chooser = counted(graph, "executed"), counted(tiny, "executed")
        loaded: Counted = alone + chooser
        stored = stored_weights(tiny, graph, graph)
        figures = alone.weights, loaded.weights, stored, alone.macs, loaded.macs
        rows.append((f"{width:g}", *(f"{number:,}" for number in figures)))
    heads = (
        "width",
        "weights, single",
        "selective, loaded",
        "selective, stored",
        "MAC, single",
        "MAC, selective",
    )
    return f"\n## Cost, {data} ({side}×{side})\n\n" + table(heads, rows)


def deployments(records: Mapping[str, Record]) -> str:
    """The networks in int8, powers of two and pruned."""
    rows = [
        (f"{record['data']}, {record['distortion']}, {way}", f"{found['accuracy']:.2f}",
         f"{found['energy']:.3f}",
         {0: "bit exact"}.get(found["exit_code"], f"exit code {found['exit_code']}"))
        for record in records.values() if "ways" in record
        for way, found in record["ways"].items()
    ]  # fmt: skip
    if not rows:
        return ""
    heads = ("of the first seed", "accuracy in int8", "energy, 16 bits", "LiteRT XNNPACK, layer by layer")
    return (
        f"\n## Deployed, width {DEPLOYED_WIDTH:g}\n\nThe oracle runs the whole selective network in 8 bits. "
        "*Powers*: the dedicated networks are powers of two in 5 bits with a span of at most 6. *Pruned*: "
        "80 % of their weights are 0 and cost nothing. Both were retrained. Exit code 3 means that a branch "
        "was not "
        "compared, because no image took it.\n\n" + table(heads, rows)
    )


def draw(groups: Groups, path: Path) -> Path:
    """Selective less single of the same width, a panel for each data set."""
    panels = {
        data: {
            distortion: [against_narrow(groups[data, distortion], width) for width in WIDTHS]
            for distortion in DISTORTIONS
            if (data, distortion) in groups
        }
        for data in SIDES
        if any(key[0] == data for key in groups)
    }
    return draw_intervals(panels, WIDTHS, 0.02, ("width", "selective less single, points"), 4, path)
