"""What a model costs, layer by layer, beside the figures of the paper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from karat24.paper import DEVICES, FINE_TUNE_OPERATIONS, IMAGE, TOMOGAN_OPERATIONS
from karat24.refimpl.cost import count
from karat24.refimpl.data_access import FULL_BITS, READINGS, counted, energy, weight_layers
from karat24.refimpl.errors import ModelError
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
    input cannot be such a tile.
    """
    rows, cost = cost_rows(graph), count(graph)
    content: dict[str, Any] = {
        "layers": [asdict(row) for row in rows],
        "macs": cost.macs,
        "operations": cost.operations,
        "operations_at_output": cost.operations_at_output,
        "parameters": cost.parameters,
        "activation_bytes": sum(row.activation_bytes for row in rows),
        "data_access": data_access(graph),
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


NARROW_BITS = 12
"""The width in which the selective paper stores pruned weights."""


def data_access(graph: Graph) -> dict[str, Any]:
    """Weights, multiplications and energy by the selective paper's conventions, as plain data.

    Weights of convolutions and fully connected layers only. ``energy`` of a reading (see
    ``karat24.refimpl.data_access``) is that of all weights in 16 bits, and of those that are not 0 in 16 and
    in 12 bits; in units of one multiplication. ``{"problem": …}`` for a filter that is computed.
    """
    try:
        layers = weight_layers(graph)
    except ModelError as failure:
        return {"problem": str(failure)}
    return {
        "weights": sum(layer.weights for layer in layers),
        "nonzero": sum(layer.nonzero for layer in layers),
        "macs": {convention: counted(graph, convention).macs for convention in ("executed", "block-input")},
        "energy": {
            reading: {
                f"{FULL_BITS} bits": float(energy(graph, reading)),
                f"{FULL_BITS} bits, without zeros": float(energy(graph, reading, dense=False)),
                f"{NARROW_BITS} bits, without zeros": float(energy(graph, reading, NARROW_BITS, dense=False)),
            }
            for reading in READINGS
        },
    }


def data_access_lines(content: dict[str, Any]) -> Iterator[str]:
    """The content of :func:`data_access` as text."""
    if "problem" in content:
        yield f"energy of data access: not counted, {content['problem']}"
        return
    yield f"weights {content['weights']:,}, of which {content['nonzero']:,} are not 0"
    yield (
        f"MAC {content['macs']['executed']:,} executed, {content['macs']['block-input']:,} as the selective "
        "paper counts them, at the size of a block's input"
    )
    for reading, found in content["energy"].items():
        amounts = ", ".join(f"{amount:,.0f} in {what}" for what, amount in found.items())
        yield f"energy of moving weights, in MAC, reading {reading!r}: {amounts}"


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
    yield from data_access_lines(content["data_access"])
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
