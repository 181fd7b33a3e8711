"""What a model costs, layer by layer, beside the figures of the paper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from karat24.paper import DEVICES, FINE_TUNE_OPERATIONS, IMAGE, TOMOGAN_OPERATIONS
from karat24.refimpl.cost import count
from karat24.refimpl.graph import DTYPES, Graph


@dataclass(frozen=True)
class LayerRow:
    """One layer for one run. ``operations`` are two per multiplication-addition and one per bias;
    ``activation_bytes`` is what it writes."""

    layer: int
    op: str
    macs: int
    operations: int
    parameters: int
    activation_bytes: int


def cost_rows(graph: Graph) -> tuple[LayerRow, ...]:
    """The cost of every layer, in order. Raises ModelError as ``karat24.refimpl.cost.count`` does."""
    costs = count(graph).layers
    return tuple(
        LayerRow(
            cost.layer,
            cost.op,
            cost.macs,
            cost.operations,
            cost.parameters,
            sum(math.prod(t.shape) * DTYPES[t.dtype].itemsize for t in view.outputs),
        )
        for cost, view in zip(costs, graph.views(), strict=True)
    )


def describe(graph: Graph) -> dict[str, Any]:
    """Rows, totals and the paper's figures as plain data.

    ``operations_at_output`` counts transposed convolutions at their output's resolution, as the paper does.
    ``per_image`` is for a 1024×1024 image cut into tiles of the model's size; absent for a model whose
    input is no image that tiles one.
    """
    rows, cost = cost_rows(graph), count(graph)
    content: dict[str, Any] = {
        "layers": [asdict(row) for row in rows],
        "macs": cost.macs,
        "operations": cost.operations,
        "operations_at_output": cost.operations_at_output,
        "parameters": cost.parameters,
        "activation_bytes": sum(row.activation_bytes for row in rows),
        "paper": {
            "tomogan_operations": TOMOGAN_OPERATIONS,
            "fine_tune_operations": FINE_TUNE_OPERATIONS,
            "devices": [{**asdict(device), "joules": device.joules} for device in DEVICES],
        },
    }
    shape = graph.tensors[graph.inputs[0]].shape if graph.inputs else ()
    if (
        len(shape) == 4
        and graph.format == "tflite"
        and all(0 < n <= IMAGE and IMAGE % n == 0 for n in shape[1:3])
    ):
        tiles = (IMAGE // shape[1]) * (IMAGE // shape[2])
        content["per_image"] = {
            "tiles": tiles,
            "operations": tiles * cost.operations,
            "operations_at_output": tiles * cost.operations_at_output,
        }
    return content


def lines(content: dict[str, Any]) -> Iterator[str]:
    """The description as text."""
    width = max((len(row["op"]) for row in content["layers"]), default=2)
    columns = ("macs", "operations", "parameters", "activation_bytes")
    heads = ("MAC", "operations", "parameters", "bytes written")
    yield f"{'layer':>5}  {'op':{width}}" + "".join(f"{head:>17}" for head in heads)
    for row in content["layers"]:
        yield f"{row['layer']:5}  {row['op']:{width}}" + "".join(f"{row[name]:17,}" for name in columns)
    yield f"{'':5}  {'total':{width}}" + "".join(f"{content[name]:17,}" for name in columns)
    yield ""
    if "per_image" in content:
        image = content["per_image"]
        yield (
            f"a {IMAGE}×{IMAGE} image in {image['tiles']:,} tiles: {image['operations']:,} operations, "
            f"{image['operations_at_output']:,} with transposed convolutions counted at their output"
        )
    yield (
        f"the paper of 2019, per {IMAGE}×{IMAGE} image: TomoGAN {TOMOGAN_OPERATIONS:,} operations, "
        f"Fine-Tune {FINE_TUNE_OPERATIONS:,}"
    )
    for device in DEVICES:
        power = "" if device.watts is None else f", {device.watts:g} W, {device.joules:.3f} J"
        speed = f", {device.tera_operations:g} TOPS {device.precision}" if device.tera_operations else ""
        yield f"  {device.name}: {device.total:.3f} s{power}{speed}"
