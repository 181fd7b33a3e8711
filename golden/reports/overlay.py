"""Node data that Model Explorer lays over a graph, so that differing layers are seen in it.

Source: google-ai-edge/model-explorer, "Custom node data" guide: by graph, by node, a value; thresholds
give colours. A node of a .tflite file is named after its place in the subgraph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from karat24.golden.report import LayerVerdict, Report, Verdict

SEVERITY: Mapping[Verdict, int] = {
    "certified": 0,
    "bit_exact": 1,
    "within_bound": 2,
    "explained": 3,
    "not_compared": 4,
    "mismatch": 5,
}
COLOURS = ("#4f9f4f", "#7fbf7f", "#b7dfb7", "#f2d27a", "#a8c7e6", "#e57373")


def overlay_json(report: Report, graph: str = "main") -> str:
    """The worst verdict of each layer as the JSON of one graph's node data.

    ``graph`` is its name in Model Explorer: ``main`` for a .tflite file whose subgraph has no name.
    """
    worst: dict[int, LayerVerdict] = {}
    for layer in report.layers:
        if layer.layer not in worst or SEVERITY[layer.verdict] > SEVERITY[worst[layer.layer].verdict]:
            worst[layer.layer] = layer
    results = {str(index): {"value": SEVERITY[found.verdict]} for index, found in sorted(worst.items())}
    thresholds = [{"value": value, "bgColor": colour} for value, colour in enumerate(COLOURS)]
    return json.dumps({graph: {"results": results, "thresholds": thresholds}}, indent=1) + "\n"
