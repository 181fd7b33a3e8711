"""``karat24 inspect``: what a model file holds, and what of it the oracle can judge."""

from __future__ import annotations

import argparse
import json
from typing import Any

from karat24.cli import options as shared

HELP = "show a model's layers, shapes, quantization, cost, multipliers, and what karat24 or a runtime lacks"
EPILOG = """examples:
  karat24 inspect model.tflite
  karat24 inspect model.tflite --profile litert-2.3-xnnpack     which rule rounds each layer
  karat24 inspect model.tflite --layer 3                        its channels' multipliers and shifts
  karat24 inspect model.tflite --layer 3 --channel 5 --json

Nothing is run. A file is always shown as far as it can be read: custom ops, compiled models, several
subgraphs, unknown versions. With --profile, an .onnx model shows the layers that runtime makes of it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    shared.add_model(parser)
    profile = parser.add_argument(
        "--profile",
        metavar="P",
        help="also show the rounding rule of each layer under P, see `karat24 profiles`",
    )
    shared.complete_with(profile, shared.profile_names)
    parser.add_argument("--layer", type=int, metavar="N", help="show layer N in full, with its multipliers")
    parser.add_argument("--channel", type=int, metavar="C", help="with --layer: only output channel C")
    shared.add_subgraph(parser)
    parser.add_argument(
        "--cost",
        action="store_true",
        help="show what each layer costs: MAC, weights, energy of moving them, beside the papers' figures",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Prints the model's description, one layer's, or what its layers cost."""
    from karat24.inspection import describe_file
    from karat24.refimpl.errors import UsageError

    if options.channel is not None and options.layer is None:
        raise UsageError("--channel is one of a layer's: name the layer with --layer N")
    if options.cost:
        from karat24 import cost

        content = cost.describe(shared.read_graph(options.model, options.subgraph))
        text = "\n".join(cost.lines(content))
    elif options.layer is not None:
        content = _layer(options)
        text = layer_text(content)
    else:
        shared.require_model_file(options.model)
        content = describe_file(options.model, options.profile, options.subgraph)
        text = file_text(content)
    print(json.dumps(content, indent=1) if options.json else text)
    return 0


def _layer(options: argparse.Namespace) -> dict[str, Any]:
    from karat24.export import graph_under
    from karat24.inspection import describe_layer
    from karat24.refimpl.profiles import profile_for

    graph = shared.read_graph(options.model, options.subgraph)
    if options.profile is not None:
        graph = graph_under(graph, profile_for(graph, options.profile))
    return describe_layer(graph, options.layer, options.channel, options.profile)


def file_text(content: dict[str, Any]) -> str:
    """A file's description as aligned text."""
    if "subgraphs" not in content:
        return table(content)
    parts = []
    for part in content["subgraphs"]:
        signatures = ", ".join(map(repr, part["signatures"])) or "none"
        heading = f"subgraph {part['subgraph']} {part['name']!r}, signatures: {signatures}"
        entered = [f"entered by {caller}" for caller in part["callers"]]
        parts.append("\n".join([heading, *entered, table(part)]))
    return "\n\n".join(parts)


def table(content: dict[str, Any]) -> str:
    """A graph's description as aligned text."""
    lines = []
    if content.get("outline"):
        lines += [f"only listed, not checked: {content['outline']}", content["description"]]
    for kind in ("inputs", "outputs"):
        lines += [f"{kind[:-1]:7} {_line(tensor)}" for tensor in content[kind]]
    parameters, macs = _count(content["parameters"]), _count(content["macs"])
    lines += [f"{len(content['layers'])} layers, {parameters} parameters, {macs} MAC", ""]
    for layer in content["layers"]:
        output = _line(layer["outputs"][0]) if layer["outputs"] else ""
        rule = f"  [{layer['rule']}]" if "rule" in layer else ""
        mark = "!" if "problem" in layer else " "
        lines.append(
            f"{layer['layer']:4}{mark} {layer['op']:24} {_count(layer['macs']):>13} MAC  {output}{rule}"
        )
        lines += _opaque(layer)
    if content.get("edgetpu"):
        from karat24.export.edgetpu.describe import lines as edgetpu_lines

        lines += ["", *edgetpu_lines(content["edgetpu"])]
    if content["remarks"]:
        lines += ["", "remarks:", *("  " + remark["text"] for remark in content["remarks"])]
    if content["problems"]:
        marked = any("problem" in layer for layer in content["layers"])
        heading = "layers that cannot be judged, marked !:" if marked else "karat24 cannot run this model:"
        lines += ["", heading, *("  " + problem for problem in content["problems"])]
    return "\n".join(lines)


def _opaque(layer: dict[str, Any]) -> list[str]:
    """What is known of a custom layer: its tensors and the size of its payload."""
    sizes = [
        f"{name} {value}"
        for name, value in layer["attributes"].items()
        if isinstance(value, str) and value.startswith("<")
    ]
    inputs = layer.get("input_tensors", [])
    if not sizes and not layer["op"].startswith("CUSTOM:"):
        inputs = [tensor for tensor in inputs if "bytes" in tensor]
        return [f"      constant {_line(tensor)}" for tensor in inputs]
    given = [f"input {_line(tensor)}" for tensor in inputs]
    further = [f"output {_line(tensor)}" for tensor in layer["outputs"][1:]]
    return [f"      {text}" for text in (*sizes, *given, *further)]


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _line(tensor: dict[str, Any]) -> str:
    shape = "of unknown shape"
    if tensor["shape"] is not None:
        shape = "x".join(map(str, tensor["shape"])) or "scalar"
    text = f"{tensor['dtype']} {shape}"
    scales = tensor.get("scale", [])
    if len(scales) == 1:
        text += f" scale {scales[0]:.6g} zero point {tensor['zero_point'][0]}"
    elif scales:
        text += f" {len(scales)} scales"
    return f"{text}  {tensor['name']!r}"


def layer_text(content: dict[str, Any]) -> str:
    """A layer's description as text."""
    lines = [f"layer {content['layer']}: {content['op']} version {content['version']}"]
    lines += [f"  {name} = {value}" for name, value in content["attributes"].items()]
    for kind in ("inputs", "outputs", "intermediates"):
        for position, tensor in enumerate(content[kind]):
            lines.append(f"{kind[:-1]} {position}: {'left out' if tensor is None else _tensor_text(tensor)}")
    for name in ("rule", "problem"):
        if name in content:
            lines.append(f"{name}: {content[name]}")
    for entry in content["channels"]:
        channel = "all channels" if entry["channel"] is None else f"channel {entry['channel']}"
        scales = " * ".join(f"{entry[f'{part}_scale']:.9g}" for part in ("input", "filter"))
        lines += ["", f"{channel}: {scales} / {entry['output_scale']:.9g}", *_forms(entry)]
    for entry in content["operands"]:
        lines += ["", f"{entry['operand']}:", *_forms(entry)]
    return "\n".join(lines)


def _tensor_text(tensor: dict[str, Any]) -> str:
    text = f"tensor {tensor['tensor']}, {_line(tensor)}"
    if "axis" in tensor:
        text += f" along axis {tensor['axis']}"
    if "constant" in tensor:
        values = tensor["constant"]
        text += f", constant of {values['bytes']} bytes"
        if "min" in values:
            text += f" from {values['min']} to {values['max']}"
    return text


def _forms(entry: dict[str, Any]) -> list[str]:
    """The forms of one multiplier, a line for each runtime's."""
    lines = [f"  real (float64)                    {entry['real']:.17g}"]
    if "q31" in entry:
        pair, cmsis = entry["q31"], entry["cmsis_nn"]
        shifts = f"left shift {cmsis['left_shift']}, right shift {cmsis['right_shift']}"
        lines += [
            f"  TFLite, TFLM (Q0.31, left shift)  {pair['multiplier']}, {pair['shift']}",
            f"  CMSIS-NN                          {pair['multiplier']}, {shifts}",
            f"  ruy (multiplier, exponent)        {pair['multiplier']}, {pair['shift']}",
            f"  gemmlowp (right shift)            {pair['multiplier']}, {-pair['shift']}",
        ]
        if "reduced_multiplier" in cmsis:
            lines.append(f"  CMSIS-NN, int16 activations       {cmsis['reduced_multiplier']}")
    if "float32" in entry:
        lines.append(f"  XNNPACK, ONNX Runtime (float32)   {entry['float32']:.9g} {entry['float32_bits']}")
    if "edgetpu_float32" in entry:
        bits = entry["edgetpu_float32_bits"]
        lines.append(f"  Edge TPU (float32)                {entry['edgetpu_float32']:.9g} {bits}")
    for name, words in (
        ("q31_of_float32_product", "Q0.31 of the float32 product     "),
        ("q31_of_float32", "Q0.31 of the float32 quotient    "),
    ):
        if name in entry:
            lines.append(f"  {words} {entry[name]['multiplier']}, {entry[name]['shift']}")
    return lines
