"""Node data that Model Explorer lays over a graph, so that differing layers are seen in it.

Source: google-ai-edge/model-explorer, ``node_data_provider_extension_service.ts``: a value for each node,
and thresholds, at or below which a value has a colour. What is not said to be of one graph, by the graph's
name, is of the graph that is looked at. A node of a .tflite file is named after its place in the subgraph.
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


def overlay_json(report: Report) -> str:
    """The worst verdict of each layer as node data in JSON."""
    worst: dict[int, LayerVerdict] = {}
    for layer in report.layers:
        if layer.layer not in worst or SEVERITY[layer.verdict] > SEVERITY[worst[layer.layer].verdict]:
            worst[layer.layer] = layer
    results = {str(index): {"value": SEVERITY[found.verdict]} for index, found in sorted(worst.items())}
    thresholds = [{"value": value, "bgColor": colour} for value, colour in enumerate(COLOURS)]
    return json.dumps({"results": results, "thresholds": thresholds}, indent=1) + "\n"
