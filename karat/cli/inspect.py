"""``karat inspect``: what a model file holds, and whether the oracle can run it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from karat.cli import options as shared

if TYPE_CHECKING:
    from refimpl.graph import Graph, Tensor

HELP = "show a model's layers, shapes, quantization and cost, and any op the oracle lacks"
EPILOG = "Nothing is run. Unsupported ops are listed with the file that would define them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    profile = parser.add_argument(
        "--profile", metavar="P", help="also show the rounding rule of each layer under P"
    )
    shared.complete_with(profile, shared.profile_names)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Prints the model's description."""
    graph = shared.read_graph(options.model)
    content = describe(graph, options.profile)
    print(json.dumps(content, indent=1) if options.json else table(content))
    return 0


def describe(graph: Graph, profile_name: str | None) -> dict[str, Any]:
    """The graph as plain data: inputs, outputs, layers, totals, problems."""
    from refimpl.cost import count
    from refimpl.errors import KaratError
    from refimpl.ops import OPS, why_unsupported
    from refimpl.profiles import profile_named

    profile = profile_named(profile_name) if profile_name else None
    cost = count(graph)
    layers, problems = [], []
    for view in graph.views():
        entry: dict[str, Any] = {
            "layer": view.layer.index,
            "op": view.op,
            "version": view.layer.version,
            "attributes": {
                name: f"<{len(value)} bytes>" if isinstance(value, bytes) else value
                for name, value in view.layer.attributes.items()
            },
            "inputs": list(view.layer.inputs),
            "outputs": [_tensor(tensor) for tensor in view.outputs],
            "macs": cost.layers[view.layer.index].macs,
        }
        if view.op not in OPS:
            problems.append(f"{view}: op not supported; {why_unsupported(view.op)}")
        else:
            try:
                OPS[view.op].check(view)
                if profile is not None:
                    entry["rule"] = str(profile.rule(view))
            except KaratError as error:
                problems.append(str(error))
        layers.append(entry)
    return {
        "format": graph.format,
        "description": graph.description,
        "inputs": [_tensor(graph.tensors[i]) for i in graph.inputs],
        "outputs": [_tensor(graph.tensors[i]) for i in graph.outputs],
        "layers": layers,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "problems": problems,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "tensor": tensor.index,
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
    }
    if tensor.quantization is not None:
        entry["scale"] = list(tensor.quantization.scale)
        entry["zero_point"] = list(tensor.quantization.zero_point)
    return entry


def table(content: dict[str, Any]) -> str:
    """The description as aligned text."""
    lines = []
    for kind in ("inputs", "outputs"):
        lines += [f"{kind[:-1]:7} {_line(tensor)}" for tensor in content[kind]]
    lines.append(
        f"{len(content['layers'])} layers, {content['parameters']:,} parameters, {content['macs']:,} MAC"
    )
    lines.append("")
    for layer in content["layers"]:
        output = _line(layer["outputs"][0]) if layer["outputs"] else ""
        rule = f"  [{layer['rule']}]" if "rule" in layer else ""
        lines.append(f"{layer['layer']:4}  {layer['op']:24} {layer['macs']:>13,} MAC  {output}{rule}")
    if content["problems"]:
        lines += ["", "the oracle cannot run this model:", *("  " + p for p in content["problems"])]
    return "\n".join(lines)


def _line(tensor: dict[str, Any]) -> str:
    shape = "x".join(map(str, tensor["shape"])) or "scalar"
    text = f"{tensor['dtype']} {shape}"
    scales = tensor.get("scale", [])
    if len(scales) == 1:
        text += f" scale {scales[0]:.6g} zero point {tensor['zero_point'][0]}"
    elif scales:
        text += f" {len(scales)} scales"
    return f"{text}  {tensor['name']!r}"
